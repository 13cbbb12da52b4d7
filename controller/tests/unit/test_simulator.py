# SPDX-License-Identifier: Apache-2.0
"""The simulated switch itself: packets, tables, timeouts, conntrack. Open vSwitch is its model (test_trace.py)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnet_controller.pipeline import fields as f
from qnet_controller.pipeline import messages as m
from qnet_controller.pipeline.tables import Table
from simulator import packets as p
from simulator.check import Refused
from simulator.conntrack import Conntrack, Datapath
from simulator.fabric import Clock
from simulator.switch import Asked, Emission, Outcome, Switch

ADDRESS = st.integers(0, 2**32 - 1)
PORT = st.integers(0, 2**16 - 1)
A, B, V = 0x0A000001, 0x0A000002, 0x0A010001


@given(ADDRESS, PORT, ADDRESS, PORT, st.integers(0, 63), st.binary(max_size=30))
def test_packets_survive_the_wire(source: int, sport: int, target: int, dport: int, flags: int, payload: bytes) -> None:
    for packet in (
        p.tcp(source, sport, target, dport, flags, payload),
        p.udp(source, sport, target, dport, payload),
        p.echo(source, target, sport),
        p.arp_request(source, target, target),
    ):
        data = packet.encode()
        assert p.decode(data) == packet
        if packet.eth_type == p.ETH_IPV4:
            assert p.checksum(data[14:34]) == 0
        if packet.ip_proto == p.ICMP:
            assert p.checksum(data[34:]) == 0


def test_an_icmp_error_quotes_the_packet() -> None:
    error = p.decode(p.unreachable(p.udp(A, 1, B, 53)).encode())
    assert error.inner is not None
    assert (error.inner.source, error.inner.src_port, error.inner.dst_port) == (A, 1, 53)


def make() -> tuple[Switch, Clock]:
    clock = Clock()
    switch = Switch(1, "netdev", clock)
    switch.ports = {1: "one", 2: "two", 3: "three"}
    return switch, clock


def add(
    switch: Switch, priority: int, matching: m.Match, *actions: m.Action, table: Table = Table.ADMISSION, **more: int
) -> m.Flow:
    item = m.Flow(table, priority, matching, actions, 7, **more)  # type: ignore[arg-type]
    switch.execute([m.AddFlow(item)])
    return item


def send(switch: Switch, packet: p.Packet, port: int = 1) -> list[Outcome]:
    return switch.receive(packet, port)[0]


def ports(outcomes: list[Outcome]) -> list[int]:
    return [item.port for item in outcomes if isinstance(item, Emission)]


def test_the_highest_priority_wins_and_a_miss_drops() -> None:
    switch, _ = make()
    add(switch, 1, m.match((f.ETH_TYPE, 0x800)), m.Output(2))
    add(switch, 5, m.match((f.ETH_TYPE, 0x800), (f.IPV4_DST, B & ~0xFF, 0xFFFFFF00)), m.Output(3))
    assert ports(send(switch, p.udp(A, 1, B, 2))) == [3]
    assert ports(send(switch, p.udp(A, 1, V, 2))) == [2]
    assert ports(send(switch, p.arp_request(1, A, B))) == []


def test_output_to_the_input_port_needs_in_port() -> None:
    switch, _ = make()
    add(switch, 1, m.match(), m.Output(1), m.Output(m.PORT_IN_PORT), m.Output(9))
    assert ports(send(switch, p.udp(A, 1, B, 2))) == [1]


def test_registers_are_written_in_part_and_moved() -> None:
    switch, _ = make()
    add(switch, 1, m.match(), m.Set(f.KIND, 3), m.Set(f.ORIGIN, 1), m.Set(f.SOURCE_ZONE, 3), m.Goto(Table.PLAN))
    move = m.Move(f.SOURCE_ZONE, f.TARGET_ZONE)
    add(switch, 1, m.match((f.KIND, 3), (f.ORIGIN, 1)), move, m.OutputTo(f.TARGET_ZONE), table=Table.PLAN)
    assert ports(send(switch, p.udp(A, 1, B, 2))) == [3]


def test_a_packet_in_has_the_packet_and_its_fields() -> None:
    switch, _ = make()
    add(switch, 1, m.match(), m.Set(f.VNI, 77), m.ToController())
    packet = p.udp(A, 1, B, 2)
    (asked,) = send(switch, packet, 2)
    assert isinstance(asked, Asked)
    assert asked.message == m.PacketIn(0, packet.encode(), {"in_port": 2, "reg0": 77})


def test_flows_age_and_say_so() -> None:
    switch, clock = make()
    idle = add(switch, 1, m.match(), m.Output(2), idle_timeout=10, notify=True)
    hard = add(switch, 2, m.match((f.IN_PORT, 3)), idle_timeout=10, hard_timeout=12, notify=True)
    add(switch, 3, m.match((f.IN_PORT, 2)), idle_timeout=3)
    clock.now += 8
    send(switch, p.udp(A, 1, B, 2))
    send(switch, p.udp(A, 1, B, 2), 3)
    switch.age()
    assert switch.take_removed() == []
    assert set(switch.flows) == {idle.key, hard.key}
    clock.now += 5
    switch.age()
    assert switch.take_removed() == [m.FlowRemoved(hard.key, 7, m.RemovalReason.HARD_TIMEOUT)]
    clock.now += 6
    switch.age()
    assert switch.take_removed() == [m.FlowRemoved(idle.key, 7, m.RemovalReason.IDLE_TIMEOUT)]


def test_deleting_says_so_and_replacing_does_not() -> None:
    switch, _ = make()
    item = add(switch, 1, m.match(), notify=True)
    add(switch, 1, m.match(), m.Output(2), notify=True)
    assert switch.take_removed() == []
    switch.execute([m.DeleteFlow(item.key), m.DeleteFlow(item.key)])
    assert [notice.reason for notice in switch.take_removed()] == [m.RemovalReason.DELETE]


def test_a_group_takes_its_flows_along() -> None:
    switch, _ = make()
    switch.execute([m.PutGroup(m.Group(5, (m.Bucket(1, 1, (m.Output(2),)),)), exists=False)])
    item = add(switch, 1, m.match(), m.UseGroup(5), notify=True)
    assert ports(send(switch, p.udp(A, 1, B, 2))) == [2]
    switch.execute([m.DeleteGroup(5)])
    assert switch.take_removed() == [m.FlowRemoved(item.key, 7, m.RemovalReason.GROUP_DELETE)]
    for command in (m.AddFlow(item), m.PutGroup(m.Group(5, ()), exists=True)):
        with pytest.raises(Refused):
            switch.execute([command])
    switch.execute([m.PutGroup(m.Group(5, ()), exists=False)])
    with pytest.raises(Refused, match="EXISTS"):
        switch.execute([m.PutGroup(m.Group(5, ()), exists=False)])


def test_a_group_spreads_by_weight_and_keeps_a_connection_together() -> None:
    switch, _ = make()
    buckets = (m.Bucket(1, 300, (m.Output(2),)), m.Bucket(2, 100, (m.Output(3),)), m.Bucket(3, 0, (m.Output(1),)))
    switch.execute([m.PutGroup(m.Group(5, buckets), exists=False)])
    add(switch, 1, m.match(), m.UseGroup(5))
    chosen = [ports(send(switch, p.udp(A, sport, B, 2))) for sport in range(400)]
    assert 250 < chosen.count([2]) < 350
    assert chosen.count([2]) + chosen.count([3]) == 400
    assert chosen == [ports(send(switch, p.udp(A, sport, B, 2))) for sport in range(400)]


def test_a_meter_lets_its_burst_and_its_rate_through() -> None:
    switch, clock = make()
    switch.execute([m.AddMeter(m.Meter(4, 10, 20))])
    add(switch, 1, m.match(), m.UseMeter(4), m.Output(2))
    assert sum(bool(send(switch, p.udp(A, 1, B, 2))) for _ in range(50)) == 20
    clock.now += 1
    assert sum(bool(send(switch, p.udp(A, 1, B, 2))) for _ in range(50)) == 10


# -- conntrack -------------------------------------------------------------------------------------------------

NEW, EST, REL, RPL, INV, TRK = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
LOOKUP = m.Nat("lookup")


def look(
    ct: Conntrack, packet: p.Packet, zone: int = 1, commit: bool = False, nat: m.Nat | None = None, now: float = 0
) -> int:
    return ct.track(packet, zone, commit, nat, now).state


@pytest.fixture(params=["netdev", "system"])
def ct(request: pytest.FixtureRequest) -> Conntrack:
    kind: Datapath = request.param
    return Conntrack(kind)


def test_a_connection_is_new_until_it_is_committed_and_established_once_answered(ct: Conntrack) -> None:
    syn, back, data = p.tcp(A, 1, B, 80, p.SYN), p.tcp(B, 80, A, 1, p.SYN | p.ACK), p.tcp(A, 1, B, 80, p.ACK)
    assert look(ct, syn) == look(ct, syn) == look(ct, data) == TRK | NEW
    assert look(ct, back) == TRK | INV
    assert look(ct, syn, commit=True) == TRK | NEW
    assert look(ct, back, zone=2) == TRK | INV
    assert look(ct, back) == TRK | EST | RPL
    assert look(ct, data) == TRK | EST
    ct.flush(2)
    assert look(ct, data) == TRK | EST
    ct.flush(1)
    assert look(ct, data) == TRK | NEW


def test_icmp_counts_by_its_identifier(ct: Conntrack) -> None:
    assert look(ct, p.echo(A, B, 5), commit=True) == TRK | NEW
    assert look(ct, p.echo(B, A, 6, p.ECHO_REPLY)) == TRK | INV
    assert look(ct, p.echo(B, A, 5)) == TRK | NEW
    assert look(ct, p.echo(B, A, 5, p.ECHO_REPLY)) == TRK | EST | RPL


def test_errors_about_a_connection_are_related(ct: Conntrack) -> None:
    packet = p.udp(A, 1, B, 9)
    assert look(ct, p.unreachable(packet)) == TRK | INV
    look(ct, packet, commit=True)
    assert look(ct, p.unreachable(packet)) == TRK | REL | RPL


def test_destination_nat_is_undone_in_answers(ct: Conntrack) -> None:
    packet = p.udp(A, 1, V, 53)
    look(ct, packet, commit=True, nat=m.Nat("destination", B.to_bytes(4, "big")))
    assert (packet.target, packet.src_port) == (B, 1)
    answer = p.udp(B, 53, A, 1)
    result = ct.track(answer, 1, False, LOOKUP, 0)
    assert result.state & (TRK | EST | RPL) == TRK | EST | RPL
    assert result.original is not None
    assert (answer.source, result.original.target, result.original.dport) == (V, V, 53)
    later = p.udp(A, 1, V, 53)
    look(ct, later, nat=LOOKUP)
    assert later.target == B


def test_a_connection_keeps_its_mark_until_it_is_committed_again(ct: Conntrack) -> None:
    packet, answer = p.udp(A, 1, B, 53), p.udp(B, 53, A, 1)
    assert ct.track(packet, 1, True, None, 0, 7).mark == 7
    assert ct.track(packet, 1, True, None, 0).mark == 7
    assert ct.track(answer, 1, False, None, 0, 9).mark == 7
    assert ct.track(p.unreachable(packet), 1, False, None, 0).mark == 7
    assert ct.track(packet, 2, False, None, 0).mark == 0
    assert ct.track(packet, 1, True, None, 0, 8).mark == 8
    assert ct.track(answer, 1, False, None, 0).mark == 8


def test_the_source_port_moves_when_the_tuple_is_taken(ct: Conntrack) -> None:
    look(ct, p.tcp(A, 1000, B, 80, p.SYN), commit=True)
    packet = p.tcp(A, 1000, V, 80, p.SYN)
    look(ct, packet, commit=True, nat=m.Nat("destination", B.to_bytes(4, "big")))
    assert packet.target == B
    assert packet.src_port != 1000
    answer = p.tcp(B, 80, A, packet.src_port, p.SYN | p.ACK)
    look(ct, answer, nat=LOOKUP)
    assert (answer.source, answer.dst_port) == (V, 1000)
    plain = p.tcp(B, 80, A, 1000, p.SYN | p.ACK)
    look(ct, plain, nat=LOOKUP)
    assert (plain.source, plain.dst_port) == (B, 1000)


def test_connections_are_forgotten_in_time(ct: Conntrack) -> None:
    look(ct, p.udp(A, 1, B, 9), commit=True)
    assert look(ct, p.udp(B, 9, A, 1), now=29) == TRK | EST | RPL
    assert look(ct, p.udp(B, 9, A, 1), now=58) == TRK | EST | RPL
    assert look(ct, p.udp(B, 9, A, 1), now=89) == TRK | NEW


def test_a_port_can_be_used_again_after_a_connection_was_closed(ct: Conntrack) -> None:
    look(ct, p.tcp(A, 1, B, 80, p.SYN), commit=True)
    look(ct, p.tcp(B, 80, A, 1, p.SYN | p.ACK))
    look(ct, p.tcp(A, 1, B, 80, p.FIN | p.ACK))
    look(ct, p.tcp(B, 80, A, 1, p.FIN | p.ACK))
    assert look(ct, p.tcp(A, 1, B, 80, p.SYN)) == TRK | NEW


def test_the_datapaths_differ_where_they_do() -> None:
    kernel, userspace = Conntrack("system"), Conntrack("netdev")
    for ct in (kernel, userspace):
        look(ct, p.udp(A, 1, V, 53), commit=True, nat=m.Nat("destination", B.to_bytes(4, "big")))
    again = p.udp(A, 1, V, 53)
    assert look(kernel, again, nat=LOOKUP) == TRK | NEW
    assert again.target == V
    assert look(userspace, again, nat=LOOKUP) & TRK
    assert again.target == B
    with pytest.raises(Refused, match="abort"):
        look(userspace, p.udp(A, 2, B, 53), commit=True, nat=m.Nat("source", A.to_bytes(4, "big")))
