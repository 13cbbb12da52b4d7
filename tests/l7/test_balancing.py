# SPDX-License-Identifier: Apache-2.0
"""Choosing among pods, naming one, and following them without a reload; with real requests to a real nginx."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.l7.balancer import BALANCER
from tests.l7.conftest import Scene, make_scene, pods_that_answer
from tests.l7.covers import covers
from tests.l7.intent import SUBNET, own_network
from tests.l7.place import loopback_only


def by_pods(scene: Scene, method: str = "round_robin", **more: Any) -> dict[str, Any]:
    """A route that chooses among the three pods of fop/agents."""
    return scene.route(backends=[scene.backend("fop/agents")], balance={"method": method}, **more)


@covers("route.balance.method")
def test_round_robin_gives_every_pod_the_same(scene: Scene) -> None:
    scene.configure(by_pods(scene))
    assert Counter(pods_that_answer(scene, 12)) == {"agents-1": 4, "agents-2": 4, "agents-3": 4}


@covers("route.balance.method")
def test_weighted_keeps_to_the_weights_of_pods(scene: Scene) -> None:
    scene.pods("fop/agents", 3, start=False, weights={"agents-1": 300, "agents-3": 0})
    scene.configure(by_pods(scene, "weighted"))
    assert Counter(pods_that_answer(scene, 12)) == {"agents-1": 9, "agents-2": 3}


@covers("route.balance.method")
def test_least_connections_avoids_busy_pods(scene: Scene) -> None:
    scene.configure(by_pods(scene, "least_connections"))
    with ThreadPoolExecutor(2) as pool:
        slow = [pool.submit(scene.get, "/slow/3") for _ in range(2)]
        busy = [scene.address("fop/agents", number) for number in (1, 2, 3)]
        deadline = time.monotonic() + 10
        while sum(scene.backends.asked(address, scene.port, "/slow/3") for address in busy) < 0 or not all(
            future.running() for future in slow
        ):
            assert time.monotonic() < deadline
        time.sleep(0.5)  # both have reached their pods
        assert len(set(pods_that_answer(scene, 4))) == 1
        assert len({future.result().pod for future in slow}) == 2


@covers("route.balance.method")
def test_a_request_that_ends_with_an_error_page_leaves_its_pod_no_busier(scene: Scene) -> None:
    page = {"statuses": [500], "body": "sorry"}
    scene.pods("fop/agents", 2, start=False)
    scene.configure(by_pods(scene, "least_connections", error_pages=[page], intercept_errors=True))
    for _ in range(3):
        assert scene.get("/status/500").body == "sorry"
    assert set(pods_that_answer(scene, 6)) == {"agents-1", "agents-2"}


@covers("route.balance.method")
def test_a_client_keeps_its_pod(scene: Scene) -> None:
    scene.configure(by_pods(scene, "client_hash"))
    of_client = {
        scene.client(number): {scene.get("/", "--interface", scene.client(number)).pod for _ in range(3)}
        for number in range(1, 13)
    }
    assert all(len(pods) == 1 for pods in of_client.values())
    assert len(set.union(*of_client.values())) == 3


@covers("route.balance.key")
def test_a_pod_that_goes_moves_only_its_own_keys(scene: Scene) -> None:
    scene.configure(scene.route(backends=[scene.backend("fop/agents")], balance={"method": "hash", "key": "$arg_file"}))
    before = {number: scene.get(f"/?file={number}&x={time.time()}").pod for number in range(24)}
    assert len(set(before.values())) == 3
    scene.pods("fop/agents", 2, start=False)
    after = {number: scene.get(f"/?file={number}").pod for number in range(24)}
    assert {n: after[n] for n in before if before[n] != "agents-3"} == {
        n: pod for n, pod in before.items() if pod != "agents-3"
    }


@covers("route.balance.key", "route.balance.method")
def test_keys_are_spread_evenly(scene: Scene) -> None:
    route = scene.route(backends=[scene.backend("fop/agents")], balance={"method": "hash", "key": "$arg_file"})
    scene.configure({**route, "replace_prefix": "/"})
    counts = Counter(scene.get(f"/?file={number}").pod for number in range(120))
    # 40 each, give or take four standard deviations.
    assert all(19 <= counts[f"agents-{number}"] <= 61 for number in (1, 2, 3)), counts


@covers("route.sticky")
def test_a_cookie_keeps_a_client_at_its_pod_even_while_it_drains(scene: Scene) -> None:
    sticky = {"cookie": "at", "lifetime_seconds": 60, "path": "/", "same_site": "Lax", "secure": False}
    scene.configure(by_pods(scene, sticky=sticky))
    first = scene.get()
    cookie = first.headers["set-cookie"]
    assert cookie.split("; ")[1:] == ["Path=/", "HttpOnly", "Max-Age=60", "SameSite=Lax"]
    mine = ("--cookie", cookie.split(";")[0])
    assert set(pods_that_answer(scene, 6, *mine)) == {first.pod}
    assert "set-cookie" not in scene.get("/", *mine).headers
    scene.pods("fop/agents", 3, start=False, draining=[first.pod])
    assert set(pods_that_answer(scene, 4, *mine)) == {first.pod}
    assert first.pod not in pods_that_answer(scene, 8)
    scene.stop_pod("fop/agents", int(first.pod[-1]))
    moved = scene.get("/", *mine)
    assert moved.pod != first.pod
    assert "set-cookie" in moved.headers


WAYS = {
    "header": ({"header": "X-Agent"}, "/", ("--header", "X-Agent: {}")),
    "cookie": ({"cookie": "agent"}, "/", ("--cookie", "agent={}")),
    "argument": ({"argument": "agent"}, "/?agent={}", ()),
    "path_segment": ({"path_segment": 2}, "/at/{}/file", ()),
}


@covers("route.naming.header", "route.naming.cookie", "route.naming.argument", "route.naming.path_segment")
@pytest.mark.parametrize("way", WAYS)
def test_a_request_names_its_pod_by_name_or_number(scene: Scene, way: str) -> None:
    naming, path, arguments = WAYS[way]
    scene.configure(by_pods(scene, naming=naming))

    def ask(name: str) -> tuple[int, str]:
        answer = scene.get(path.format(name), *(argument.format(name) for argument in arguments))
        return answer.status, answer.pod if answer.status == 200 else answer.body

    for name in ("agents-2", "2", "fop/agents-2") if way != "path_segment" else ("agents-2", "2", "fop%2Fagents-2"):
        assert ask(name) == (200, "agents-2")
    refused = (404, "no pod of this route has the name or number that was given\n")
    assert [ask(name) for name in ("image-1", "9", "fop%2Fimage-1" if way == "path_segment" else "fop/image-1")] == [
        refused
    ] * 3


@covers("route.naming.required")
def test_a_name_may_be_required(scene: Scene) -> None:
    scene.configure(by_pods(scene, naming={"header": "X-Agent", "required": True}))
    assert scene.get().status == 400
    assert scene.get("/", "--header", "X-Agent: 1").pod == "agents-1"


@covers("route.naming.header")
def test_naming_is_refused_where_a_route_does_not_allow_it(scene: Scene) -> None:
    scene.configure(
        scene.route("named", path="/named", backends=[scene.backend("fop/agents")], naming={"header": "X-Agent"}),
        scene.route("other", path="/"),
    )
    assert scene.get("/other").status == 200
    answer = scene.get("/other", "--header", "X-Agent: 1")
    assert (answer.status, answer.body) == (400, "this route does not let a request name a pod\n")


@covers("route.naming.header")
def test_naming_is_no_way_around_an_export(scene: Scene) -> None:
    scene.configure(by_pods(scene, naming={"header": "X-Agent"}))
    named = ("--header", "X-Agent: 1")
    assert scene.get("/", *named).status == 200
    for more in ({"direct": False}, {"ports": ["tcp/1"]}):
        scene.pods("fop/agents", 3, start=False, **more)
        answer = scene.get("/", *named)
        assert (answer.status, answer.body) == (403, "the pods of fop/agents are not exported to this balancer\n")
        assert scene.get("/").status == 503
    scene.pods("fop/agents", 3, start=False, ports=[f"tcp/{scene.port}"])
    assert scene.get("/", *named).status == 200


@covers("route.naming.header", "route.backends")
def test_naming_chooses_among_several_services(scene: Scene) -> None:
    both = [scene.backend("fop/image", weight=1), scene.backend("fop/agents", weight=0)]
    scene.configure(scene.route(backends=both, naming={"header": "X-Agent"}))
    assert scene.get("/", "--header", "X-Agent: agents-3").pod == "agents-3"
    assert scene.get("/").pod.startswith("image")


@covers("route.backends")
def test_pods_come_and_go_without_a_reload(scene: Scene) -> None:
    scene.configure(by_pods(scene))
    workers = scene.balancer.workers()
    scene.pods("fop/agents", 1, start=False)
    assert set(pods_that_answer(scene, 4)) == {"agents-1"}
    scene.pods("fop/agents", 3, start=False)
    assert set(pods_that_answer(scene, 6)) == {"agents-1", "agents-2", "agents-3"}
    scene.pods("fop/agents", 3, start=False, draining=["agents-2"])
    assert set(pods_that_answer(scene, 6)) == {"agents-1", "agents-3"}
    assert scene.balancer.workers() == workers


@covers("route.retries.tries", "route.health_check.passive_failures", "route.health_check.passive_seconds")
def test_a_pod_that_is_gone_costs_no_request(scene: Scene) -> None:
    scene.configure(by_pods(scene, retries={"tries": 3}, health_check={"passive_failures": 1, "passive_seconds": 1}))
    scene.stop_pod("fop/agents", 2)
    assert set(pods_that_answer(scene, 9)) == {"agents-1", "agents-3"}
    scene.backends.start("agents-2", scene.address("fop/agents", 2), scene.port)
    deadline = time.monotonic() + 20
    while scene.get().pod != "agents-2":
        assert time.monotonic() < deadline, "it does not come back"


@covers("route.retries.conditions", "route.retries.timeout_seconds", "route.retries.non_idempotent")
def test_retries_on_what_a_backend_answers(scene: Scene) -> None:
    retries = {"tries": 3, "conditions": ["error", "http_503"], "timeout_seconds": 5}
    scene.configure(by_pods(scene, retries=retries, health_check={"passive_failures": 0}))

    def asked() -> int:
        addresses = [scene.address("fop/agents", number) for number in (1, 2, 3)]
        return sum(scene.backends.asked(address, scene.port, "/status/503") for address in addresses)

    assert scene.get("/status/503").status == 503
    assert asked() == 3
    assert scene.get("/status/500").status == 500
    scene.get("/status/503", "--request", "POST")  # may have done something: not tried again
    before = asked()
    scene.configure(by_pods(scene, retries={**retries, "non_idempotent": True}, health_check={"passive_failures": 0}))
    scene.get("/status/503")
    assert asked() == before + 3


@covers("route.retries.tries")
def test_a_retry_over_the_service_ip(scene: Scene) -> None:
    """The network may choose another pod for the second try; here the Service IP fails once and then answers."""
    scene.configure(scene.route(retries={"tries": 2, "conditions": ["http_502"]}))
    scene.get("/status/502")
    assert scene.asked("fop/image", "/status/502") == 2


@covers(
    "route.health_check.kind",
    "route.health_check.path",
    "route.health_check.statuses",
    "route.health_check.interval_milliseconds",
    "route.health_check.timeout_milliseconds",
    "route.health_check.fall",
    "route.health_check.rise",
)
@pytest.mark.parametrize("kind", ["tcp", "http"])
def test_active_checks_find_a_dead_pod_before_a_request_does(scene: Scene, kind: str) -> None:
    check = {"kind": kind, "interval_milliseconds": 50, "timeout_milliseconds": 500, "fall": 2, "rise": 2}
    check |= {"path": "/status/204", "statuses": [204]} if kind == "http" else {}
    scene.configure(by_pods(scene, health_check={**check, "passive_failures": 0}, retries={"tries": 1}))
    scene.stop_pod("fop/agents", 2)

    def up() -> bool:
        up = f'qnet_l7_pods{{service="fop/agents",tenant="files",port="{scene.port}",state="up"}} 3'
        return up in scene.balancer.metrics()

    deadline = time.monotonic() + 20
    while up():
        assert time.monotonic() < deadline, "the dead pod is not noticed"
        time.sleep(0.02)
    assert set(pods_that_answer(scene, 6)) == {"agents-1", "agents-3"}
    scene.backends.start("agents-2", scene.address("fop/agents", 2), scene.port)
    while not up():
        assert time.monotonic() < deadline, "it does not come back"
        time.sleep(0.02)
    assert "agents-2" in pods_that_answer(scene, 6)


@covers("route.health_check.path")
def test_when_every_check_fails_checks_are_not_believed(scene: Scene) -> None:
    check = {"kind": "http", "path": "/status/500", "interval_milliseconds": 50, "fall": 1}
    scene.configure(by_pods(scene, health_check=check))
    time.sleep(0.5)
    assert scene.get().status == 200


@covers(
    "route.keepalive.connections",
    "route.keepalive.requests",
    "route.keepalive.idle_seconds",
    "route.keepalive.lifetime_seconds",
)
def test_connections_to_backends_are_kept(scene: Scene) -> None:
    kept = {"connections": 4, "requests": 1000, "idle_seconds": 30, "lifetime_seconds": 60}
    scene.configure(scene.route(keepalive=kept))
    assert len({scene.get().said["connection"] for _ in range(4)}) == 1
    scene.configure(scene.route())
    assert scene.get().said["headers"]["connection"] == "close"


@covers("route.backends")
def test_no_pod_at_all(scene: Scene) -> None:
    scene.configure(by_pods(scene))
    scene.pods("fop/agents", 0)
    assert scene.get().status == 503


@covers("route.backend_protocol")
def test_the_access_log_names_service_pod_and_tenant(scene: Scene) -> None:
    scene.configure(by_pods(scene))
    pod = scene.get("/logged?x=1").pod
    (line,) = scene.balancer.log()
    wanted = {"listener": "web", "route": "web/all", "service": "fop/agents", "tenant": "files", "pod": pod}
    assert {name: line[name] for name in wanted} == wanted
    assert (line["status"], line["uri"], line["method"]) == (200, "/logged?x=1", "GET")


@loopback_only
@covers("listener.port", "route.balance.method", "route.health_check.kind")
def test_a_balancer_with_an_ipv6_service_ip_listens_there_and_reaches_pods_without_ipv4() -> None:
    with own_network(), make_scene(SUBNET) as scene:
        scene.balancer.addresses = {
            **scene.balancer.addresses,
            (BALANCER, "main"): f"{SUBNET}.9.9",
            (BALANCER, "six"): "fd00:7::9",
        }
        pods = {f"image-{number}": f"fd00:7::{number}" for number in (1, 2, 3)}
        for name, address in list(pods.items())[:2]:  # nobody is at the third
            subprocess.run(["ip", "address", "add", f"{address}/128", "dev", "lo", "nodad"], check=True)
            scene.backends.start(name, address, scene.port)
        scene.balancer.set_pods("fop/image", pods)
        check = {"kind": "tcp", "interval_milliseconds": 50, "fall": 1}
        scene.configure(scene.route(balance={"method": "round_robin"}, health_check=check))
        for client in ("127.0.0.1", "[::1]"):
            found = pods_that_answer(scene, 4, "--connect-to", f"::{client}:{scene.listen}")
            assert set(found) == {"image-1", "image-2"}
