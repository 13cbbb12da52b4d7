# SPDX-License-Identifier: Apache-2.0
"""Match fields and registers of the pipeline, declared once, by name.

A `Field` is a whole OXM field; a `Bits` is a part of one. Values are unsigned integers in network order.
Wire numbers (OXM class and field) live in `qnet_controller.openflow.wire` alone.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Field:
    """A match field: its name as in ovs-fields(7) and its width in bits."""

    name: str
    bits: int
    full: int = dataclasses.field(init=False, repr=False, compare=False)
    """The mask that covers the whole field."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "full", (1 << self.bits) - 1)

    def __hash__(self) -> int:
        return hash(self.name)


@dataclass(frozen=True, slots=True)
class Bits:
    """`width` bits of `field` from bit `offset` (0 is the least significant)."""

    name: str
    field: Field
    offset: int
    width: int
    mask: int = dataclasses.field(init=False, repr=False, compare=False)
    """The bits of this part within its field."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "mask", ((1 << self.width) - 1) << self.offset)

    def __hash__(self) -> int:
        return hash(self.name)


def whole(field: Field) -> Bits:
    """The whole of `field` as a `Bits`."""
    return Bits(field.name, field, 0, field.bits)


IN_PORT = Field("in_port", 32)
TUN_ID = Field("tun_id", 64)
TUN_SRC = Field("tun_src", 32)
TUN_DST = Field("tun_dst", 32)
TUN_IPV6_SRC = Field("tun_ipv6_src", 128)
TUN_IPV6_DST = Field("tun_ipv6_dst", 128)
ETH_DST = Field("eth_dst", 48)
ETH_SRC = Field("eth_src", 48)
ETH_TYPE = Field("eth_type", 16)
IP_PROTO = Field("ip_proto", 8)
IP_FRAG = Field("ip_frag", 8)
IPV4_SRC = Field("ipv4_src", 32)
IPV4_DST = Field("ipv4_dst", 32)
IPV6_SRC = Field("ipv6_src", 128)
IPV6_DST = Field("ipv6_dst", 128)
TCP_SRC = Field("tcp_src", 16)
TCP_DST = Field("tcp_dst", 16)
UDP_SRC = Field("udp_src", 16)
UDP_DST = Field("udp_dst", 16)
SCTP_SRC = Field("sctp_src", 16)
SCTP_DST = Field("sctp_dst", 16)
ICMPV4_TYPE = Field("icmpv4_type", 8)
ARP_OP = Field("arp_op", 16)
ARP_SPA = Field("arp_spa", 32)
ARP_TPA = Field("arp_tpa", 32)
ARP_SHA = Field("arp_sha", 48)
ARP_THA = Field("arp_tha", 48)
ICMPV6_TYPE = Field("icmpv6_type", 8)
ICMPV6_CODE = Field("icmpv6_code", 8)
ND_TARGET = Field("nd_target", 128)
ND_SLL = Field("nd_sll", 48)
ND_TLL = Field("nd_tll", 48)
ND_RESERVED = Field("nd_reserved", 32)
ND_OPTIONS_TYPE = Field("nd_options_type", 8)
CT_STATE = Field("ct_state", 32)
CT_ZONE = Field("ct_zone", 16)
CT_IPV4_DST = Field("ct_ipv4_dst", 32)
CT_IPV6_DST = Field("ct_ipv6_dst", 128)
CT_PROTO = Field("ct_proto", 8)
CT_TP_DST = Field("ct_tp_dst", 16)
CT_MARK = Field("ct_mark", 32)

REG0 = Field("reg0", 32)
REG1 = Field("reg1", 32)
REG2 = Field("reg2", 32)
REG3 = Field("reg3", 32)
REG4 = Field("reg4", 32)
REG5 = Field("reg5", 32)

ALL: tuple[Field, ...] = (
    IN_PORT, TUN_ID, TUN_SRC, TUN_DST, TUN_IPV6_SRC, TUN_IPV6_DST, ETH_DST, ETH_SRC, ETH_TYPE, IP_PROTO, IP_FRAG,
    IPV4_SRC, IPV4_DST, IPV6_SRC, IPV6_DST, TCP_SRC, TCP_DST, UDP_SRC, UDP_DST, SCTP_SRC, SCTP_DST,
    ICMPV4_TYPE, ARP_OP, ARP_SPA, ARP_TPA, ARP_SHA, ARP_THA,
    ICMPV6_TYPE, ICMPV6_CODE, ND_TARGET, ND_SLL, ND_TLL, ND_RESERVED, ND_OPTIONS_TYPE, CT_STATE, CT_ZONE, CT_IPV4_DST,
    CT_IPV6_DST, CT_PROTO, CT_TP_DST, CT_MARK, REG0, REG1, REG2, REG3, REG4, REG5,
)  # fmt: skip
BY_NAME: dict[str, Field] = {one.name: one for one in ALL}

# What the registers carry from `admission` to the last table.
VNI = Bits("vni", REG0, 0, 24)
SOURCE_GROUP = Bits("source_group", REG1, 0, 16)
KIND = Bits("kind", REG2, 0, 8)
KIND_OPENS = Bits("kind_opens", REG2, 1, 7)  # 1 for the kinds OPEN and ALLOW, which share all bits but the lowest
ORIGIN = Bits("origin", REG2, 8, 1)  # 0: a pod of this host, 1: the tunnel
HAIRPIN = Bits("hairpin", REG2, 9, 1)
SOURCE_ZONE = Bits("source_zone", REG3, 0, 16)  # the sending pod's OpenFlow port; 0 from the tunnel
TARGET_ZONE = Bits("target_zone", REG4, 0, 16)  # the receiving pod's OpenFlow port
GRANT = Bits("grant", REG5, 0, 32)  # by what a connection is opened; 0 within a group. Connections keep it in ct_mark

ETH_TYPE_IPV4 = 0x0800
ETH_TYPE_ARP = 0x0806
ETH_TYPE_IPV6 = 0x86DD

# ct_state bits, ovs-fields(7)
CT_NEW, CT_ESTABLISHED, CT_RELATED, CT_REPLY, CT_INVALID, CT_TRACKED = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
CT_DESTINATION_TRANSLATED = 0x80

LATER_FRAGMENT = 0x03  # of ip_frag, ovs-fields(7): a part of a packet that is not the first, and shows no ports

HAIRPIN_ZONE = 0x8000
"""Added to a pod's OpenFlow port number: the zone of the source NAT of a pod that reached itself."""
