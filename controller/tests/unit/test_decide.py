# SPDX-License-Identifier: Apache-2.0
"""Every row of the policy table in docs/design/architecture.md, at both ends of a connection."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qnet_controller.decide.decide import DIRECT, TUNNEL, Kind, Origin, Question, Verdict, backends, decide
from qnet_controller.model import objects as o
from qnet_controller.model.model import Model

NOW = 1000.0
A, B, C = 1, 2, 3
POD_A, POD_A2, POD_B, POD_C = (bytes([10, 0, 0, n]) for n in (1, 2, 3, 4))
SIP_A, SIP_B = bytes([10, 1, 0, 1]), bytes([10, 1, 0, 2])
TCP_80, UDP_53, PING = o.PortRule(6, 80), o.PortRule(17, 53), o.PortRule(1)


def pod(name: str, service: str, address: bytes, network: str = "red") -> o.Pod:
    return o.Pod(name, service, network, b"\2" + address + b"\0", f"qn{service}{name}"[:15], (address,))


def build(*more: o.Object) -> Model:
    """Groups a and b with one service each that has a Service IP; c has a service without one."""
    model = Model()
    model.apply(
        [
            o.Network("red", 100, (), ()), o.Network("blue", 200, (), ()),
            o.SecurityGroup("a", "t", A), o.SecurityGroup("b", "t", B), o.SecurityGroup("c", "t", C),
            o.Service("s", "a", "red"), o.Service("s", "b", "red"), o.Service("s", "c", "red"),
            o.ServiceIP("main", "a/s", "red", SIP_A), o.ServiceIP("main", "b/s", "red", SIP_B),
            pod("p", "a/s", POD_A), pod("q", "a/s", POD_A2), pod("p", "b/s", POD_B), pod("p", "c/s", POD_C),
            *more,
        ]
    )  # fmt: skip
    return model


def ask(
    model: Model, group: int, address: bytes, origin: Origin = Origin.POD, network: str = "red", now: float = NOW
) -> Verdict:
    return decide(model, Question(origin, network, group, address), now)


def test_a_group_reaches_its_own_pods_and_service_ips() -> None:
    model = build()
    for origin in Origin:
        assert ask(model, A, POD_A2, origin).kind is Kind.OPEN
        assert ask(model, C, POD_C, origin).kind is Kind.DIRECT
        assert not ask(model, A, POD_A2, origin).ports
    assert ask(model, A, SIP_A).kind is Kind.SERVICE


def test_without_an_export_nothing_passes() -> None:
    model = build()
    for origin in Origin:
        for address in (POD_B, POD_C, SIP_B):
            assert ask(model, A, address, origin).refused


def test_an_export_opens_the_service_ip_and_lets_answers_back() -> None:
    model = build(o.Export("b/s", "a"))
    verdict = ask(model, A, SIP_B)
    assert verdict == Verdict(Kind.SERVICE, "export b/s->a", grant=verdict.grant)
    assert ask(model, A, POD_B).kind is Kind.DROP
    for origin in Origin:
        assert ask(model, B, POD_A, origin).kind is Kind.REPLIES
        assert ask(model, B, SIP_A, origin).refused
    assert ask(model, C, SIP_B).refused


def test_the_receiving_host_lets_in_what_was_balanced() -> None:
    model = build(o.Export("b/s", "a"))
    assert ask(model, A, POD_B, Origin.TUNNEL).kind is Kind.SERVICE
    assert ask(model, A, SIP_B, Origin.TUNNEL).kind is Kind.DROP
    assert ask(model, C, POD_B, Origin.TUNNEL).kind is Kind.DROP


def test_an_export_of_a_service_without_service_ip_opens_nothing_unless_direct() -> None:
    for origin in Origin:
        assert ask(build(o.Export("c/s", "a")), A, POD_C, origin).kind is Kind.DROP
        assert ask(build(o.Export("c/s", "a", direct=True)), A, POD_C, origin).kind is Kind.ALLOW


def test_direct_opens_the_pods_too() -> None:
    model = build(o.Export("b/s", "a", direct=True))
    for origin in Origin:
        assert ask(model, A, POD_B, origin).kind is Kind.ALLOW
    assert ask(model, A, SIP_B).kind is Kind.SERVICE


@pytest.mark.parametrize("direct", [False, True])
def test_ports_open_no_more_than_they_name(direct: bool) -> None:
    ports = frozenset({TCP_80, UDP_53, PING})
    model = build(o.Export("b/s", "a", ports, direct=direct))
    kind = Kind.ALLOW if direct else Kind.SERVICE
    for verdict, wanted in (
        (ask(model, A, SIP_B), Kind.SERVICE), (ask(model, A, POD_B, Origin.TUNNEL), kind),
    ):  # fmt: skip
        assert verdict == Verdict(Kind.DROP, "export b/s->a", ports, wanted, verdict.grant)
        assert not verdict.refused
    assert (ask(model, A, POD_B).ports == ports) is direct


def granted(model: Model, group: int, address: bytes, origin: Origin = Origin.POD) -> str | None:
    grant = ask(model, group, address, origin).grant
    return grant.name if grant else None


def test_each_way_of_an_export_is_a_grant_of_its_own() -> None:
    model = build(o.Export("b/s", "a", direct=True), o.Export("c/s", "a", direct=True))
    names = [
        granted(model, A, SIP_B), granted(model, A, POD_B), granted(model, A, POD_B, Origin.TUNNEL),
        granted(model, A, POD_C), granted(model, A, POD_C, Origin.TUNNEL),
    ]  # fmt: skip
    assert None not in names
    assert len(set(names)) == len(names)
    for address in (POD_A2, SIP_A):
        assert granted(model, A, address) is None
    for change in (o.Export("b/s", "a", frozenset({TCP_80}), direct=True), o.Export("b/s", "a", frozenset({PING}))):
        model.apply([change])
        assert granted(model, A, SIP_B) == names[0]
        assert granted(model, A, POD_B, Origin.TUNNEL) == names[2]
    assert granted(model, A, POD_B) is None
    model.apply([o.Removed(o.ServiceIP, "b/s:main"), o.ServiceIP("main", "b/s", "red", bytes([10, 1, 0, 9]))])
    assert granted(model, A, bytes([10, 1, 0, 9])) not in (None, names[0])


def test_what_may_be_answered_is_what_may_be_opened() -> None:
    model = build(o.Export("b/s", "a", frozenset({TCP_80})), o.Export("c/s", "a"), o.Export("a/s", "b"))
    for origin in Origin:
        answers = ask(model, B, POD_A, origin).answers
        opens = {granted(model, A, SIP_B), granted(model, A, POD_B, Origin.TUNNEL)}
        assert {grant.name for grant in answers} == opens
        assert {grant.export.ports for grant in answers} == {frozenset({TCP_80})}
        assert ask(model, C, POD_A, origin).refused, "nothing opens a connection to c"
        assert not ask(model, A, POD_A2, origin).answers
    model.apply([o.Export("b/s", "a", direct=True)])
    assert granted(model, A, POD_B) in {grant.name for grant in ask(model, B, POD_A).answers}
    model.apply([o.Removed(o.ServiceIP, "b/s:main")])
    assert {grant.way for grant in ask(model, B, POD_A).answers} == {DIRECT, TUNNEL}


def test_with_ports_one_way_and_answers_the_other_way() -> None:
    model = build(o.Export("b/s", "a", frozenset({TCP_80}), direct=True), o.Export("a/s", "b"))
    verdict = ask(model, A, POD_B)
    assert (verdict.kind, verdict.ports_kind) == (Kind.REPLIES, Kind.ALLOW)


def test_an_expired_export_counts_as_removed() -> None:
    model = build(o.Export("b/s", "a", expires=1001, direct=True))
    assert ask(model, A, SIP_B, now=1000.9).kind is Kind.SERVICE
    assert ask(model, A, SIP_B, now=1001).refused
    assert ask(model, A, POD_B, now=1001).refused
    assert ask(model, B, POD_A, now=1001).refused
    assert model.next_expiry(1000.9) == 1001
    assert model.next_expiry(1001) is None


def test_unknown_groups_networks_and_addresses_are_refused() -> None:
    model = build(pod("r", "a/s", bytes([10, 0, 0, 9]), "blue"))
    assert ask(model, 99, POD_A).refused
    assert ask(model, A, bytes([10, 9, 9, 9])).refused
    assert ask(model, A, POD_A, network="green").refused
    assert ask(model, A, POD_A, network="blue").refused
    assert ask(model, A, bytes([10, 0, 0, 9])).refused


def test_backends_are_the_pods_in_rotation() -> None:
    model = build()
    target = model.service_ips["a/s:main"]
    assert backends(model, target) == []
    for number, name in enumerate(("p", "q"), 1):
        model.port_seen(7, number, model.pods[f"a/{name}"].port_name, live=True)
    assert [p.key for p in backends(model, target)] == ["a/p", "a/q"]
    model.port_seen(7, 1, model.pods["a/p"].port_name, live=False)
    assert [p.key for p in backends(model, target)] == ["a/q"]
    model.switch_lost(7)
    assert [p.key for p in backends(model, target)] == ["a/p", "a/q"], "all are down: those that are there are kept"
    assert model.backends("a/s").kept
    model.apply([replace(model.pods["a/p"], state="draining"), replace(model.pods["a/q"], weight=0)])
    assert backends(model, target) == [], "what intent does not want is not kept"
    model.apply([replace(model.pods["a/p"], state="active")])
    model.switch_ports(7, [(1, model.pods["a/p"].port_name, True)])
    assert [p.key for p in backends(model, target)] == ["a/p"]
