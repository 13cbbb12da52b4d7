# SPDX-License-Identifier: Apache-2.0
"""What a pod may never send, each kind dropped by a flow of its own: the switch counts them by pod and by reason."""

from __future__ import annotations

from collections.abc import Iterator

from ..model.objects import Pod
from .family import FAMILIES, IPV4, IPV6, Family, family, number
from .fields import (
    ETH_DST,
    ETH_SRC,
    ETH_TYPE,
    ETH_TYPE_ARP,
    ICMPV6_CODE,
    ICMPV6_TYPE,
    IN_PORT,
    IP_PROTO,
    IPV6_SRC,
    ND_TARGET,
    UDP_DST,
    Bits,
    Field,
)
from .messages import Feature, Flow, flow, match
from .tables import Table

_UDP, _DHCP_SERVER = 17, 67
_GROUP_BIT = 1 << 40  # of an Ethernet address: multicast and broadcast
_SOLICITATION, _ADVERTISEMENT = 135, 136
_OF_ROUTERS = (134, 137)  # advertisement, redirect
_Term = tuple[Field | Bits, int] | tuple[Field | Bits, int, int]


def spoofed_flows(pod: Pod, port: int, link_local: int) -> Iterator[Flow]:
    """The flows for one pod at a port; all that it may send is let in by flows of higher priority."""
    sender: tuple[_Term, ...] = ((IN_PORT, port), (ETH_SRC, number(pod.mac)))

    def drop(priority: int, reason: Feature, *terms: _Term) -> Flow:
        return flow(Table.ADMISSION, priority, match(*terms), (), reason, f"pod {pod.key}")

    def icmpv6(kind: int) -> tuple[_Term, ...]:
        return (*sender, IPV6.term, (IP_PROTO, IPV6.icmp), (ICMPV6_TYPE, kind))

    yield drop(100, Feature.SPOOFED_MAC, (IN_PORT, port))
    yield drop(101, Feature.NOT_IP, *sender)
    yield drop(102, Feature.SPOOFED_ARP, *sender, (ETH_TYPE, ETH_TYPE_ARP))
    for ip in FAMILIES:
        yield drop(102, Feature.SPOOFED_IP, *sender, ip.term)
    yield drop(103, Feature.DHCP, *sender, IPV4.term, (IP_PROTO, _UDP), (UDP_DST, _DHCP_SERVER))
    for packed in pod.addresses:
        yield drop(
            104, Feature.GROUP_ADDRESS, *sender, *_from(family(packed), packed), (ETH_DST, _GROUP_BIT, _GROUP_BIT)
        )
    # Above what a pod may send in general (200), below its own questions (205).
    for kind in (_SOLICITATION, _ADVERTISEMENT):
        yield drop(202, Feature.SPOOFED_ND, *icmpv6(kind))
    for kind in _OF_ROUTERS:
        yield drop(202, Feature.ROUTER, *icmpv6(kind))
    # A kernel asks before it takes an address, its link-local one too; that is no abuse.
    asked = (*icmpv6(_SOLICITATION), (ICMPV6_CODE, 0), (IPV6_SRC, 0), (ND_TARGET, link_local))
    yield flow(Table.ADMISSION, 203, match(*asked), (), Feature.POD, f"pod {pod.key}")


def _from(ip: Family, packed: bytes) -> tuple[_Term, ...]:
    return (ip.term, (ip.source, number(packed)))
