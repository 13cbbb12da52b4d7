# SPDX-License-Identifier: Apache-2.0
"""Who gets what a group sends to all of its own: the flow that makes the copies."""

from __future__ import annotations

from collections.abc import Iterator

from ..decide import broadcast
from ..decide.decide import Origin
from ..model.model import HOSTS
from ..model.objects import Pod
from .broadcast import Broadcast
from .family import family, number
from .fields import ETH_SRC, ORIGIN, SOURCE_GROUP, TUN_ID, VNI, whole
from .frame import VIRTUAL_MAC
from .messages import Action, Feature, Output, Set, flow, match
from .parts import Parts
from .tables import Table
from .wanted import Program


def broadcast_program(parts: Parts, demand: Broadcast) -> Program | None:
    """To whom it goes; None when there is no such network or group any more."""
    settings, model = parts.settings, parts.model
    network, group = model.network_by_vni.get(demand.vni), model.group_by_number.get(demand.group)
    if network is None or group is None:
        return None
    program = Program(depends={*broadcast.depends(model, network.name, group), HOSTS})
    asked = match((VNI, demand.vni), (ORIGIN, demand.origin), (SOURCE_GROUP, demand.group))
    owner, pods = f"group {group.name}", broadcast.members(model, network.name, group)
    if pods is None:
        seconds = settings.drop_timeout_seconds
        root = flow(Table.BROADCAST, 100, asked, (), Feature.REFUSED, owner, hard=seconds, notify=True)
    else:
        actions = tuple(_copies(parts, demand, pods))
        idle = settings.idle_timeout_seconds
        root = flow(Table.BROADCAST, 100, asked, actions, Feature.BROADCAST, owner, idle=idle, notify=True)
    program.add_root(root)
    return program


def _copies(parts: Parts, demand: Broadcast, pods: list[Pod]) -> Iterator[Action]:
    """One copy for each member here but the sender, whose port is left out by itself, and one for each other host."""
    places = [place for pod in pods if (place := parts.model.location(pod)) is not None]
    yield Set(whole(ETH_SRC), VIRTUAL_MAC)
    yield from map(Output, sorted({place.port for place in places if place.datapath_id == parts.datapath_id}))
    tunnel = parts.tunnel_port()
    if demand.origin is Origin.TUNNEL or tunnel is None:
        return
    yield Set(whole(TUN_ID), demand.vni)
    for datapath_id in sorted({place.datapath_id for place in places} - {parts.datapath_id}):
        host = parts.model.host_by_datapath.get(datapath_id)
        vtep = parts.vtep(host) if host else None
        if vtep is not None:
            yield Set(whole(family(vtep).tunnel_target), number(vtep))
            yield Output(tunnel)
