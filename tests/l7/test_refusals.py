# SPDX-License-Identifier: Apache-2.0
"""Bad configuration is refused before it is live, with the place of the fault, and what runs runs on."""

from __future__ import annotations

from typing import Any

import pytest
from tests.l7.balancer import Refused
from tests.l7.conftest import Scene
from tests.l7.covers import covers

from ansible_collections.qiniu.qnet.plugins.module_utils import _l7_marks, _l7_rules, _l7_schema, _l7_shape, _l7_text


@covers("route.match", "route.path")
def test_what_only_nginx_can_find_is_said_with_its_place_and_the_old_runs_on(scene: Scene) -> None:
    scene.configure(scene.route())
    bad = scene.route("bad", path="/x", rewrite=[{"pattern": "^/(?<a>x)(?<a>y)", "to": "/"}])
    with pytest.raises(Refused, match=r"qnet_l7_routes\[1\]\.rewrite\[0\]: nginx refuses it: .*two named subpatterns"):
        scene.configure(scene.route(), bad)
    with pytest.raises(Refused, match=r"qnet_l7_routes\[0\]\.headers: nginx refuses it: unknown \"nothing\" variable"):
        scene.configure(scene.route(headers={"request_set": {"X-A": "$nothing"}}))
    assert scene.get().status == 200


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("l7-line", "a\nb"),
        ("l7-line", "100$"[:4] + " x"),
        ("l7-line", "$document_root"),
        ("l7-plain", "$host"),
        ("l7-host", "Upper.example.org"),
        ("l7-host", "a.example.org; }"),
        ("l7-path", "no-slash"),
        ("l7-path", "/a b"),
        ("l7-path", '/a"b'),
        ("l7-pattern", "("),
        ("l7-header", "X-A: b"),
        ("l7-word", "a b"),
        ("l7-size", "10x"),
        ("l7-client", "10.0.0.1/8"),
        ("l7-file", "a b"),
        ("l7-file", "/srv/../etc/shadow"),
        ("l7-directory", "/etc/qnet"),
        ("l7-directory", "relative"),
        ("l7-service", "one"),
        ("l7-snippet", "return 200"),
        ("l7-snippet", "} server { return 200;"),
        ("l7-snippet", 'return 200 "x;'),
        ("l7-snippet", "include /etc/passwd;"),
        ("l7-snippet", "if ($a) { proxy_pass http://10.0.0.1; }"),
        ("l7-snippet", "content_by_lua_block { os.execute('x') }"),
        ("l7-snippet", '"content_by_lua" "x";'),
        ("l7-snippet", "pro\\xy_pass http://10.0.0.1;"),
        ("l7-snippet", "alias /etc/;"),
        ("l7-snippet", "set $qnet_backend 10.0.0.1:80;"),
        ("l7-snippet", "if ($arg_to ~ (?<qnet_backend>.+)) { break; }"),
        ("l7-pattern", "^/(?<qnet_backend>.+)"),
        ("l7-location", "/(?<qnet_backend>.+)"),
    ],
)
def test_texts_that_nginx_would_misunderstand_are_refused(form: str, text: str) -> None:
    with pytest.raises(_l7_text.Refused):
        _l7_text.FORMATS[form](text)


BACKENDS: list[dict[str, Any]] = [{"service": "fop/image", "port": 80}]
HTTP = {"name": "web", "balancer": "edge/balancer", "protocol": "http", "port": 80}
ROUTE_FAULTS: dict[str, tuple[dict[str, Any], tuple[str | int, ...]]] = {
    "no action": ({}, ()),
    "two actions": ({"backends": BACKENDS, "redirect": {"to": "/"}}, ()),
    "regex that begins with /": ({"path": "x", "respond": {"status": 200}}, ("path",)),
    "path of the balancer": ({"path": "/.qnet/x", "respond": {"status": 200}}, ("path",)),
    "prefix of a regex": (
        {"path": "x", "match": "regex", "replace_prefix": "/", "backends": BACKENDS},
        ("replace_prefix",),
    ),
    "hash of nothing": ({"backends": BACKENDS, "balance": {"method": "hash"}}, ("balance", "key")),
    "sticky at the network": (
        {"backends": BACKENDS, "balance": {"method": "service_ip"}, "sticky": {"cookie": "a"}},
        ("sticky",),
    ),
    "naming without a way": ({"backends": BACKENDS, "naming": {"required": True}}, ("naming",)),
    "naming past a password": ({"backends": BACKENDS, "naming": {"header": "A"}, "satisfy": "any"}, ("naming",)),
    "only canaries": ({"backends": [{**BACKENDS[0], "when": {"header": "A"}}]}, ("backends",)),
    "weight 0 everywhere": ({"backends": [{**BACKENDS[0], "weight": 0}]}, ("backends",)),
    "grpc without http2": ({"backends": BACKENDS, "backend_protocol": "grpc"}, ("backend_protocol",)),
    "verify without ca": (
        {"backends": BACKENDS, "backend_protocol": "https", "backend_tls": {"verify": True}},
        ("backend_tls", "ca"),
    ),
    "tls with http": ({"backends": BACKENDS, "backend_tls": {"name": "a"}}, ("backend_tls",)),
    "allow and deny": ({"respond": {"status": 200}, "access": [{"allow": "all", "deny": "all"}]}, ("access", 0)),
    "error page without page": ({"respond": {"status": 200}, "error_pages": [{"statuses": [500]}]}, ("error_pages", 0)),
    "redirect 305": ({"redirect": {"to": "/", "status": 305}}, ("redirect", "status")),
    "udp session over http": ({"backends": BACKENDS, "session": {"udp_answers": 1}}, ("session",)),
}


