# SPDX-License-Identifier: Apache-2.0
"""The two families of IP addresses: the fields and numbers that differ between them, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..model.objects import Address
from .fields import (
    CT_IPV4_DST,
    CT_IPV6_DST,
    ETH_TYPE,
    ETH_TYPE_IPV4,
    ETH_TYPE_IPV6,
    IPV4_DST,
    IPV4_SRC,
    IPV6_DST,
    IPV6_SRC,
    TUN_DST,
    TUN_IPV6_DST,
    TUN_IPV6_SRC,
    TUN_SRC,
    Field,
)

_ICMP, _ICMPV6 = 1, 58


@dataclass(frozen=True, slots=True)
class Family:
    """One family: the names that the fields of a packet, a connection and a tunnel have in it."""

    name: str
    eth_type: int
    source: Field
    target: Field
    original_target: Field
    tunnel_source: Field
    tunnel_target: Field
    icmp: int

    def __hash__(self) -> int:
        return self.eth_type

    @property
    def term(self) -> tuple[Field, int]:
        """The match term that a packet is of this family."""
        return (ETH_TYPE, self.eth_type)

    @property
    def bytes(self) -> int:
        """The length of a packed address."""
        return self.source.bits // 8

    def mask(self, prefix: int) -> int:
        """The mask of a prefix length."""
        return (1 << self.source.bits) - (1 << self.source.bits - prefix)

    def protocol(self, number: int) -> int:
        """The protocol number of this family for one of a port rule, where ICMP stands for that of either family."""
        return self.icmp if number == _ICMP else number


IPV4 = Family("IPv4", ETH_TYPE_IPV4, IPV4_SRC, IPV4_DST, CT_IPV4_DST, TUN_SRC, TUN_DST, _ICMP)
IPV6 = Family("IPv6", ETH_TYPE_IPV6, IPV6_SRC, IPV6_DST, CT_IPV6_DST, TUN_IPV6_SRC, TUN_IPV6_DST, _ICMPV6)
FAMILIES = (IPV4, IPV6)
_BY_BYTES = {family.bytes: family for family in FAMILIES}


def family(address: Address) -> Family:
    """The family of a packed address."""
    return _BY_BYTES[len(address)]


def number(packed: bytes) -> int:
    """A packed address, of IP or Ethernet, as the value of a field."""
    return int.from_bytes(packed, "big")


def tunnel_source(fields: Mapping[str, int]) -> Address:
    """The VTEP that a packet from the tunnel came from, out of its metadata."""
    used = IPV6 if fields.get(TUN_IPV6_SRC.name) else IPV4
    return fields.get(used.tunnel_source.name, 0).to_bytes(used.bytes, "big")
