# SPDX-License-Identifier: Apache-2.0
"""Who may come, how often and how fast, with real requests to a real nginx."""

from __future__ import annotations

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.l7.conftest import Scene
from tests.l7.covers import covers


@covers(
    "route.rate_limit.requests",
    "route.rate_limit.per",
    "route.rate_limit.key",
    "route.rate_limit.burst",
    "route.rate_limit.delay",
    "route.rate_limit.status",
)
def test_requests_over_the_rate_are_refused_for_each_key_by_itself(scene: Scene) -> None:
    limit = {"requests": 1, "per": "minute", "key": "$arg_user", "burst": 2, "delay": False, "status": 430}
    scene.configure(scene.route(rate_limit=limit))
    assert [scene.get("/?user=a").status for _ in range(4)] == [200, 200, 200, 430]
    assert scene.get("/?user=b").status == 200


@covers("route.rate_limit.status")
def test_too_many_requests_are_told_so(scene: Scene) -> None:
    scene.configure(scene.route(rate_limit={"requests": 1, "per": "minute"}))
    assert [scene.get().status for _ in range(2)] == [200, 429]


@covers("route.connection_limit.most", "route.connection_limit.key", "route.connection_limit.status")
def test_connections_at_a_time(scene: Scene) -> None:
    scene.configure(scene.route(connection_limit={"most": 2, "key": "$server_name", "status": 509}))
    with ThreadPoolExecutor(6) as pool:
        statuses = sorted(answer.status for answer in pool.map(scene.get, ["/slow/1"] * 6))
    assert statuses[:2] == [200, 200]
    assert statuses.count(509) == 6 - statuses.count(200)
    assert statuses.count(200) < 6


@covers("route.bandwidth.bytes_per_second", "route.bandwidth.after")
def test_answers_are_slowed_down(scene: Scene) -> None:
    scene.configure(scene.route(bandwidth={"bytes_per_second": "40k", "after": "10k"}))
    began = time.monotonic()
    scene.get("/big/200000")
    assert time.monotonic() - began >= 1  # 190 kB at 40 kB/s take more than four seconds; nginx counts in whole ones


@covers("route.access")
def test_addresses_are_let_in_or_not(scene: Scene) -> None:
    def status_from(address: str) -> int:
        return scene.get("/", "--interface", address).status

    first, second, stranger = scene.client(1), scene.client(2), scene.client(20)
    scene.configure(scene.route(access=[{"deny": second}, {"allow": scene.place.clients}, {"deny": "all"}]))
    assert [status_from(address) for address in (first, second, stranger)] == [200, 403, 403]


def hashed(password: str) -> str:
    """What `users_file` has for a password."""
    command = ["openssl", "passwd", "-6", password]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@covers("route.basic_auth.users_file", "route.basic_auth.realm")
def test_name_and_password(scene: Scene) -> None:
    scene.files["users/site"] = f"ann:{hashed('secret')}\n"
    scene.configure(scene.route(basic_auth={"users_file": "users/site", "realm": "the site"}))
    answer = scene.get()
    assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Basic realm="the site"')
    assert scene.get("/", "--user", "ann:wrong").status == 401
    assert scene.get("/", "--user", "ann:secret").status == 200


@covers(
    "route.auth_request.service",
    "route.auth_request.port",
    "route.auth_request.path",
    "route.auth_request.request_headers",
    "route.auth_request.service_ip",
)
def test_a_service_is_asked_whether_a_request_may_pass(scene: Scene) -> None:
    ask = {
        "service": "audit/audit",
        "port": scene.port,
        "path": "/authorise",
        "request_headers": {"X-User": "$upstream_http_x_user"},
    }
    scene.configure(scene.route(auth_request=ask))
    assert scene.get("/a?b").status == 401
    assert scene.asked("audit/audit", "/a?b") == 1  # it is told what was asked for
    answer = scene.get("/a", "--header", "Authorization: Bearer good", "--header", "X-User: eve")
    assert answer.said["headers"]["x-user"] == "ann"


@covers("route.satisfy")
def test_an_address_or_a_password_is_enough(scene: Scene) -> None:
    scene.files["users"] = f"ann:{hashed('secret')}\n"
    access = [{"allow": scene.client(2)}, {"deny": "all"}]
    both: dict[str, Any] = {"access": access, "basic_auth": {"users_file": "users"}}
    for satisfy, wanted in (("any", [200, 200, 401]), ("all", [401, 403, 403])):
        scene.configure(scene.route(satisfy=satisfy, **both))
        statuses = [
            scene.get("/", "--interface", scene.client(2)).status,
            scene.get("/", "--user", "ann:secret").status,
            scene.get("/").status,
        ]
        assert statuses == wanted


