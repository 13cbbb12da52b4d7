# SPDX-License-Identifier: Apache-2.0
"""Packets that make a switch ask for the next hop to other hosts, before a pod's packet has to wait for the answer.

With its datapath in user space, Open vSwitch finds the next hop of a tunnel itself (ARP, neighbour discovery), and
loses the packet that made it ask: the first one, and the first after a quarter of an hour without any. These packets
ask in their place. They go through the tunnel; where one arrives, it ends in the first table, since it is no IP.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby

from ..model.objects import Address
from .family import family, number
from .fields import whole
from .messages import PORT_CONTROLLER, Action, Output, PacketOut, Set
from .parts import Parts

MOST_AT_ONCE = 64
"""VTEPs in one packet-out: Open vSwitch needs half a KiB of actions for each, and refuses more than 64 KiB."""
_ETHERTYPE = 0x88B5  # IEEE 802, for local experiments
_FRAME = bytes(12) + _ETHERTYPE.to_bytes(2, "big") + bytes(46)
_REMEMBERED = 1 << 11


def questions(parts: Parts) -> tuple[PacketOut, ...]:
    """What makes a switch ask for the next hop to every other host; nothing where the kernel sends tunnels."""
    here, port = parts.model.host_by_datapath.get(parts.datapath_id), parts.tunnel_port()
    if here is None or port is None or here.datapath_kind == "system":
        return ()
    return tuple(_questions(parts, port, here.vteps))


def _questions(parts: Parts, port: int, own: tuple[Address, ...]) -> Iterator[PacketOut]:
    vteps = {vtep for host in parts.model.hosts.values() if (vtep := parts.vtep(host)) is not None}
    for _, alike in groupby(sorted(vteps, key=lambda vtep: (len(vtep), vtep)), len):  # a packet has one kind of target
        listed = list(alike)
        for first in range(0, len(listed), MOST_AT_ONCE):  # the same ones on every switch, but for its own
            if others := tuple(vtep for vtep in listed[first : first + MOST_AT_ONCE] if vtep not in own):
                yield _question(port, others)


@lru_cache(_REMEMBERED)
def _question(port: int, vteps: tuple[Address, ...]) -> PacketOut:
    return PacketOut(_FRAME, PORT_CONTROLLER, tuple(_copies(port, vteps)))


def _copies(port: int, vteps: tuple[Address, ...]) -> Iterator[Action]:
    for vtep in vteps:
        yield Set(whole(family(vtep).tunnel_target), number(vtep))
        yield Output(port)
