# SPDX-License-Identifier: Apache-2.0
"""Egress rules: what together they open, what none of them opens, and which addresses are treated alike."""

from __future__ import annotations

import ipaddress

import pytest

from qnet_controller.decide import outside
from qnet_controller.decide.decide import Kind, Origin, Question, Verdict, decide
from qnet_controller.model import objects as o
from qnet_controller.model.model import Model
from qnet_controller.ovsdb.rows import MalformedRow, egress_rule

VTEP = "203.0.113.77"


def address(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def subnet(text: str) -> o.Subnet:
    block = ipaddress.ip_network(text)
    return o.Subnet(block.network_address.packed, block.prefixlen)


def build(*rules: str) -> Model:
    """Group a has these rules, group b none; a tunnel ends in the middle of 203.0.113.0/24."""
    model = Model()
    model.apply(
        [
            o.Network("red", 100, (subnet("10.1.0.0/24"), subnet("fd00::/64")), (subnet("10.2.0.0/24"),)),
            o.Network("blue", 200, (subnet("10.1.0.0/16"),), ()),
            o.Guest("blue", "red", 300, (address("10.1.0.250"),)),
            o.Host("h1", (address(VTEP),), 1),
            o.SecurityGroup("a", "t", 1, frozenset(map(egress_rule, rules))),
            o.SecurityGroup("b", "t", 2),
        ]
    )
    return model


def ask(model: Model, to: str, group: int = 1, origin: Origin = Origin.POD, network: str = "red") -> Verdict:
    return decide(model, Question(origin, network, group, address(to)), 0)


def test_rules_open_together_what_any_of_them_opens() -> None:
    model = build("203.0.113.0/24 tcp/443", "203.0.113.128/25 udp/53", "203.0.113.200/32", "2001:db8::/32 icmp")
    assert ask(model, "203.0.113.5").ports == {o.PortRule(6, 443)}
    assert ask(model, "203.0.113.130").ports == {o.PortRule(6, 443), o.PortRule(17, 53)}
    assert ask(model, "203.0.113.130").ports_kind is Kind.OUTSIDE
    assert ask(model, "203.0.113.200").kind is Kind.OUTSIDE
    assert ask(model, "2001:db8::1").ports == {o.PortRule(1)}
    for to in ("203.0.112.255", "203.0.114.0", "2001:db9::"):
        assert ask(model, to).refused


def test_two_rules_for_the_same_port_open_no_other() -> None:
    model = build("203.0.113.0/24 tcp/443", "203.0.0.0/16 tcp/443")
    assert ask(model, "203.0.113.5").kind is Kind.DROP
    assert ask(model, "203.0.113.5").ports == {o.PortRule(6, 443)}


def test_only_pods_of_the_group_in_a_network_get_out() -> None:
    model = build("0.0.0.0/0")
    assert ask(model, "198.51.100.1").kind is Kind.OUTSIDE
    assert ask(model, "198.51.100.1", network="blue").kind is Kind.OUTSIDE
    assert ask(model, "198.51.100.1", group=2).refused
    assert ask(model, "198.51.100.1", group=9).refused
    assert ask(model, "198.51.100.1", origin=Origin.TUNNEL).refused
    for space in ("blue>red", "blue<red"):
        assert ask(model, "198.51.100.1", network=space).refused


@pytest.mark.parametrize(
    "to",
    [
        VTEP, "10.1.0.9", "10.2.0.9", "10.1.77.1", "10.1.0.250", "fd00::9", "127.0.0.1", "169.254.169.254", "0.0.0.1",
        "224.0.0.5", "255.255.255.255", "198.19.0.7", "fd71:6e65:7400::7", "fe80::1", "ff02::1", "::1", "fd00:ec2::254",
        "::ffff:198.51.100.1",
    ],
)  # fmt: skip
def test_no_rule_opens_the_overlay_the_underlay_or_the_link(to: str) -> None:
    model = build("0.0.0.0/0", "::/0", f"{to}/{128 if ':' in to else 32}")
    assert ask(model, to).refused
    assert outside.refused(model, address(to))


def test_what_becomes_part_of_the_overlay_is_open_no_more() -> None:
    model = build("0.0.0.0/0")
    assert not ask(model, "172.16.0.1").refused
    touched = model.apply([o.Network("green", 300, (subnet("172.16.0.0/24"),), ())])
    assert ("refused", "") in touched
    assert ask(model, "172.16.0.1").refused


def test_a_change_of_rules_alone_touches_nothing_else() -> None:
    model = build()
    touched = model.apply([o.SecurityGroup("a", "t", 1, frozenset({egress_rule("203.0.113.0/24")}))])
    assert touched == {("egress", "a")}


def test_a_pod_has_an_address_of_its_own_on_the_link() -> None:
    assert outside.link_address(258, address("10.1.0.2")) == address("198.19.1.2")
    assert outside.link_address(258, address("fd00::2")) == address("fd71:6e65:7400::102")
    assert outside.on_link(address("198.19.1.2"))
    assert not outside.on_link(address("10.1.0.2"))


@pytest.mark.parametrize("text", ["203.0.113.0", "203.0.113.1/24", "203.0.113.0/24 tcp", "203.0.113.0/24 icmp/1", ""])
def test_a_malformed_rule_is_said(text: str) -> None:
    if text == "203.0.113.0":  # one address is a block of one
        assert egress_rule(text).to.prefix == 32
        return
    with pytest.raises(MalformedRow):
        egress_rule(text)
