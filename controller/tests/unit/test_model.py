# SPDX-License-Identifier: Apache-2.0
"""The model: what a change touches, and where pods are."""

from __future__ import annotations

from qnet_controller.model import objects as o
from qnet_controller.model.model import NOTHING, Model

ADDRESS, OTHER = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
SIP = bytes([10, 1, 0, 1])
POD = o.Pod("p", "a/s", "red", b"\2\0\0\0\0\1", "qnp", (ADDRESS,))
BASE: list[o.Change] = [
    o.Network("red", 100, (), ()), o.SecurityGroup("a", "t", 1), o.SecurityGroup("b", "t", 2),
    o.Service("s", "a", "red"), o.ServiceIP("main", "a/s", "red", SIP), POD,
]  # fmt: skip


def build() -> Model:
    model = Model()
    model.apply(BASE)
    return model


def test_the_same_again_touches_nothing() -> None:
    model = build()
    assert model.apply(BASE) == NOTHING
    model.port_seen(1, 5, "qnp", True)
    assert model.port_seen(1, 5, "qnp", True) == NOTHING
    assert model.switch_ports(1, [(5, "qnp", True)]) == NOTHING
    assert model.apply([o.Removed(o.Pod, "a/unknown")]) == NOTHING


def test_a_pod_touches_itself_its_addresses_and_its_service() -> None:
    model = build()
    changed = o.Pod("p", "a/s", "red", POD.mac, "qnp", (OTHER,))
    touched = model.apply([changed])
    assert {("pod", "a/p"), ("address", ("red", ADDRESS)), ("address", ("red", OTHER)), ("backends", "a/s")} <= touched
    assert ("red", ADDRESS) not in model.owner
    assert model.owner["red", OTHER] == changed


def test_an_export_touches_its_service_and_the_answers() -> None:
    model = build()
    for change in (o.Export("a/s", "b"), o.Export("a/s", "b", direct=True), o.Removed(o.Export, "a/s->b")):
        touched = model.apply([change])
        assert ("exports", "a/s") in touched
        assert ("source", 1) in touched
        assert ("address", ("red", ADDRESS)) not in touched


def test_expiry_touches_what_removal_would() -> None:
    model = build()
    model.apply([o.Export("a/s", "b", expires=100)])
    assert model.expired(0, 99) == NOTHING
    touched = model.expired(99, 100)
    assert touched == model.apply([o.Removed(o.Export, "a/s->b")])


def test_an_address_that_changes_hands_in_one_transaction_has_its_new_owner() -> None:
    heir = o.Pod("q", "a/s", "red", b"\2\0\0\0\0\2", "qnq", (ADDRESS,))
    orders: list[list[o.Change]] = [[o.Removed(o.Pod, "a/p"), heir], [heir, o.Removed(o.Pod, "a/p")]]
    for changes in orders:
        model = build()
        model.apply(changes)
        assert model.owner["red", ADDRESS] == heir


def test_the_latest_switch_to_report_a_port_has_the_pod() -> None:
    model = build()
    model.port_seen(1, 5, "qnp", True)
    touched = model.port_seen(2, 6, "qnp", True)
    assert ("pod", "a/p") in touched
    assert model.location(POD) == o.Location(2, 6, True)
    assert model.local_pods(1) == []
    model.port_seen(1, 5, "qnp", False)
    assert model.location(POD) == o.Location(2, 6, True)
    assert ("pod", "a/p") in model.port_gone(2, 6)
    assert model.location(POD) == o.Location(1, 5, False)
    model.port_gone(1, 5)
    assert model.location(POD) is None


def test_a_port_may_be_seen_before_its_pod_is_intended() -> None:
    model = Model()
    assert not any(what == "pod" for what, _ in model.port_seen(1, 5, "qnp", True))
    touched = model.apply(BASE)
    assert ("pod", "a/p") in touched
    assert model.location(POD) == o.Location(1, 5, True)


def test_a_port_number_may_get_another_name() -> None:
    model = build()
    model.port_seen(1, 5, "qnp", True)
    touched = model.port_seen(1, 5, "qnother", True)
    assert ("pod", "a/p") in touched
    assert model.location(POD) is None
    assert model.port_number(1, "qnother") == 5


def test_a_lost_switch_takes_its_pods_out_of_rotation_but_not_off_the_map() -> None:
    model = build()
    model.port_seen(1, 5, "qnp", True)
    assert model.in_rotation(POD)
    assert ("backends", "a/s") in model.switch_lost(1)
    assert model.switch_lost(1) == NOTHING
    assert not model.in_rotation(POD)
    assert model.location(POD) == o.Location(1, 5, True)
    assert ("backends", "a/s") in model.switch_ports(1, [(5, "qnp", True)])
    assert model.in_rotation(POD)


def test_a_pod_that_cannot_be_checked_is_balanced_over_as_if_no_check_were_declared() -> None:
    model = build()
    model.apply([o.Service("s", "a", "red", o.HealthCheck("icmp"))])
    model.port_seen(1, 5, "qnp", True)
    assert not model.in_rotation(POD), "it has not passed yet"
    only_ipv6 = o.Pod("p", "a/s", "red", POD.mac, "qnp", (bytes(15) + b"\1",))
    model.apply([only_ipv6])
    assert model.in_rotation(only_ipv6)


def test_ports_that_went_while_a_switch_was_away_are_gone() -> None:
    model = build()
    model.port_seen(1, 5, "qnp", True)
    model.switch_lost(1)
    assert ("pod", "a/p") in model.switch_ports(1, [])
    assert model.location(POD) is None


def test_the_first_service_ip_of_a_group_touches_its_pairs() -> None:
    model = Model()
    model.apply([change for change in BASE if not isinstance(change, o.ServiceIP)])
    assert not model.has_service_ip("a", "red")
    touched = model.apply([o.ServiceIP("main", "a/s", "red", SIP)])
    assert ("source", 1) in touched
    assert model.has_service_ip("a", "red")
    assert not model.has_service_ip("a", "blue")


def test_subnets_contain_their_own_family_only() -> None:
    block = o.Subnet(bytes([10, 1, 0, 0]), 16)
    assert bytes([10, 1, 255, 255]) in block
    assert bytes([10, 2, 0, 0]) not in block
    assert bytes(16) not in block
    assert "10.1.0.1" not in block
