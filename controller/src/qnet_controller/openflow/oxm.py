# SPDX-License-Identifier: Apache-2.0
"""Matches on the wire: OXM fields (OpenFlow 1.5 section 7.2.3, ovs-fields(7)) to and from `pipeline.messages.Match`.

Written by hand rather than left to the codec: a flow read back must have exactly the key of the flow that was sent.
Open vSwitch reports register pairs as one `xreg` field, other programs may use `xxreg`, and a field that the pipeline
does not know must survive a round trip so that the flow can be deleted. Every length is checked here.
"""

from __future__ import annotations

import re
from struct import Struct, unpack_from

from ..pipeline.fields import ALL
from ..pipeline.messages import Match
from .guard import Violation

OXM_BASIC = 0x8000
OXM_REGISTERS = 0x8001
NXM_0 = 0x0000
NXM_1 = 0x0001
ERICSSON = 0x1000  # the class of the two ND fields of Open vSwitch that OpenFlow has none for
OXM_EXPERIMENTER = 0xFFFF

# name: (OXM class, field number)
_NUMBERS: dict[str, tuple[int, int]] = {
    "in_port": (OXM_BASIC, 0),
    "eth_dst": (OXM_BASIC, 3),
    "eth_src": (OXM_BASIC, 4),
    "eth_type": (OXM_BASIC, 5),
    "ip_proto": (OXM_BASIC, 10),
    "ipv4_src": (OXM_BASIC, 11),
    "ipv4_dst": (OXM_BASIC, 12),
    "tcp_src": (OXM_BASIC, 13),
    "tcp_dst": (OXM_BASIC, 14),
    "udp_src": (OXM_BASIC, 15),
    "udp_dst": (OXM_BASIC, 16),
    "sctp_src": (OXM_BASIC, 17),
    "sctp_dst": (OXM_BASIC, 18),
    "icmpv4_type": (OXM_BASIC, 19),
    "icmpv4_code": (OXM_BASIC, 20),
    "arp_op": (OXM_BASIC, 21),
    "arp_spa": (OXM_BASIC, 22),
    "arp_tpa": (OXM_BASIC, 23),
    "arp_sha": (OXM_BASIC, 24),
    "arp_tha": (OXM_BASIC, 25),
    "ipv6_src": (OXM_BASIC, 26),
    "ipv6_dst": (OXM_BASIC, 27),
    "icmpv6_type": (OXM_BASIC, 29),
    "icmpv6_code": (OXM_BASIC, 30),
    "nd_target": (OXM_BASIC, 31),
    "nd_sll": (OXM_BASIC, 32),
    "nd_tll": (OXM_BASIC, 33),
    "nd_reserved": (ERICSSON, 1),
    "nd_options_type": (ERICSSON, 2),
    "tun_id": (OXM_BASIC, 38),
    "ip_frag": (NXM_1, 26),
    "tun_src": (NXM_1, 31),
    "tun_dst": (NXM_1, 32),
    "tun_ipv6_src": (NXM_1, 109),
    "tun_ipv6_dst": (NXM_1, 110),
    "ct_state": (NXM_1, 105),
    "ct_zone": (NXM_1, 106),
    "ct_mark": (NXM_1, 107),
    "ct_proto": (NXM_1, 119),
    "ct_ipv4_src": (NXM_1, 120),
    "ct_ipv4_dst": (NXM_1, 121),
    "ct_ipv6_src": (NXM_1, 122),
    "ct_ipv6_dst": (NXM_1, 123),
    "ct_tp_src": (NXM_1, 124),
    "ct_tp_dst": (NXM_1, 125),
    **{f"reg{number}": (NXM_1, number) for number in range(16)},
}
_REGISTERS = {f"reg{number}": 4 for number in range(16)}  # wide register fields are taken apart into any of these
HEADERS: dict[str, tuple[int, int]] = {
    name: (_NUMBERS[name][0] << 16 | _NUMBERS[name][1] << 9, size)
    for name, size in (_REGISTERS | {field.name: field.bits // 8 for field in ALL}).items()
}
"""Per field: its OXM header without length and mask bit, and its length in bytes."""

_NAMES: dict[int, str] = {header: name for name, (header, _) in HEADERS.items()}
_XREG = {OXM_REGISTERS << 16 | number << 9: (2 * number, 2) for number in range(8)}
_XXREG = {NXM_1 << 16 | (111 + number) << 9: (4 * number, 4) for number in range(4)}
_WIDE = {**_XREG, **_XXREG}
_FOREIGN = re.compile(r"oxm_([0-9a-f]{8})(?:_([0-9a-f]{8}))?_(\d+)")
_HEADER = Struct("!I")
_MATCH = Struct("!HH")
# name: (bytes, mask that covers all, header of an exact term, header of a masked one)
_PACKED = {
    name: (size, (1 << size * 8) - 1, _HEADER.pack(base | size), _HEADER.pack(base | 0x100 | size * 2))
    for name, (base, size) in HEADERS.items()
}


def header(name: str, *, masked: bool = False) -> int:
    """The 32-bit OXM header of a field of the pipeline."""
    base, size = HEADERS[name]
    return base | 0x100 | size * 2 if masked else base | size


def encode_term(name: str, value: int, mask: int) -> bytes:
    """One OXM field. A mask that covers the whole field is left out, as Open vSwitch does."""
    known = _PACKED.get(name)
    if known is None:
        return _encode_foreign(name, value, mask)
    size, full, exact, masked = known
    if mask == full:
        return exact + value.to_bytes(size, "big")
    return masked + value.to_bytes(size, "big") + mask.to_bytes(size, "big")


def _encode_foreign(name: str, value: int, mask: int) -> bytes:
    found = _FOREIGN.fullmatch(name)
    if found is None:
        raise KeyError(f"unknown match field {name!r}")
    base, experimenter, size = int(found[1], 16), found[2], int(found[3])
    vendor = bytes.fromhex(experimenter) if experimenter else b""
    if mask == (1 << size * 8) - 1:
        return _HEADER.pack(base | len(vendor) + size) + vendor + value.to_bytes(size, "big")
    body = value.to_bytes(size, "big") + mask.to_bytes(size, "big")
    return _HEADER.pack(base | 0x100 | len(vendor) + size * 2) + vendor + body


# A field must come after those it depends on (OpenFlow 1.5.1, 7.2.3.6); sorting is stable.
_ORDER = {"eth_type": 0, "ip_proto": 1, "icmpv6_type": 2, "icmpv6_code": 3, "ct_state": 4, "ct_proto": 5}


def encode_match(matching: Match) -> bytes:
    """A whole ofp_match, padded to a multiple of 8 bytes."""
    ordered = sorted(matching, key=lambda term: _ORDER.get(term[0], len(_ORDER)))
    body = b"".join(encode_term(*term) for term in ordered)
    length = 4 + len(body)
    return _MATCH.pack(1, length) + body + bytes(-length % 8)


Term = tuple[str, int, int]
_MOST_DECODED = 1 << 17
_decoded: dict[bytes, tuple[Term, ...]] = {}


def decode_match(data: bytes, offset: int, end: int) -> tuple[Match, int]:
    """Read the ofp_match at `offset`; returns it and the offset after its padding.

    Raises:
        Violation: a length leads out of the match or out of `end`.
    """
    if offset + 4 > end:
        raise Violation("the match is cut short")
    kind, length = unpack_from("!HH", data, offset)
    after = offset + length + -length % 8
    if kind != 1:
        raise Violation(f"match type {kind} instead of 1 (OXM)")
    if length < 4 or after > end:
        raise Violation(f"match length {length} does not fit its message")
    terms: dict[str, Term] = {}
    position, stop = offset + 4, offset + length
    while position < stop:
        if position + 4 > stop:
            raise Violation("an OXM header is cut short")
        past = position + 4 + data[position + 3]
        if past > stop:
            raise Violation(f"OXM length {data[position + 3]} leads out of its match")
        encoded = data[position:past]
        found = _decoded.get(encoded)
        for term in _decode_term(encoded) if found is None else found:
            name = term[0]
            if name in terms:
                term = _joined(terms[name], term)
            terms[name] = term
        position = past
    return tuple(sorted(terms.values())), after


def _joined(one: Term, other: Term) -> Term:
    if one[2] & other[2]:
        raise Violation(f"{one[0]} occurs twice")
    return one[0], one[1] | other[1], one[2] | other[2]


def _decode_term(encoded: bytes) -> tuple[Term, ...]:
    """One OXM field, which is remembered: most of the terms of many flows are alike."""
    head, start = int.from_bytes(encoded[:4], "big"), 4
    length = head & 0xFF
    vendor = ""
    if head >> 16 == OXM_EXPERIMENTER:
        if length < 4:
            raise Violation(f"OXM length {length} is too short for an experimenter field")
        vendor = encoded[4:8].hex()
        start = 8
    masked = bool(head & 0x100)
    size, odd = divmod(len(encoded) - start, 2) if masked else (len(encoded) - start, 0)
    if odd or size == 0:
        raise Violation(f"OXM length {length} is impossible")
    value = int.from_bytes(encoded[start : start + size], "big")
    mask = int.from_bytes(encoded[start + size :], "big") if masked else (1 << size * 8) - 1
    if len(_decoded) >= _MOST_DECODED:
        _decoded.clear()
    found = _decoded[encoded] = _terms(head & 0xFFFFFE00, vendor, size, value & mask, mask) if mask else ()
    return found


def _terms(base: int, vendor: str, size: int, value: int, mask: int) -> tuple[Term, ...]:
    name = _NAMES.get(base)
    if name is not None:
        if size != HEADERS[name][1]:
            raise Violation(f"{name} is {size} bytes long instead of {HEADERS[name][1]}")
        return ((name, value, mask),)
    if base not in _WIDE:
        experimenter = f"_{vendor}" if vendor else ""
        return ((f"oxm_{base:08x}{experimenter}_{size}", value, mask),)
    first, count = _WIDE[base]
    if size != count * 4:
        raise Violation(f"a register field is {size} bytes long instead of {count * 4}")
    parts = ((f"reg{first + n}", 32 * (count - 1 - n)) for n in range(count))
    found = ((reg, value >> shift & 0xFFFFFFFF, mask >> shift & 0xFFFFFFFF) for reg, shift in parts)
    return tuple(term for term in found if term[2])
