# SPDX-License-Identifier: Apache-2.0
"""Pods that have come from another host: they may go on with the connections that others opened to them there.

The conntrack zone of such a pod is empty, so what it sends first looks like a new connection. It is let out as far as
answers could be, for as long as it makes use of that; the zone of whom it answers has the word, on the other host.
That is enough only where nothing is exported to the pod's group.
"""

from __future__ import annotations

from typing import NamedTuple

from ..decide.decide import Kind
from ..model.model import Model, Touches
from ..model.objects import Address, Pod
from ..model.placed import placed
from .family import family, number
from .fields import CT_NEW, KIND, SOURCE_ZONE, VNI
from .frame import state
from .messages import Feature, Goto, flow, match
from .tables import Table
from .wanted import Program


class Arrival(NamedTuple):
    """The demand that such a pod is, for each of its addresses."""

    vni: int
    address: Address


def arrivals(model: Model, datapath_id: int, touched: Touches) -> set[Arrival]:
    """The pods that have just come to a switch, going by what a change has touched."""
    found: set[Arrival] = set()
    for pod in placed(model, touched).came.get(datapath_id, ()):
        network = model.networks.get(pod.network)
        if network:
            found |= {Arrival(network.vni, address) for address in pod.addresses}
    return found


def arrival_program(model: Model, datapath_id: int, arrival: Arrival, idle_seconds: int) -> Program | None:
    """The program of an arrival; None when the pod is not there any more."""
    network = model.network_by_vni.get(arrival.vni)
    pod = model.owner.get((network.name, arrival.address)) if network else None
    location = model.location(pod) if isinstance(pod, Pod) else None
    if network is None or not isinstance(pod, Pod) or location is None or location.datapath_id != datapath_id:
        return None
    # To whom something is exported, the receiver lets in what might have been balanced: only the sender tells that from
    # a connection of its own to the pod, and here it could not. Such a pod has to be spoken to first.
    if model.exports_to.get(pod.group):
        return None
    program = Program()
    program.depends |= {("imports", pod.group)}
    program.depends |= {("address", (network.name, arrival.address)), ("network", network.name), ("pod", pod.key)}
    ip = family(arrival.address)
    speaks = match(
        (VNI, network.vni), (SOURCE_ZONE, location.port), (KIND, Kind.REPLIES), ip.term,
        (ip.source, number(arrival.address)), state(CT_NEW),
    )  # fmt: skip
    then = (Goto(Table.LOCATION),)
    program.add_root(
        flow(Table.STATE, 85, speaks, then, Feature.ARRIVED, f"pod {pod.key}", idle=idle_seconds, notify=True)
    )
    return program
