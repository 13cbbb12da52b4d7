# SPDX-License-Identifier: Apache-2.0
"""What a switch says, as bytes: OpenFlow 1.3 and 1.5 (layouts of the specifications, section 7)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

OPENFLOW_13, OPENFLOW_15 = 4, 6

HELLO, ERROR, ECHO_REQUEST, ECHO_REPLY, EXPERIMENTER = 0, 1, 2, 3, 4
FEATURES_REQUEST, FEATURES_REPLY, GET_CONFIG_REQUEST, GET_CONFIG_REPLY, SET_CONFIG = 5, 6, 7, 8, 9
PACKET_IN, FLOW_REMOVED, PORT_STATUS, PACKET_OUT, FLOW_MOD, GROUP_MOD = 10, 11, 12, 13, 14, 15
MULTIPART_REQUEST, MULTIPART_REPLY, BARRIER_REQUEST, BARRIER_REPLY = 18, 19, 20, 21
ROLE_REQUEST, ROLE_REPLY, SET_ASYNC, METER_MOD, ROLE_STATUS, BUNDLE_CONTROL, BUNDLE_ADD = 24, 25, 28, 29, 30, 33, 34
DESCRIPTION, FLOW_DESC, GROUP_STATS, METER_DESC, PORT_DESC = 0, 1, 6, 10, 13

NO_BUFFER = 0xFFFFFFFF
_PART_BYTES = 60_000


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a fake switch, up."""

    number: int
    name: str


def message(kind: int, body: bytes = b"", xid: int = 0, version: int = OPENFLOW_15) -> bytes:
    """A message with its header."""
    return struct.pack("!BBHI", version, kind, 8 + len(body), xid) + body


def hello(version: int) -> bytes:
    """HELLO with a version bitmap."""
    return message(HELLO, struct.pack("!HHI", 1, 8, 1 << version), 1, version)


def features(datapath_id: int, xid: int, version: int) -> bytes:
    """FEATURES_REPLY: 254 tables, no buffers."""
    return message(FEATURES_REPLY, struct.pack("!QIBB2xII", datapath_id, 0, 254, 0, 0x4F, 0), xid, version)


def port(one: Port, version: int) -> bytes:
    """One port description: 1.5 has a length and properties, 1.3 a fixed form."""
    mac = b"\x0e" + one.number.to_bytes(5, "big")
    if version == OPENFLOW_13:
        return struct.pack("!I4x6s2x16s8I", one.number, mac, one.name.encode(), 0, 4, 0, 0, 0, 0, 0, 0)
    return struct.pack("!IH2x6s2x16sII", one.number, 40, mac, one.name.encode(), 0, 4)


def port_status(one: Port, reason: int) -> bytes:
    """PORT_STATUS of OpenFlow 1.5; `reason` 0 is added, 1 deleted, 2 modified."""
    return message(PORT_STATUS, struct.pack("!B7x", reason) + port(one, OPENFLOW_15))


def multipart(kind: int, entries: Iterable[bytes], xid: int, version: int) -> bytes:
    """A whole multipart reply, in as many parts as it takes."""
    parts, part, size = [], list[bytes](), 0
    for entry in entries:
        if part and size + len(entry) > _PART_BYTES:
            parts.append(b"".join(part))
            part, size = [], 0
        part.append(entry)
        size += len(entry)
    parts.append(b"".join(part))
    last = len(parts) - 1
    return b"".join(
        message(MULTIPART_REPLY, struct.pack("!HH4x", kind, int(index < last)) + body, xid, version)
        for index, body in enumerate(parts)
    )


def match(*fields: bytes) -> bytes:
    """An ofp_match of OXM fields, padded."""
    body = b"".join(fields)
    return struct.pack("!HH", 1, 4 + len(body)) + body + bytes(-(4 + len(body)) % 8)


def in_port(number: int) -> bytes:
    """The OXM field in_port."""
    return struct.pack("!II", 0x80000004, number)


def registers(values: Sequence[int]) -> bytes:
    """Registers in pairs as Open vSwitch reports them to OpenFlow 1.5; pairs that are zero are left out."""
    found = b""
    for pair in range(len(values) // 2):
        value = values[2 * pair] << 32 | values[2 * pair + 1]
        if value:
            found += struct.pack("!IQ", 0x80010008 | pair << 9, value)
    return found


def packet_in(table: int, matching: bytes, frame: bytes, version: int) -> bytes:
    """PACKET_IN with the whole packet."""
    reason = 1 if version == OPENFLOW_15 else 0
    head = struct.pack("!IHBBQ", NO_BUFFER, len(frame), reason, table, 0xFFFFFFFFFFFFFFFF)
    return message(PACKET_IN, head + matching + bytes(2) + frame, 0, version)


def frame(source: bytes, target: bytes, payload: bytes, addresses: tuple[bytes, bytes] | None = None) -> bytes:
    """An Ethernet frame of 78 bytes or more from `source` to `target` (MACs): IPv4 and UDP with `payload`."""
    ours, theirs = addresses or (b"\x0a\0\0\1", b"\x0a\0\0\2")
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28 + len(payload), 0, 0x4000, 64, 17, 0, ours, theirs)
    words = struct.unpack("!10H", ip)
    total = sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    ip = ip[:10] + checksum.to_bytes(2, "big") + ip[12:]
    return target + source + b"\x08\x00" + ip + struct.pack("!HHHH", 40000, 80, 8 + len(payload), 0) + payload
