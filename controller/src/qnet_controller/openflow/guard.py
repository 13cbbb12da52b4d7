# SPDX-License-Identifier: Apache-2.0
"""The structural guard: every length of a message is checked here before a parser sees a byte of it.

The codec trusts the lengths it reads: an element or property of length 0 makes it loop for good, one that is too short
makes it raise. What passes the guard can be parsed. Layouts are those of the
OpenFlow 1.5.1 specification, section 7.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import IntEnum
from struct import Struct, unpack_from

VERSION = 6
HEADER = Struct("!BBHI")
HEADER_SIZE = 8

MAX_BEFORE_IDENTIFIED = 4096
"""The longest message accepted from a peer that has not said which switch it is."""


class Violation(Exception):
    """A peer broke the protocol. The text says what was wrong; the peer is dropped."""


class Type(IntEnum):
    """ofp_type, the messages that a switch may send."""

    HELLO = 0
    ERROR = 1
    ECHO_REQUEST = 2
    ECHO_REPLY = 3
    EXPERIMENTER = 4
    FEATURES_REPLY = 6
    PACKET_IN = 10
    FLOW_REMOVED = 11
    PORT_STATUS = 12
    MULTIPART_REPLY = 19
    BARRIER_REPLY = 21
    ROLE_REPLY = 25
    ROLE_STATUS = 30
    TABLE_STATUS = 31
    REQUESTFORWARD = 32
    BUNDLE_CONTROL = 33
    CONTROLLER_STATUS = 35


class Multipart(IntEnum):
    """ofp_multipart_type, the ones we ask for."""

    FLOW_DESC = 1
    GROUP_STATS = 6
    GROUP_DESC = 7
    METER_DESC = 10
    PORT_DESC = 13
    FLOW_MONITOR = 16


def elements(
    data: bytes, offset: int, end: int, *, what: str, smallest: int, length_at: int, align: int = 8
) -> Iterator[tuple[int, int]]:
    """Walk elements whose 16-bit length is at `length_at` in each; yields (offset, length without padding).

    Raises:
        Violation: an element is shorter than `smallest` or leads out of `end`.
    """
    while offset < end:
        if offset + smallest > end:
            raise Violation(f"{what} is cut short")
        (length,) = unpack_from("!H", data, offset + length_at)
        if length < smallest:
            raise Violation(f"{what} has length {length}, the least is {smallest}")
        after = offset + length + -length % align
        if after > end:
            raise Violation(f"{what} of length {length} leads out of its message")
        yield offset, length
        offset = after


def check(kind: int, data: bytes) -> None:
    """Check one whole message (with header) of type `kind`.

    Raises:
        Violation: a switch does not send this type, or a length in it is wrong.
    """
    checker = _CHECKERS.get(kind)
    if checker is None:
        raise Violation(f"a switch sends no message of type {kind}")
    least, check_body = checker
    if len(data) < least:
        raise Violation(f"{Type(kind).name} has {len(data)} bytes, the least is {least}")
    if check_body is not None:
        check_body(data)


def hello_elements(data: bytes) -> Iterator[tuple[int, int]]:
    """The (offset, length) of each element of a HELLO."""
    return elements(data, 8, len(data), what="hello element", smallest=4, length_at=2)


def _hello(data: bytes) -> None:
    for offset, length in hello_elements(data):
        if unpack_from("!H", data, offset)[0] == 1 and length % 4:
            raise Violation(f"version bitmap has length {length}, not a multiple of 4")


def _error(data: bytes) -> None:
    if unpack_from("!H", data, 8)[0] == 0xFFFF and len(data) < 16:
        raise Violation("an experimenter error is cut short")


def _exactly(size: int) -> Callable[[bytes], None]:
    def check_size(data: bytes) -> None:
        if len(data) != size:
            raise Violation(f"{Type(data[1]).name} has {len(data)} bytes instead of {size}")

    return check_size


_PORT_SIZE = 40
_PORT_PROPERTY_SIZES = {0: 32, 1: 40}
_PROPERTY_OXM_IDS = (2, 3)
_PROPERTY_RECIRCULATE = 4
_EXPERIMENTER = 0xFFFF


def _port(data: bytes, offset: int, length: int) -> None:
    end = offset + length
    walk = elements(data, offset + _PORT_SIZE, end, what="port property", smallest=4, length_at=2)
    for start, size in walk:
        (kind,) = unpack_from("!H", data, start)
        wanted = _PORT_PROPERTY_SIZES.get(kind)
        if wanted is not None and size != wanted:
            raise Violation(f"port property {kind} has length {size} instead of {wanted}")
        if kind == _EXPERIMENTER and size < 12:
            raise Violation(f"experimenter property has length {size}, the least is 12")
        if kind in (*_PROPERTY_OXM_IDS, _PROPERTY_RECIRCULATE, _EXPERIMENTER) and size % 4:
            raise Violation(f"port property {kind} has length {size}, not a multiple of 4")
        if kind in _PROPERTY_OXM_IDS:
            _oxm_ids(data, start + 4, start + size)


def _oxm_ids(data: bytes, offset: int, end: int) -> None:
    while offset < end:
        offset += 8 if unpack_from("!H", data, offset)[0] == _EXPERIMENTER else 4
    if offset != end:
        raise Violation("the OXM ids of a port property are cut short")


def _ports(data: bytes, offset: int) -> None:
    for start, length in elements(data, offset, len(data), what="port", smallest=_PORT_SIZE, length_at=4):
        if length % 8:
            raise Violation(f"port has length {length}, not a multiple of 8")
        _port(data, start, length)


def _port_status(data: bytes) -> None:
    (length,) = unpack_from("!H", data, 16 + 4)
    if length != len(data) - 16:
        raise Violation(f"the port of a PORT_STATUS has length {length} in {len(data)} bytes")
    _ports(data, 16)


def _role_status(data: bytes) -> None:
    for offset, length in elements(data, 24, len(data), what="role property", smallest=4, length_at=2):
        if unpack_from("!H", data, offset)[0] == _EXPERIMENTER and (length < 12 or length % 4):
            raise Violation(f"experimenter property has length {length}")


def _multipart(data: bytes) -> None:
    (kind,) = unpack_from("!H", data, 8)
    if kind == Multipart.PORT_DESC:
        _ports(data, 16)
    elif kind == Multipart.FLOW_DESC:
        _flow_descs(data)
    elif kind == Multipart.GROUP_STATS:
        for _ in elements(data, 16, len(data), what="group", smallest=40, length_at=0):
            pass
    elif kind == Multipart.GROUP_DESC:
        for offset, length in elements(data, 16, len(data), what="group", smallest=16, length_at=0):
            buckets = offset + 16 + int.from_bytes(data[offset + 8 : offset + 10], "big")
            if buckets > offset + length:
                raise Violation("the buckets of a group lead out of it")
            for _ in elements(data, offset + 16, buckets, what="bucket", smallest=8, length_at=0):
                pass
    elif kind == Multipart.METER_DESC:
        for offset, length in elements(data, 16, len(data), what="meter", smallest=8, length_at=0):
            for _ in elements(data, offset + 8, offset + length, what="meter band", smallest=16, length_at=2):
                pass
    elif kind == Multipart.FLOW_MONITOR:
        _flow_updates(data)
    else:
        raise Violation(f"a multipart reply of type {kind} that nobody asked for")


SHORT_UPDATE_EVENTS = (4, 5, 6)
"""ofp_flow_update_event: ABBREV, PAUSED and RESUMED have no flow."""


def _flow_updates(data: bytes) -> None:
    for offset, length in elements(data, 16, len(data), what="flow update", smallest=8, length_at=0):
        if unpack_from("!H", data, offset + 2)[0] in SHORT_UPDATE_EVENTS:
            continue
        if length < 32:
            raise Violation(f"flow update has length {length}, the least is 32")
        after = _padded(data, offset + 24, offset + length, "match", 2)
        for _ in elements(data, after, offset + length, what="instruction", smallest=8, length_at=2):
            pass


def _requestforward(data: bytes) -> None:
    length, kind = unpack_from("!H", data, 10)[0], data[9]
    if length != len(data) - 8:
        raise Violation(f"the request of a REQUESTFORWARD has length {length} in {len(data)} bytes")
    least = _FORWARDED.get(kind)
    if least is None or length < least:
        raise Violation(f"a REQUESTFORWARD of a request of type {kind} and length {length}")


def _flow_descs(data: bytes) -> None:
    for offset, length in elements(data, 16, len(data), what="flow", smallest=40, length_at=0):
        end = offset + length
        after_match = _padded(data, offset + 24, end, "match", 2)
        after_stats = _padded(data, after_match, end, "statistics", 2)
        for start, size in elements(data, after_stats, end, what="instruction", smallest=8, length_at=2):
            if unpack_from("!H", data, start)[0] in (3, 4, 5):
                for _ in elements(data, start + 8, start + size, what="action", smallest=8, length_at=2):
                    pass


def _padded(data: bytes, offset: int, end: int, what: str, length_at: int) -> int:
    """The offset after the one padded element at `offset`."""
    if offset + 4 > end:
        raise Violation(f"{what} is missing")
    length = int.from_bytes(data[offset + length_at : offset + length_at + 2], "big")
    after = offset + length + -length % 8
    if length < 4 or after > end:
        raise Violation(f"{what} of length {length} does not fit its message")
    return after


def _packet_in(data: bytes) -> None:
    # After the match come 2 bytes of padding and the packet.
    if _padded(data, 24, len(data), "match", 2) + 2 > len(data):
        raise Violation("a PACKET_IN has no packet")


def _flow_removed(data: bytes) -> None:
    _padded(data, _padded(data, 24, len(data), "match", 2), len(data), "statistics", 2)


def _bundle_control(data: bytes) -> None:
    for _ in elements(data, 16, len(data), what="bundle property", smallest=4, length_at=2):
        pass


# OFPT_GROUP_MOD and OFPT_METER_MOD with the least length of each
GROUP_MOD, METER_MOD = 15, 29
_FORWARDED = {GROUP_MOD: 16, METER_MOD: 16}

# type: (least length, check of the body)
_CHECKERS: dict[int, tuple[int, Callable[[bytes], None] | None]] = {
    Type.HELLO: (8, _hello),
    Type.ERROR: (12, _error),
    Type.ECHO_REQUEST: (8, None),
    Type.ECHO_REPLY: (8, None),
    Type.EXPERIMENTER: (16, None),
    Type.FEATURES_REPLY: (32, _exactly(32)),
    Type.PACKET_IN: (34, _packet_in),
    Type.FLOW_REMOVED: (32, _flow_removed),
    Type.PORT_STATUS: (16 + _PORT_SIZE, _port_status),
    Type.MULTIPART_REPLY: (16, _multipart),
    Type.BARRIER_REPLY: (8, _exactly(8)),
    Type.ROLE_REPLY: (24, _exactly(24)),
    Type.ROLE_STATUS: (24, _role_status),
    Type.TABLE_STATUS: (8, None),
    Type.REQUESTFORWARD: (24, _requestforward),
    Type.BUNDLE_CONTROL: (16, _bundle_control),
    Type.CONTROLLER_STATUS: (8, None),
}