@pytest.mark.parametrize("fault", ROUTE_FAULTS)
def test_routes_that_contradict_themselves_are_refused_with_the_place(fault: str) -> None:
    values, path = ROUTE_FAULTS[fault]
    route = {"name": "r", "listener": "web", **values}
    assert list(_l7_shape.faults(_l7_schema.ROUTE, route)) == []
    assert path in [found[0] for found in _l7_rules.route_faults(HTTP, route)]


def test_listeners_that_contradict_themselves_are_refused_with_the_place() -> None:
    def places(**values: object) -> list[object]:
        return [fault[0] for fault in _l7_rules.listener_faults({**HTTP, **values})]

    assert places() == []
    assert places(port=22) == [("port",)]
    assert places(protocol="https") == [("certificates",)]
    assert places(certificates=[{}]) == [("certificates",)]
    assert places(protocol="udp", port=4789, http2=True) == [("port",), ("http2",)]
    assert places(protocol="tcp", cache={"valid": [{"seconds": 1}]}) == [("cache",)]


def test_what_would_be_passed_over_in_silence_over_tcp_is_refused() -> None:
    tcp = {**HTTP, "protocol": "tcp", "port": 5432}
    route = {"name": "r", "listener": "web", "backends": BACKENDS}

    def places(**values: object) -> list[object]:
        return [fault[0] for fault in _l7_rules.route_faults(tcp, {**route, **values})]

    assert places(timeouts={"connect_seconds": 1}, retries={"tries": 2, "timeout_seconds": 3}) == []
    assert places(timeouts={"read_seconds": 1}) == [("timeouts", "read_seconds")]
    assert places(connection_limit={"most": 1, "status": 503}) == [("connection_limit", "status")]
    assert places(session={"udp_answers": 1}) == [("session", "udp_answers")]


def test_routes_that_share_connections_cannot_differ_in_who_may_connect() -> None:
    tcp = {**HTTP, "protocol": "tcp", "port": 5432}
    closed = [{"deny": "all"}]

    def places(first: dict[str, object], second: dict[str, object], **listener: object) -> list[object]:
        both = [
            {"name": name, "listener": "web", "hosts": [f"{name}.org"], "backends": BACKENDS, **values}
            for name, values in (("one", first), ("two", second))
        ]
        return [(position, fault[0]) for position, fault in _l7_rules.between_faults([{**tcp, **listener}], both)]

    assert places({}, {}) == places({"access": closed}, {"access": closed}) == []
    assert places({"access": closed}, {"access": closed}, access=closed) == []
    assert places({}, {"access": closed}) == [(1, ("access",))]
    assert places({"access": closed}, {}) == [(1, ("name",))]
    assert places({}, {"send_proxy_protocol": True}) == [(1, ("send_proxy_protocol",))]


def test_two_of_a_kind_are_refused() -> None:
    same = [{"name": name, "listener": "web", "path": "/a", "hosts": ["x.org"]} for name in ("one", "two")]
    assert [fault[0] for _, fault in _l7_rules.between_faults([HTTP], same)] == [("path",)]
    other = {**HTTP, "name": "other"}
    assert [fault[0] for _, fault in _l7_rules.between_faults([HTTP, other], [])] == [(1, "port")]


def test_services_that_are_not_exported_are_refused() -> None:
    def faults(route: dict[str, object], direct: bool, ports: list[str]) -> list[object]:
        exports = {("fop/image", "edge"): (direct, ports)}
        return [fault[0] for fault in _l7_rules.export_faults("edge/balancer", route, exports, udp=False)]

    by_ip: dict[str, object] = {"backends": BACKENDS}
    by_pods: dict[str, object] = {"backends": BACKENDS, "balance": {"method": "round_robin"}}
    assert faults({"backends": [{"service": "fop/video", "port": 80}]}, True, []) == [("backends", 0, "service")]
    assert faults(by_ip, False, []) == []
    assert faults(by_ip, False, ["tcp/81"]) == [("backends", 0, "port")]
    assert faults(by_pods, False, ["tcp/80"]) == [("backends", 0, "service")]
    assert faults(by_pods, True, ["tcp/80"]) == []


def test_unknown_options_are_refused_with_their_place() -> None:
    route = {"name": "r", "listener": "web", "timeouts": {"read": 3}, "backends": [{"service": "a/b", "port": 0}]}
    found = {_l7_shape.written(path) for path, _ in _l7_shape.faults(_l7_schema.ROUTE, route)}
    assert found == {"timeouts.read", "backends[0].port"}


def test_a_complaint_that_was_logged_is_explained_like_one_that_was_printed() -> None:
    text = "# from qnet_l7_routes[3].headers\nadd_header X-Bad $missing;\n"
    for begin in ("nginx: [emerg]", "2026/11/28 12:02:53 [emerg] 7#7:"):
        complaint = f'{begin} unknown "missing" variable'
        said = 'qnet_l7_routes[3].headers: nginx refuses it: unknown "missing" variable'
        assert _l7_marks.explain(text, complaint) == said
