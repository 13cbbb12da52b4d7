# SPDX-License-Identifier: GPL-3.0-or-later
"""What a change of listeners, routes and services would do to requests."""

from __future__ import annotations

import typing as t

from ansible_collections.qiniu.qnet.plugins.module_utils import _l7_what_if, _model, _plan, _tenant

NETWORK = {"name": "prod", "vni": 100, "pod_subnets": ["10.10.0.0/24"], "service_subnets": ["10.96.0.0/24"]}
WEB = {"name": "web", "balancer": "edge/balancer", "protocol": "http", "port": 80}
FILES = "web (http port 80 of edge/balancer)"


def intent(listeners: list[dict[str, t.Any]], settings: list[dict[str, t.Any]], l7: dict[str, t.Any]) -> _plan.Plan:
    """The plan from nothing to these."""
    services = [
        {"name": name, "network": "prod", "l7": l7, "service_ips": [{"name": "main"}]} for name in ("image", "next")
    ]
    group = {"name": "edge", "services": [*services, {"name": "balancer", "network": "prod"}]}
    tenant = {"name": "edge", "security_groups": [group]}
    routes = [{"name": "files", "listener": "web", "settings": options} for options in settings]
    return _tenant.plan_tenants(_model.State(), [NETWORK], [tenant], None, True, listeners, routes)


def between(have: _plan.Plan, want: _plan.Plan) -> dict[str, t.Any]:
    plan = _plan.Plan(_plan.difference(have.after, want.after), want.after)
    return _l7_what_if.requests(plan)


def to(*services: str, **weights: int) -> dict[str, t.Any]:
    backends = [{"service": f"edge/{name}", "port": 8080} for name in services]
    backends += [{"service": f"edge/{name}", "port": 8080, "weight": weight} for name, weight in weights.items()]
    return {"path": "/files/", "backends": backends}


def way(target: str, which: str = "for any host prefix /files/", listener: str = FILES) -> dict[str, str]:
    return {"listener": listener, "requests": which, "to": target}


def test_a_new_route_and_its_end() -> None:
    without, with_route = intent([WEB], [], {}), intent([WEB], [to("image")], {})
    one = [way("edge/image port 8080")]
    assert between(without, with_route) == {"gained": one, "lost": [], "reloaded": ["edge/balancer"]}
    assert between(with_route, without) == {"gained": [], "lost": one, "reloaded": ["edge/balancer"]}


def test_a_canary_says_its_shares() -> None:
    found = between(intent([WEB], [to("image")], {}), intent([WEB], [to(image=95, next=5)], {}))
    assert found["lost"] == [way("edge/image port 8080")]
    assert found["gained"] == [way("edge/image port 8080 (95 %)"), way("edge/next port 8080 (5 %)")]


def test_a_listener_that_moves_takes_its_routes_along() -> None:
    found = between(intent([WEB], [to("image")], {}), intent([{**WEB, "port": 8080}], [to("image")], {}))
    assert found["lost"] == [way("edge/image port 8080")]
    assert found["gained"] == [way("edge/image port 8080", listener="web (http port 8080 of edge/balancer)")]


def test_what_only_changes_how_is_said_as_a_reload() -> None:
    slow = {"timeouts": {"read_seconds": 600}}
    of_service = between(intent([WEB], [to("image")], {}), intent([WEB], [to("image")], slow))
    of_route = between(intent([WEB], [to("image")], {}), intent([WEB], [{**to("image"), **slow}], {}))
    assert of_service == of_route == {"gained": [], "lost": [], "reloaded": ["edge/balancer"]}
    unasked = between(intent([WEB], [], {}), intent([WEB], [], slow))
    assert unasked == {"gained": [], "lost": [], "reloaded": []}


def test_answers_of_nginx_itself_and_the_text() -> None:
    closed = {**to("image"), "maintenance": {"enabled": True}, "hosts": ["a.example", "b.example"]}
    found = between(intent([WEB], [to("image")], {}), intent([WEB], [closed], {}))
    assert _l7_what_if.text(found) == [
        f"- requests to {FILES} for any host prefix /files/: edge/image port 8080",
        f"+ requests to {FILES} for a.example, b.example prefix /files/: the maintenance page",
        "nginx is reloaded, open connections stay: edge/balancer",
    ]
