# SPDX-License-Identifier: Apache-2.0
"""Matches, cookies, and what the switch would refuse."""

from __future__ import annotations

import itertools

import pytest

from qnet_controller.pipeline import fields as f
from qnet_controller.pipeline import messages as m
from qnet_controller.pipeline.packet import ip_addresses
from qnet_controller.pipeline.tables import Table
from simulator import packets as p
from simulator.check import Refused, check_flow
from simulator.example import example
from simulator.refusals import REFUSALS


def test_parts_of_a_register_become_one_term() -> None:
    assert m.match((f.KIND, 3), (f.ORIGIN, 1), (f.VNI, 100)) == (
        ("reg0", 100, 0xFFFFFF),
        ("reg2", 0x103, 0x1FF),
    )
    assert m.match((f.ETH_TYPE, 0x800), (f.IN_PORT, 2)) == m.match((f.IN_PORT, 2), (f.ETH_TYPE, 0x800))


@pytest.mark.parametrize(
    "terms",
    [
        [(f.KIND, 256)],
        [(f.IPV4_DST, 0x0A000001, 0xFFFFFF00)],
        [(f.KIND, 1), (f.KIND, 1)],
        [(f.IN_PORT, 1), (f.IN_PORT, 1)],
        [(f.IN_PORT, 1 << 32)],
    ],
)
def test_impossible_matches_are_refused(terms: list[tuple[f.Field | f.Bits, int]]) -> None:
    with pytest.raises(ValueError, match=r"does not fit|twice"):
        m.match(*terms)


def test_registers_do_not_overlap() -> None:
    parts = (f.VNI, f.SOURCE_GROUP, f.KIND, f.ORIGIN, f.HAIRPIN, f.SOURCE_ZONE, f.TARGET_ZONE, f.GRANT)
    for one, other in itertools.combinations(parts, 2):
        assert one.field != other.field or not one.mask & other.mask


def test_a_cookie_says_what_a_flow_is_and_changes_with_its_content() -> None:
    def make(actions: m.Actions = (), *, owner: str = "pod a/p", idle: int = 0) -> m.Flow:
        return m.flow(Table.PLAN, 1, m.match(), actions, m.Feature.POD, owner, idle=idle)

    cookie = make().cookie
    assert cookie >> 56 == m.COOKIE_MAGIC
    assert cookie >> 48 & 0xFF == m.Feature.POD
    assert cookie & 0xFFFFFFFF == m.object_hash("pod a/p")
    assert len({make().cookie, make((m.Output(1),)).cookie, make((m.Output(2),)).cookie, make(idle=5).cookie}) == 4
    assert make(owner="pod a/q").cookie & 0xFFFFFFFF != cookie & 0xFFFFFFFF
    assert make().cookie == cookie


def test_flows_with_the_same_key_have_the_same_place() -> None:
    one = m.flow(Table.PLAN, 1, m.match(), (), m.Feature.PLAN, "x")
    other = m.flow(Table.PLAN, 1, m.match(), (m.Output(1),), m.Feature.POD, "y")
    assert one.key == other.key


@pytest.mark.parametrize("data", [b"", bytes(13), bytes(33), bytes(60)])
def test_what_is_not_ip_has_no_addresses(data: bytes) -> None:
    assert ip_addresses(data) is None


def test_addresses_are_read_from_a_frame() -> None:
    packet = p.tcp(0x0A000001, 1, 0x0A000002, 80, p.SYN)
    data = packet.encode()
    assert ip_addresses(data) == (bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]))
    assert ip_addresses(data[:33]) is None
    assert ip_addresses(p.arp_request(1, 2, 3).encode()) is None
    wide = p.udp(0xFD00 << 112 | 1, 1, 0xFD00 << 112 | 2, 53).encode()
    assert ip_addresses(wide) == (bytes([0xFD, *bytes(14), 1]), bytes([0xFD, *bytes(14), 2]))
    assert ip_addresses(wide[:53]) is None


@pytest.mark.parametrize("case", REFUSALS)
def test_the_simulated_switch_refuses_what_open_vswitch_refuses(case: str) -> None:
    flow, error = REFUSALS[case]
    with pytest.raises(Refused, match=error):
        check_flow(flow, frozenset(), frozenset())


@pytest.mark.parametrize(
    "actions",
    [(m.Goto(Table.PORTS), m.Output(1)), (m.Set(f.KIND, 256),), (m.Move(f.VNI, f.KIND),), (m.Ct(1 << 16),)],
)
def test_actions_that_cannot_be_said_are_refused(actions: m.Actions) -> None:
    with pytest.raises(Refused):
        check_flow(m.Flow(Table.PLAN, 1, m.match((f.ETH_TYPE, 0x800)), actions, 0), frozenset(), frozenset())


def test_every_flow_of_the_example_names_its_object() -> None:
    owners = {"frame", "network prod"} | {
        f"{kind} {key}"
        for kind, keys in (
            ("pod", ("fop/entry-1", "fop/image-1", "fop/image-2", "alice/resize-1", "bob/crop-1")),
            ("service_ip", ("fop/image:main", "alice/resize:main")),
            ("export", ("alice/resize->fop", "fop/image->bob")),
            ("group", ("fop",)),
            ("vtep", ("01020304",)),
        )
        for key in keys
    }
    known = {m.object_hash(owner) for owner in owners}
    for node in example().nodes.values():
        for flow in node.switch.flows.values():
            assert flow.cookie >> 56 == m.COOKIE_MAGIC
            assert flow.cookie & 0xFFFFFFFF in known, flow
