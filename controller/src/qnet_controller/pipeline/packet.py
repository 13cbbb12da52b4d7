# SPDX-License-Identifier: Apache-2.0
"""As much of a packet as a decision needs, read without trusting a byte of it."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from ..decide.decide import Origin
from .family import IPV4, IPV6
from .fields import ORIGIN, SOURCE_GROUP, SOURCE_ZONE, VNI, Bits
from .messages import Actions, PacketIn, Resubmit, Set
from .tables import Table

_ETHERNET_BYTES = 14
_IPV4_BYTES, _IPV6_BYTES = 20, 40


class Addresses(NamedTuple):
    """Source and destination address, packed; both of one family."""

    source: bytes
    target: bytes


def ip_addresses(data: bytes) -> Addresses | None:
    """The IP addresses of an Ethernet frame, or None when it carries no whole IP header."""
    if len(data) < _ETHERNET_BYTES + _IPV4_BYTES:
        return None
    eth_type, version = int.from_bytes(data[12:14], "big"), data[_ETHERNET_BYTES] >> 4
    if (eth_type, version) == (IPV4.eth_type, 4):
        return Addresses(data[26:30], data[30:34])
    if (eth_type, version) == (IPV6.eth_type, 6) and len(data) >= _ETHERNET_BYTES + _IPV6_BYTES:
        return Addresses(data[22:38], data[38:54])
    return None


def read(packet: PacketIn, part: Bits) -> int:
    """What the switch says that a part of a register was."""
    return packet.fields.get(part.field.name, 0) >> part.offset & (1 << part.width) - 1


def restored(packet: PacketIn, *parts: Bits) -> tuple[Set, ...]:
    """Actions that give parts of registers what they were."""
    return tuple(Set(part, read(packet, part)) for part in parts)


@lru_cache(1 << 16)
def again(vni: int, group: int, origin: Origin, zone: int) -> Actions:
    """The actions that put a packet back to where it asked."""
    values = {VNI: vni, SOURCE_GROUP: group, ORIGIN: origin, SOURCE_ZONE: zone}
    return (*(Set(what, value) for what, value in values.items()), Resubmit(Table.PLAN))
