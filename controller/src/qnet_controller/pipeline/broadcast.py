# SPDX-License-Identifier: Apache-2.0
"""Broadcast and multicast of groups that declare it: to the members on this host, and once to every host that has any.

The sender's host lets it in through a meter of the pod's own, the receiving host asks again: it hands over to members
alone, whatever a tunnel says. No connection is tracked, for what is sent to all opens none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..decide import broadcast
from ..decide.decide import Origin
from ..model.model import Model
from ..model.objects import Address, Network, Pod, Subnet
from .family import FAMILIES, IPV4, IPV6, family, number
from .fields import (
    ETH_DST,
    ETH_SRC,
    IN_PORT,
    IP_PROTO,
    ORIGIN,
    SOURCE_GROUP,
    SOURCE_ZONE,
    UDP_DST,
    VNI,
    Bits,
    Field,
)
from .frame import BROADCAST_METER, TUNNEL_METER
from .messages import Action, Feature, Flow, Goto, Match, Set, ToController, UseMeter, flow, match
from .tables import Table

_Term = tuple[Field | Bits, int] | tuple[Field | Bits, int, int]
_GROUP_BIT = 1 << 40  # of an Ethernet address
_TO_ALL = (ETH_DST, _GROUP_BIT, _GROUP_BIT)
_IGMP, _UDP = 2, 17
_DHCP = ((IPV4, 67), (IPV4, 68), (IPV6, 546), (IPV6, 547))  # servers and clients of either family


class Broadcast(NamedTuple):
    """What a source group sends to all of its own in a network, as it entered this switch."""

    origin: Origin
    vni: int
    group: int


def is_to_all(model: Model, vni: int, frame: bytes, target: Address) -> bool:
    """Whether a frame of a network, as a tunnel brought it, is for all of a group: by its MAC and its IP address."""
    network = model.network_by_vni.get(vni)
    return bool(frame[0] & 1) and network is not None and broadcast.to_all(network, target)


def broadcast_frame(tunnel: int | None) -> Iterator[Flow]:
    """What is for all leaves the plan of pairs here; what a tunnel brings asks."""

    def static(table: Table, priority: int, matching: Match, *actions: Action) -> Flow:
        return flow(table, priority, matching, actions, Feature.FRAME, "frame")

    for block in broadcast.GROUPS:
        yield static(Table.PLAN, 150, match(_TO_ALL, *_in(block)), Goto(Table.BROADCAST))
    for ip, port in _DHCP:
        yield static(Table.PLAN, 160, match(_TO_ALL, ip.term, (IP_PROTO, _UDP), (UDP_DST, port)))
    if tunnel is not None:
        for ip in FAMILIES:
            asks = match((ORIGIN, Origin.TUNNEL), ip.term)
            yield static(Table.BROADCAST, 1, asks, UseMeter(TUNNEL_METER), ToController())


def broadcast_in_network(network: Network) -> Iterator[Flow]:
    """The addresses of a network's own that are for all."""
    for block in broadcast.blocks(network)[len(broadcast.GROUPS) :]:
        asked, then = match((VNI, network.vni), _TO_ALL, *_in(block)), (Goto(Table.BROADCAST),)
        yield flow(Table.PLAN, 150, asked, then, Feature.NETWORK, f"network {network.name}")


def broadcast_of_pod(pod: Pod, group: int, network: Network, port: int) -> Iterator[Flow]:
    """Let in what a pod sends to all from its own addresses, at no more than its meter's rate.

    Not what makes it the router or the DHCP server of the others, and what nobody needs: who listens to which group.
    """
    owner = f"pod {pod.key}"
    sender: tuple[_Term, ...] = ((IN_PORT, port), (ETH_SRC, number(pod.mac)), _TO_ALL)
    arrived = (Set(VNI, network.vni), Set(SOURCE_GROUP, group), Set(SOURCE_ZONE, port))
    for packed in pod.addresses:
        own: tuple[_Term, ...] = (*sender, family(packed).term, (family(packed).source, number(packed)))
        for block in broadcast.blocks(network):
            if len(block.address) == len(packed):
                target = (family(packed).target, number(block.address), family(packed).mask(block.prefix))
                actions = (UseMeter(BROADCAST_METER | port), *arrived, Goto(Table.PLAN))
                yield flow(Table.ADMISSION, 200, match(*own, target), actions, Feature.POD, owner)
    for ip, service in _DHCP:
        asked = match(*sender, ip.term, (IP_PROTO, _UDP), (UDP_DST, service))
        yield flow(Table.ADMISSION, 201, asked, (), Feature.DHCP, owner)
    listens = match(*sender, IPV4.term, (IP_PROTO, _IGMP))
    yield flow(Table.ADMISSION, 201, listens, (), Feature.POD, owner)
    for ip in FAMILIES:
        asks = match((ORIGIN, Origin.POD), (SOURCE_ZONE, port), ip.term)
        yield flow(Table.BROADCAST, 1, asks, (UseMeter(port), ToController()), Feature.POD, owner)


def _in(block: Subnet) -> tuple[_Term, ...]:
    ip = family(block.address)
    return (ip.term, (ip.target, number(block.address), ip.mask(block.prefix)))
