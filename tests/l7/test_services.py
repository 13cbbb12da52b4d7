# SPDX-License-Identifier: Apache-2.0
"""What a service says about how it is asked: routes take it over unless they say otherwise."""

from __future__ import annotations

import ssl
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.l7.certificates import Authority
from tests.l7.conftest import Scene, pods_that_answer
from tests.l7.covers import covers

from ansible_collections.qiniu.qnet.plugins.module_utils import _l7_rules


def says(scene: Scene, service: str = "fop/image", **options: Any) -> None:
    """The service says this; an option of the service is known as soon as something is configured."""
    scene.balancer.l7 = {service: options}


@covers("service.timeouts", "service.retries")
def test_a_route_takes_over_what_its_service_says_and_the_listener_counts_less(scene: Scene) -> None:
    says(scene, timeouts={"read_seconds": 1}, retries={"tries": 1})
    slow = scene.route("slow", path="/slow", timeouts={"read_seconds": 20})
    scene.configure(scene.route(rewrite=[{"pattern": "^/x(.*)", "to": "$1"}]), slow, listener={"timeouts": {}})
    assert scene.get("/x/slow/4").status == 504, "the service says one second"
    assert scene.get("/slow/2").status == 200, "the route says twenty"
    scene.configure(scene.route(), listener={"timeouts": {"read_seconds": 20}})
    assert scene.get("/slow/4").status == 504, "the service knows better than the listener"


@covers("service.balance", "service.health_check")
def test_a_service_says_how_its_pods_are_chosen(scene: Scene) -> None:
    check = {"kind": "tcp", "interval_milliseconds": 50, "fall": 1, "passive_failures": 0}
    says(scene, "fop/agents", balance={"method": "round_robin"}, health_check=check, retries={"tries": 1})
    scene.configure(scene.route(backends=[scene.backend("fop/agents")]))
    assert Counter(pods_that_answer(scene, 6)) == {"agents-1": 2, "agents-2": 2, "agents-3": 2}
    scene.stop_pod("fop/agents", 2)
    deadline = time.monotonic() + 20
    while 'state="out"} 1' not in scene.balancer.metrics():
        assert time.monotonic() < deadline, "the dead pod is not noticed"
        time.sleep(0.02)
    assert set(pods_that_answer(scene, 4)) == {"agents-1", "agents-3"}


@covers("service.keepalive", "service.websocket", "service.request_body", "service.buffering")
def test_a_service_says_how_connections_and_bodies_are_handled(scene: Scene) -> None:
    scene.pods("fop/image", 1, start=False)
    says(
        scene,
        keepalive={"connections": 4, "idle_seconds": 30},
        websocket=False,
        request_body={"max_size": "1k"},
        buffering={"enabled": False, "header_size": "8k"},
    )
    scene.configure(scene.route())
    assert len({scene.get().said["connection"] for _ in range(4)}) == 1
    upgrade = ("--header", "Connection: Upgrade", "--header", "Upgrade: test")
    assert "upgrade" not in scene.get("/", *upgrade).said["headers"]
    assert scene.get("/", "--data-binary", "x" * 1024).said["length"] == 1024
    assert scene.get("/", "--data-binary", "x" * 1025).status == 413


@covers("service.intercept_errors")
def test_a_service_says_whether_its_errors_are_shown(scene: Scene) -> None:
    says(scene, intercept_errors=True)
    scene.configure(scene.route(error_pages=[{"statuses": [500], "body": "sorry"}]))
    assert scene.get("/status/500").body == "sorry"


@covers("service.backend_protocol", "service.backend_tls")
def test_a_service_says_that_it_speaks_tls(scene: Scene, tmp_path: Path) -> None:
    authority = Authority()
    inner, key = authority.issue("inner.example.org")
    (tmp_path / "inner.pem").write_text(inner + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "inner.pem")
    scene.backends.stop(scene.service_ip(), scene.port)
    scene.backends.start("image-tls", scene.service_ip(), scene.port, tls=context)
    scene.files["ca.pem"] = authority.certificate
    tls = {"verify": True, "ca": "ca.pem", "name": "inner.example.org"}
    says(scene, backend_protocol="https", backend_tls=tls)
    scene.configure(scene.route())
    assert scene.get().pod == "image-tls"
    says(scene, backend_protocol="https", backend_tls={**tls, "name": "other.example.org"})
    scene.configure(scene.route())
    assert scene.get().status == 502


LISTENER = {"name": "web", "balancer": "edge/balancer", "protocol": "http", "port": 80}
BOTH = [{"service": "fop/image", "port": 1}, {"service": "fop/agents", "port": 1}]


@pytest.mark.parametrize(
    ("services", "route", "wanted"),
    [
        ({"fop/image": {"timeouts": {"read_seconds": 1}}}, {"backends": BOTH}, "whose l7 differ in timeouts"),
        ({"fop/image": {"timeouts": {"read_seconds": 1}}}, {"backends": BOTH, "timeouts": {"read_seconds": 2}}, None),
        ({"fop/image": {"balance": {"method": "hash"}}}, {"backends": BOTH[:1]}, "l7.balance.key is missing"),
        ({"fop/image": {"backend_protocol": "grpc"}}, {"backends": BOTH[:1]}, "l7.backend_protocol needs http2"),
        ({"fop/image": {"timeouts": {"read_seconds": 1}}}, {"respond": {"status": 200}}, None),
    ],
)
def test_what_services_and_a_route_cannot_mean_is_refused_at_the_route(
    services: Mapping[str, Any], route: Mapping[str, Any], wanted: str | None
) -> None:
    faults = list(_l7_rules.inheriting_faults(LISTENER, {"name": "a", "listener": "web", **route}, services))
    assert [path[:1] for path, _, _ in faults] == ([("backends",)] if wanted else [])
    assert wanted is None or wanted in faults[0][1]


def test_routes_over_tcp_take_over_nothing_of_services() -> None:
    listener = {**LISTENER, "protocol": "tcp"}
    services = {"fop/image": {"backend_protocol": "https", "timeouts": {"read_seconds": 1}}}
    route = {"name": "a", "listener": "web", "backends": BOTH[:1]}
    assert list(_l7_rules.inheriting_faults(listener, route, services)) == []
    assert _l7_rules.inherited(listener, route, services) == {}
