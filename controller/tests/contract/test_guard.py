# SPDX-License-Identifier: Apache-2.0
"""What passes the guard can be parsed: no bytes make a parser raise anything but `Violation`, or hang."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.peers import HELLO, features, message
from qnet_controller.openflow import codec, guard, oxm, reading
from qnet_controller.openflow.guard import Multipart, Type, Violation
from qnet_controller.openflow.wire import group_description
from qnet_controller.pipeline.fields import ARP_OP, ETH_TYPE, IN_PORT, IPV4_DST, ORIGIN, VNI
from qnet_controller.pipeline.messages import Bucket, Group, Meter, Output, Port, Tampered, match
from qnet_controller.pipeline.tables import Table

MATCH = oxm.encode_match(match((IN_PORT, 3), (ETH_TYPE, 0x806), (ARP_OP, 1), (VNI, 100), (ORIGIN, 1)))
XREG = struct.pack("!HHIQQ", 1, 24, 0x8001_0110, 0x64_0000_0001, 0xFFFFFF_0000FFFF)
PORT = struct.pack("!IH2x6s2x16sII", 5, 72, b"\x02\0\0\0\0\5", b"veth5", 0, 4) + struct.pack(
    "!HH4x6I", 0, 32, *range(6)
)
STATISTICS = struct.pack("!HH4x", 0, 4)
INSTRUCTIONS = struct.pack("!HH4xHHIH6x", 4, 24, 0, 16, 1, 0) + struct.pack("!HHB3x", 1, 8, 4)


def multipart(kind: Multipart, *entries: bytes) -> bytes:
    return message(Type.MULTIPART_REPLY, struct.pack("!HH4x", kind, 0) + b"".join(entries))


TWO_BUCKETS = Group(77, (Bucket(1, 5, (Output(2),)), Bucket(2, 6, (Output(3),))))


def described(group: Group) -> bytes:
    """An ofp_group_desc."""
    does = group_description(group)
    return struct.pack("!H", 2 + len(does)) + does


def flow(matching: bytes) -> bytes:
    rest = matching + STATISTICS + INSTRUCTIONS
    return struct.pack("!HxxBxHHHHHQ", 24 + len(rest), 2, 100, 300, 0, 1, 0, 0x71040000_00000001) + rest


SAMPLES: dict[str, bytes] = {
    "hello": HELLO,
    "hello without elements": message(Type.HELLO),
    "hello with a strange element": message(Type.HELLO, bytes.fromhex("0007000500000000") + HELLO[8:]),
    "hello with two words of versions": message(Type.HELLO, bytes.fromhex("0001000c00000040 00000001 00000000")),
    "error": message(Type.ERROR, struct.pack("!HH", 4, 9) + bytes(64)),
    "experimenter error": message(Type.ERROR, struct.pack("!HHI", 0xFFFF, 9, 0x2320)),
    "features": features(0x51AA, 3),
    "packet-in": message(Type.PACKET_IN, struct.pack("!IHBBQ", 0xFFFFFFFF, 60, 0, 2, 7) + MATCH + bytes(62)),
    "packet-in with xreg": message(Type.PACKET_IN, struct.pack("!IHBBQ", 0xFFFFFFFF, 60, 0, 2, 7) + XREG + bytes(62)),
    "flow-removed": message(Type.FLOW_REMOVED, struct.pack("!BBHHHQ", 2, 0, 100, 300, 0, 9) + MATCH + STATISTICS),
    "port-status": message(Type.PORT_STATUS, struct.pack("!B7x", 2) + PORT),
    "role reply": message(Type.ROLE_REPLY, struct.pack("!IHxxQ", 2, 0, 5)),
    "role status": message(Type.ROLE_STATUS, struct.pack("!IB3xQ", 3, 0, 6)),
    "ports": multipart(Multipart.PORT_DESC, PORT, PORT),
    "flows": multipart(Multipart.FLOW_DESC, flow(MATCH), flow(XREG), flow(oxm.encode_match(()))),
    "groups": multipart(Multipart.GROUP_STATS, struct.pack("!H2xI32x", 56, 77) + bytes(16)),
    "described groups": multipart(Multipart.GROUP_DESC, described(TWO_BUCKETS)),
    "meters": multipart(Multipart.METER_DESC, struct.pack("!HHIHHII4x", 24, 6, 3, 1, 16, 300, 300)),
    "flow updates": multipart(
        Multipart.FLOW_MONITOR,
        struct.pack("!HHBBHHH4xQ", 24 + len(MATCH), 1, 2, 3, 0, 0, 9, 5) + MATCH,
        struct.pack("!HHI", 8, 4, 77),
        struct.pack("!HHBBHHH4xQ", 24 + len(MATCH), 2, 2, 0, 0, 0, 9, 5) + MATCH,
    ),
    "request forward": message(
        Type.REQUESTFORWARD, struct.pack("!BBHI", 6, 15, 24, 6) + struct.pack("!HBxI8x", 2, 1, 9)
    ),
    "bundle reply": message(Type.BUNDLE_CONTROL, struct.pack("!IHH", 1, 5, 3)),
}

READERS: dict[int, Callable[[bytes], object]] = {
    Type.HELLO: codec.read_hello,
    Type.ERROR: codec.read_error,
    Type.FEATURES_REPLY: codec.read_features,
    Type.PACKET_IN: reading.packet_in,
    Type.FLOW_REMOVED: reading.flow_removed,
    Type.PORT_STATUS: codec.read_port_status,
    Type.ROLE_REPLY: codec.read_role,
    Type.ROLE_STATUS: codec.read_role_status,
    Type.REQUESTFORWARD: reading.foreign_request,
}
MULTIPART_READERS: dict[int, Callable[[bytes], object]] = {
    Multipart.PORT_DESC: codec.read_ports,
    Multipart.FLOW_DESC: lambda data: [*reading.flows(data), *reading.counted_flows(data)],
    Multipart.FLOW_MONITOR: lambda data: list(reading.foreign_flows(data)),
    Multipart.GROUP_STATS: lambda data: list(reading.groups(data)),
    Multipart.GROUP_DESC: lambda data: list(reading.group_descriptions(data)),
    Multipart.METER_DESC: lambda data: list(reading.meters(data)),
}


def read(data: bytes) -> object:
    guard.check(data[1], data)
    if data[1] == Type.MULTIPART_REPLY:
        return MULTIPART_READERS[int.from_bytes(data[8:10], "big")](data)
    reader = READERS.get(data[1])
    return reader(data) if reader else None


def framed(data: bytes) -> bytes:
    """The message as the session would cut it out: its header says its length."""
    return data[:2] + len(data).to_bytes(2, "big") + data[4:]


@pytest.mark.parametrize("name", SAMPLES)
def test_good_messages_pass(name: str) -> None:
    read(SAMPLES[name])


def test_what_is_read_is_what_was_sent() -> None:
    packet = reading.packet_in(SAMPLES["packet-in"])
    assert packet.table == 2
    assert packet.fields == {"in_port": 3, "eth_type": 0x806, "arp_op": 1, "reg0": 100, "reg2": 0x100}
    assert reading.packet_in(SAMPLES["packet-in with xreg"]).fields == {"reg0": 0x64, "reg1": 1}
    removed = reading.flow_removed(SAMPLES["flow-removed"])
    assert (removed.key[0], removed.key[1], removed.cookie, removed.reason) == (2, 100, 9, 0)
    assert removed.key[2] == next(iter(reading.flows(SAMPLES["flows"]))).key[2]
    first, second, third = reading.flows(SAMPLES["flows"])
    assert second.key[2] == (("reg0", 0x64, 0xFFFFFF), ("reg1", 1, 0xFFFF))
    assert (third.key[2], third.key[0], third.key[1]) == ((), 2, 100)
    assert first.cookie == 0x71040000_00000001
    assert codec.read_ports(SAMPLES["ports"]) == [Port(5, "veth5", True, hardware=b"\x02\0\0\0\0\5")] * 2
    assert list(reading.groups(SAMPLES["groups"])) == [(77, 1)]
    ((number, does),) = reading.group_descriptions(SAMPLES["described groups"])
    assert (number, does) == (77, group_description(TWO_BUCKETS))
    assert list(reading.meters(SAMPLES["meters"])) == [Meter(3, 300, 300)]
    (foreign,) = reading.foreign_flows(SAMPLES["flow updates"])
    assert foreign == Tampered("flow", False, (Table(2), 9, first.key[2]))
    assert reading.foreign_request(SAMPLES["request forward"]) == Tampered("group", True, number=9)
    assert codec.read_hello(SAMPLES["hello"]) == {6}
    assert codec.read_hello(SAMPLES["hello with two words of versions"]) == {6, 32}
    assert codec.read_hello(SAMPLES["hello with a strange element"]) == {6}
    assert codec.read_hello(SAMPLES["hello without elements"]) == {1, 2, 3, 4, 5, 6}


@settings(max_examples=600)
@given(st.data())
def test_broken_messages_are_refused_or_read(data: st.DataObject) -> None:
    sample = bytearray(SAMPLES[data.draw(st.sampled_from(sorted(SAMPLES)))])
    changes = data.draw(st.lists(st.tuples(st.integers(8, max(8, len(sample) - 1)), st.integers(0, 255)), max_size=6))
    for position, value in changes:
        if position < len(sample):
            sample[position] = value
    cut = data.draw(st.integers(8, len(sample) + 24))
    sample = sample[:cut] + bytes(max(0, cut - len(sample)))
    with suppress(Violation):
        read(framed(bytes(sample)))


@settings(max_examples=600)
@given(kind=st.sampled_from([*Type]), body=st.binary(max_size=120))
def test_random_bytes_are_refused_or_read(kind: Type, body: bytes) -> None:
    with suppress(Violation):
        read(message(kind, body))


@given(st.integers(0, 255).filter(lambda kind: kind not in set(Type)))
def test_types_that_no_switch_sends_are_refused(kind: int) -> None:
    with pytest.raises(Violation, match=str(kind)):
        guard.check(kind, message(kind, bytes(100)))


def test_foreign_fields_survive_a_round_trip() -> None:
    terms = (("in_port", 3, 0xFFFFFFFF), ("oxm_80000c00_1", 3, 0xFF), ("oxm_ffff5400_4f4e4600_2", 16, 0xFFF0))
    body = oxm.encode_match(terms)
    assert oxm.decode_match(body, 0, len(body)) == (terms, len(body))


@given(st.integers(0, 0xFFFFFFFF), st.integers(1, 0xFFFFFFFF))
def test_a_masked_address_survives_a_round_trip(value: int, mask: int) -> None:
    matching = match((IPV4_DST, value & mask, mask))
    body = oxm.encode_match(matching)
    assert oxm.decode_match(body, 0, len(body)) == (matching, len(body))


def _match_of(*terms: str) -> bytes:
    body = bytes.fromhex("".join(terms))
    return struct.pack("!HH", 1, 4 + len(body)) + body + bytes(-(4 + len(body)) % 8)


_PORT, _TYPE = "8000000400000003", "80000a020800"


@pytest.mark.parametrize("asked", [1, 2])  # what has been read once is remembered, what is wrong never
@pytest.mark.parametrize(
    ("terms", "says"),
    [
        ((_PORT, _PORT), "in_port occurs twice"),
        (("0001000400000001", "800100080000000100000002"), "reg0 occurs twice"),  # by itself, and as a part of xreg0
        ((_TYPE, "8000"), "header is cut short"),
        ((_TYPE, "80000014"), "leads out of its match"),
        (("80000a0108",), "eth_type is 1 bytes long instead of 2"),
        (("80000b03080000",), "OXM length 3 is impossible"),
        (("ffff00024f4e",), "too short for an experimenter field"),
    ],
)
def test_a_match_that_is_wrong_is_refused(terms: tuple[str, ...], says: str, asked: int) -> None:
    body = _match_of(*terms)
    for _ in range(asked):
        with pytest.raises(Violation, match=says):
            oxm.decode_match(body, 0, len(body))


def test_parts_of_a_register_are_joined_however_wide_their_fields_are() -> None:
    wide = "80010110" + "0000000000000002" + "000000000000000f"  # xreg0, of which reg1 is the lower half
    narrow = "00010308" + "00000030" + "000000f0"
    body = _match_of(wide, narrow)
    assert oxm.decode_match(body, 0, len(body))[0] == (("reg1", 0x32, 0xFF),)
