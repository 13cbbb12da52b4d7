# SPDX-License-Identifier: Apache-2.0
"""What happens to requests and answers on their way, with real requests to a real nginx."""

from __future__ import annotations

import gzip
import subprocess
import time

from tests.l7.conftest import Scene, values
from tests.l7.covers import covers


@covers(
    "route.headers.request_set",
    "route.headers.request_remove",
    "route.headers.response_set",
    "route.headers.response_remove",
    "route.headers.host",
)
def test_headers_are_set_and_removed_both_ways(scene: Scene) -> None:
    headers = {
        "request_set": {"X-Set": 'a "b" $request_method', "Accept": "text/html"},
        "request_remove": ["Authorization"],
        "response_set": {"X-Frame-Options": "DENY", "X-Pod": "hidden"},
        "response_remove": ["X-Secret"],
        "host": "inner.example.org",
    }
    scene.configure(scene.route(headers=headers))
    answer = scene.get("/", "--header", "Authorization: Basic eDp5", "--header", "X-Set: of the client")
    seen = answer.said["headers"]
    assert (seen["x-set"], seen["accept"], seen["host"]) == ('a "b" GET', "text/html", "inner.example.org")
    assert "authorization" not in seen
    assert (answer.headers["x-frame-options"], answer.headers["x-pod"]) == ("DENY", "hidden")
    assert "x-secret" not in answer.headers


@covers("route.headers.response_set")
def test_response_headers_are_in_errors_as_well(scene: Scene) -> None:
    scene.configure(scene.route(headers={"response_set": {"X-Frame-Options": "DENY"}}))
    assert scene.get("/status/500").headers["x-frame-options"] == "DENY"


@covers("route.headers.forwarded")
def test_forwarded_headers(scene: Scene) -> None:
    names = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-real-ip")
    lie = ("--header", "X-Forwarded-For: 192.0.2.1", "--header", "X-Forwarded-Proto: https")
    seen = {}
    for how in ("replace", "append", "none"):
        scene.configure(scene.route(headers={"forwarded": how}))
        headers = scene.get("/", *lie).said["headers"]
        seen[how] = tuple(headers.get(name) for name in names)
    client, host = scene.client(1), f"www.example.org:{scene.listen}"
    assert seen == {
        "replace": (client, "http", host, client),
        "append": (f"192.0.2.1, {client}", "http", host, client),
        "none": (None, None, None, None),
    }


@covers("route.headers.host")
def test_the_backend_gets_the_clients_host_unless_told_otherwise(scene: Scene) -> None:
    scene.configure(scene.route())
    assert scene.get(host="a.example.org").said["headers"]["host"] == f"a.example.org:{scene.listen}"


@covers("route.request_body.max_size", "route.request_body.buffer_size")
def test_a_body_that_is_too_large_is_refused(scene: Scene) -> None:
    scene.configure(scene.route(request_body={"max_size": "2k", "buffer_size": "1k"}))
    assert scene.get("/", "--data-binary", "x" * 2048).said["length"] == 2048
    assert scene.get("/", "--data-binary", "x" * 2049).status == 413


@covers("route.request_body.buffering")
def test_an_unbuffered_body_reaches_the_backend_before_it_is_whole(scene: Scene) -> None:
    scene.configure(scene.route(request_body={"buffering": False, "max_size": "0"}))
    assert (
        scene.get("/", "--data-binary", "x" * 100000, "--header", "Transfer-Encoding: chunked")
        .said["headers"]
        .get("transfer-encoding")
        == "chunked"
    )  # a buffered one has a length by then
    scene.configure(scene.route(request_body={"buffering": True, "max_size": "0"}))
    headers = scene.get("/", "--data-binary", "x" * 100, "--header", "Transfer-Encoding: chunked").said["headers"]
    assert headers["content-length"] == "100"


@covers(
    "route.buffering.enabled",
    "route.buffering.header_size",
    "route.buffering.number",
    "route.buffering.size",
    "route.buffering.busy_size",
    "route.buffering.file_size",
)
def test_an_unbuffered_stream_arrives_piece_by_piece(scene: Scene) -> None:
    sizes = {"header_size": "8k", "number": 4, "size": "8k", "busy_size": "16k", "file_size": "0"}
    scene.configure(scene.route(buffering={"enabled": False, **sizes}))
    url = f"http://{scene.server}:{scene.listen}/stream"
    with subprocess.Popen(["curl", "-sN", "--noproxy", "*", url], stdout=subprocess.PIPE, text=True) as curl:
        assert curl.stdout is not None
        assert curl.stdout.readline() == "first\n"
        scene.get("/go")  # the backend waits for this before it goes on
        assert curl.stdout.readline() == "second\n"


