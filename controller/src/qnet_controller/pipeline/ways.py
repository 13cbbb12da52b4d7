# SPDX-License-Identifier: Apache-2.0
"""The flows that lead to a pod on another host, and that let in what comes from it.

They are functions of a few values alone, so they outlive changes of the model that do not concern them: where something
changes every second, a first packet would otherwise find everything forgotten.
"""

from __future__ import annotations

from functools import lru_cache

from ..decide.decide import Origin
from ..model.objects import Address
from .family import family, number
from .fields import IN_PORT, ORIGIN, SOURCE_GROUP, TUN_ID, VNI, whole
from .messages import Feature, Flow, Goto, Output, Set, flow, match
from .tables import Table

REMEMBERED = 1 << 15


@lru_cache(REMEMBERED)
def way(port: int, vtep: Address, vni: int, pod: str, address: Address, idle_seconds: int) -> Flow:
    """The way to an address of `pod` (its key): through the tunnel port to a VTEP."""
    ip, outer = family(address), family(vtep)
    return flow(
        Table.LOCATION,
        100,
        match((VNI, vni), (ORIGIN, Origin.POD), ip.term, (ip.target, number(address))),
        (Set(whole(outer.tunnel_target), number(vtep)), Set(whole(TUN_ID), vni), Output(port)),
        Feature.LOCATION,
        f"pod {pod}",
        idle=idle_seconds,
        notify=True,
    )


@lru_cache(REMEMBERED)
def identity(port: int, vtep: Address, vni: int, group: int, pod: str, address: Address, idle_seconds: int) -> Flow:
    """Who sends what comes from an address of `pod` (its key) through the tunnel port from a VTEP: group by number."""
    ip, outer = family(address), (family(vtep).tunnel_source, number(vtep))
    return flow(
        Table.ADMISSION,
        200,
        match((IN_PORT, port), outer, (TUN_ID, vni), ip.term, (ip.source, number(address))),
        (Set(VNI, vni), Set(SOURCE_GROUP, group), Set(ORIGIN, Origin.TUNNEL), Goto(Table.PLAN)),
        Feature.IDENTITY,
        f"pod {pod}",
        idle=idle_seconds,
        notify=True,
    )