@covers("listener.real_client.trusted", "listener.real_client.header", "listener.real_client.recursive")
def test_the_clients_address_is_believed_from_trusted_proxies_only(scene: Scene) -> None:
    real = {"trusted": [scene.client(1), "192.0.2.0/24"], "header": "X-Client", "recursive": True}
    scene.configure(scene.route(), listener={"real_client": real})
    told = ("--header", "X-Client: 198.51.100.7, 192.0.2.9")
    assert scene.get("/", *told).said["headers"]["x-real-ip"] == "198.51.100.7"
    other = scene.client(5)
    assert scene.get("/", "--interface", other, *told).said["headers"]["x-real-ip"] == other


@covers("listener.proxy_protocol", "listener.real_client.trusted")
def test_the_proxy_protocol_from_clients(scene: Scene) -> None:
    scene.configure(scene.route(), listener={"proxy_protocol": True, "real_client": {"trusted": [scene.client(1)]}})
    assert scene.get("/", "--haproxy-protocol").status == 200
    line = "PROXY TCP4 198.51.100.7 192.0.2.1 4711 80\\r\\n"
    there = f"/dev/tcp/{scene.server}/{scene.listen}"
    ask = f"exec 3<>{there}; printf '{line}GET / HTTP/1.0\\r\\n\\r\\n' >&3; timeout 10 cat <&3"
    assert '"x-real-ip": "198.51.100.7"' in subprocess.run(["bash", "-c", ask], capture_output=True, text=True).stdout


@covers(
    "listener.client_connections.keepalive_seconds",
    "listener.client_connections.keepalive_requests",
    "listener.client_connections.header_seconds",
    "listener.client_connections.header_buffers",
    "listener.client_connections.header_size",
    "listener.client_connections.underscores",
)
def test_connections_of_clients(scene: Scene) -> None:
    connections = {
        "keepalive_seconds": 30,
        "keepalive_requests": 2,
        "header_seconds": 1,
        "header_buffers": 2,
        "header_size": "2k",
        "underscores": True,
    }
    scene.configure(scene.route(), listener={"client_connections": connections})
    url = f"http://{scene.server}:{scene.listen}/"
    command = ["curl", "-s", "--noproxy", "*", "-o", "/dev/null", "-w", "%{num_connects}", url]
    for more in (url, url, url):
        command += ["-o", "/dev/null", more]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "1010"
    assert scene.get("/", "--header", "x_y: 1").said["headers"]["x_y"] == "1"
    assert scene.get("/", "--header", "X-Long: " + "x" * 1900).status == 200
    assert scene.get("/", "--header", "X-Long: " + "x" * 2100).status == 400
    slow = f"exec 3<>/dev/tcp/{scene.server}/{scene.listen}; printf 'GET / HTTP/1.1\\r\\n' >&3; timeout 15 cat <&3"
    done = subprocess.run(["bash", "-c", slow], capture_output=True, text=True, check=False)
    assert (done.returncode, "200 OK" in done.stdout) == (0, False)


@covers("route.access", "route.basic_auth.users_file", "route.rate_limit.requests", "route.respond.status")
def test_fixed_answers_and_redirects_are_guarded_like_backends(scene: Scene) -> None:
    scene.files["users"] = "alice:{PLAIN}secret\n"
    closed: dict[str, object] = {"access": [{"deny": "all"}]}
    password = {"users_file": "users"}
    scene.configure(
        scene.route("answer", path="/answer", respond={"status": 200, "body": "inside"}, **closed),
        scene.route("away", path="/away", redirect={"to": "/elsewhere"}, **closed),
        scene.route("asked", path="/asked", respond={"status": 200, "body": "inside"}, basic_auth=password),
        scene.route(
            "few", path="/few", respond={"status": 200, "body": "few"}, rate_limit={"requests": 1, "per": "minute"},
            headers={"response_set": {"X-Mine": "yes"}},
        ),
    )  # fmt: skip
    assert [scene.get(path).status for path in ("/answer", "/away", "/asked")] == [403, 403, 401]
    assert scene.get("/asked", "--user", "alice:secret").body == "inside"
    first, second = scene.get("/few"), scene.get("/few")
    assert (first.status, first.body, first.headers["x-mine"]) == (200, "few", "yes")
    assert (second.status, second.headers["x-mine"]) == (429, "yes")