@covers(
    "route.compression.gzip",
    "route.compression.brotli",
    "route.compression.level",
    "route.compression.min_bytes",
    "route.compression.types",
    "route.compression.proxied",
)
def test_compression(scene: Scene) -> None:
    compression = {"gzip": True, "brotli": True, "level": 5, "min_bytes": 100, "types": ["text/css"], "proxied": True}
    scene.configure(scene.route(compression=compression))
    assert "content-encoding" not in scene.get("/big/1000").headers
    assert "content-encoding" not in scene.get("/big/50", "--header", "Accept-Encoding: gzip").headers
    for accepted, wanted in (("gzip", "gzip"), ("gzip, br", "br")):
        head = scene.get("/big/1000", "--header", f"Accept-Encoding: {accepted}", "--output", "/dev/null", "-D", "-")
        assert head.headers["content-encoding"] == wanted
    url = f"http://{scene.server}:{scene.listen}/big/1000"
    plain = ["curl", "-s", "--noproxy", "*", "--header", "Accept-Encoding: gzip", "--header", "Via: 1.1 proxy", url]
    body = subprocess.run(plain, capture_output=True, check=True).stdout
    assert gzip.decompress(body) == (b"0123456789abcdef" * 63)[:1000]


@covers("route.timeouts.read_seconds", "route.timeouts.send_seconds", "route.timeouts.connect_seconds")
def test_a_backend_that_does_not_answer_in_time(scene: Scene) -> None:
    timeouts = {"read_seconds": 1, "send_seconds": 5, "connect_seconds": 1}
    scene.configure(scene.route(timeouts=timeouts, retries={"tries": 1}))
    assert scene.get("/slow/0.1").status == 200
    assert scene.get("/slow/5").status == 504


@covers("route.timeouts.client_body_seconds", "route.timeouts.client_send_seconds")
def test_a_client_that_does_not_send_its_body_in_time(scene: Scene) -> None:
    scene.configure(scene.route(timeouts={"client_body_seconds": 1, "client_send_seconds": 30}))
    # nginx closes the connection, or answers 408 first.
    head = "POST / HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: 9\\r\\n\\r\\nx"
    slow = f"exec 3<>/dev/tcp/{scene.server}/{scene.listen}; printf '{head}' >&3; timeout 15 cat <&3"
    began = time.monotonic()
    done = subprocess.run(["bash", "-c", slow], capture_output=True, text=True, check=False)
    assert done.returncode == 0, "it was not closed"
    assert "200 OK" not in done.stdout
    assert time.monotonic() - began >= 1


@covers("route.websocket")
def test_without_websocket_an_upgrade_is_not_passed_on(scene: Scene) -> None:
    upgrade = ("--header", "Connection: Upgrade", "--header", "Upgrade: test")
    scene.configure(scene.route(websocket=False))
    assert "upgrade" not in scene.get("/", *upgrade).said["headers"]
    scene.configure(scene.route())
    assert scene.get("/", *upgrade).said["headers"]["upgrade"] == "test"


@covers("route.response_redirects", "route.response_cookies.domain", "route.response_cookies.path")
def test_redirects_and_cookies_of_backends_are_rewritten(scene: Scene) -> None:
    scene.configure(
        scene.route(
            response_redirects=[{"from": "http://backend.internal/inner/", "to": "/outer/"}],
            response_cookies={"domain": {"backend.internal": "example.org"}, "path": {"/inner": "/outer"}},
        )
    )
    assert scene.get("/location").headers["location"].endswith("/outer/page")
    cookie = scene.get("/cookie").headers["set-cookie"]
    assert "example.org" in cookie
    assert "/outer" in cookie


@covers("route.mirror", "route.mirror_body")
def test_a_mirror_gets_a_copy(scene: Scene) -> None:
    audit = {"service": "audit/audit", "port": scene.port, "path": "/copied"}
    scene.configure(scene.route(mirror=[audit], mirror_body=True))
    assert scene.get("/a").pod in scene.over_network()
    deadline = time.monotonic() + 10
    while not scene.asked("audit/audit", "/copied") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert scene.asked("audit/audit", "/copied") == 1


@covers("route.error_pages", "route.intercept_errors")
def test_error_pages(scene: Scene) -> None:
    pages = [
        {"statuses": [404], "body": "<h1>nothing here</h1>"},
        {"statuses": [502, 503], "body": '{"error": 1}', "media_type": "application/json", "status": 500},
        {"statuses": [418], "redirect": "https://status.example.org/"},
    ]
    scene.configure(scene.route(error_pages=pages, intercept_errors=True))
    assert (scene.get("/status/404").status, scene.get("/status/404").body) == (404, "<h1>nothing here</h1>")
    answer = scene.get("/status/503")
    assert (answer.status, answer.headers["content-type"], answer.body) == (500, "application/json", '{"error": 1}')
    assert scene.get("/status/418").headers["location"] == "https://status.example.org/"
    assert scene.get("/status/500").body.split()[0] in scene.over_network()


@covers("route.maintenance")
def test_maintenance(scene: Scene) -> None:
    page = {"body": "back soon\n", "status": 503, "retry_seconds": 120, "media_type": "text/plain"}
    scene.configure(scene.route(maintenance=page))
    answer = scene.get("/a")
    assert (answer.status, answer.body, answer.headers["retry-after"]) == (503, "back soon\n", "120")
    scene.configure(scene.route(maintenance={**page, "except_clients": [scene.client(1)]}))
    assert scene.get("/a").status == 200
    scene.configure(scene.route(maintenance={**page, "enabled": False}))
    assert scene.get("/a").status == 200


@covers("route.static")
def test_static_files(scene: Scene) -> None:
    root = scene.balancer.directory / "www"
    (root / "sub").mkdir(parents=True)
    (root / "index.html").write_text("<p>index</p>")
    (root / "app.css").write_text("p {}")
    (root / "sub" / "x.txt").write_text("x")
    static = {"directory": scene.balancer.seen(root), "index": ["index.html"], "expires_seconds": 600}
    scene.configure(scene.route(path="/assets/", static={**static, "listing": True}))
    assert scene.get("/assets/").body == "<p>index</p>"
    answer = scene.get("/assets/app.css")
    assert (answer.headers["content-type"], answer.headers["cache-control"]) == ("text/css", "max-age=600")
    assert "x.txt" in scene.get("/assets/sub/").body
    assert scene.get("/assets/none").status == 404
    assert scene.get("/assets/../../../etc/passwd").status in (400, 404)
    scene.configure(scene.route(path="/", static={**static, "fallback": "/index.html"}))
    assert scene.get("/some/page").body == "<p>index</p>"


@covers(
    "route.cache.enabled",
    "route.cache.key",
    "route.cache.valid",
    "route.cache.status_header",
    "route.cache.bypass",
    "route.cache.no_store",
    "route.cache.methods",
    "route.cache.min_uses",
    "route.cache.ignore_headers",
    "route.cache.lock",
    "route.cache.revalidate",
    "route.cache.background",
)
def test_answers_are_cached(scene: Scene) -> None:
    cache = {
        "key": "$host$uri",
        "valid": [{"seconds": 60}, {"statuses": [404], "seconds": 1}],
        "status_header": "X-Cache",
        "bypass": ["$arg_fresh"],
        "no_store": ["$arg_private"],
        "methods": ["GET"],
        "min_uses": 1,
        "ignore_headers": ["Set-Cookie"],
        "lock": True,
        "revalidate": True,
        "background": True,
    }
    scene.configure(scene.route(cache=cache))
    answers = [
        scene.get("/a"),
        scene.get("/a?x=1"),
        scene.get("/a?fresh=1"),
        scene.get("/b?private=1"),
        scene.get("/b"),
    ]
    assert values(answers, "x-cache") == ["MISS", "HIT", "BYPASS", "MISS", "MISS"]
    assert scene.get("/cookie").headers["x-cache"] == "MISS"
    assert scene.get("/cookie").headers["x-cache"] == "HIT"
    scene.configure(scene.route(cache={**cache, "enabled": False}))
    assert "x-cache" not in scene.get("/a").headers


@covers("route.cache.stale")
def test_an_old_answer_is_better_than_none(scene: Scene) -> None:
    scene.configure(
        scene.route(
            cache={"valid": [{"seconds": 1}], "stale": ["error", "timeout"], "status_header": "X-Cache"},
            retries={"tries": 1},
        )
    )
    assert scene.get("/a").headers["x-cache"] == "MISS"
    scene.backends.stop(scene.service_ip(), scene.port)
    deadline = time.monotonic() + 10
    while (state := scene.get("/a").headers["x-cache"]) == "HIT" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert state == "STALE"


@covers("route.snippet")
def test_a_snippet_is_taken_over(scene: Scene) -> None:
    scene.configure(scene.route(snippet='add_header X-Snippet "a;b";\nif ($arg_x) { return 402; }'))
    assert scene.get().headers["x-snippet"] == "a;b"
    assert scene.get("/?x=1").status == 402


@covers("listener.server_tokens")
def test_the_version_of_nginx_is_told_only_when_wanted(scene: Scene) -> None:
    scene.configure(scene.route())
    assert scene.get().headers["server"] == "nginx"
    scene.configure(scene.route(), listener={"server_tokens": True})
    assert scene.get().headers["server"].startswith("nginx/")
