# SPDX-License-Identifier: Apache-2.0
"""Clients that keep their pod: of a Service IP with an affinity that lasts for some seconds.

The first connection of a client asks, and a flow of the client's own sends its next ones to the same pod, whatever
other pods come and go, until none has been opened for so long. A pod that leaves the rotation leaves its clients free.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field

from ..decide.decide import Kind, addresses, backends
from ..model.model import Model
from ..model.objects import Address, Pod, ServiceIP
from .family import family, number
from .fields import CT_NEW, KIND, VNI
from .frame import state
from .messages import Feature, flow, match, object_hash
from .service import to_backend
from .tables import Table
from .wanted import Program

_PRIORITY = 60  # above the flow that chooses


@dataclass(frozen=True, slots=True)
class Kept:
    """A client of a Service IP and its `pod`, by the hash that cookies have; a client has one at a time."""

    vni: int
    address: Address
    client: Address
    pod: int = field(compare=False)


def lasts(model: Model, network: str, address: Address) -> ServiceIP | None:
    """The Service IP with an address, if its clients keep their pods for some seconds and it has any."""
    target = model.owner.get((network, address))
    if not isinstance(target, ServiceIP) or not target.affinity_seconds:
        return None
    return target if backends(model, target) else None


def chosen(model: Model, vni: int, address: Address, client: Address) -> Kept | None:
    """The pod that a client gets which has none; None when that is not for the controller to choose.

    By the highest random weight: of clients that choose anew, those of pods that stay mostly get the same ones.
    """
    network = model.network_by_vni.get(vni)
    target = lasts(model, network.name, address) if network else None
    if target is None:
        return None
    pods = [pod for pod in backends(model, target) if pod.weight]
    best = max(pods, key=lambda pod: (_score(client, pod), pod.key), default=None)
    return Kept(vni, address, client, _mark(best)) if best else None


def kept_program(model: Model, demand: Kept) -> Program | None:
    """The flow of a client; None when its pod takes no new connections any more."""
    network = model.network_by_vni.get(demand.vni)
    target = lasts(model, network.name, demand.address) if network else None
    if network is None or target is None:
        return None
    pod = next((pod for pod in backends(model, target) if _mark(pod) == demand.pod), None)
    if pod is None:
        return None
    ip = family(demand.address)
    ends = ((ip.source, number(demand.client)), (ip.target, number(demand.address)))
    asked = match((VNI, demand.vni), (KIND, Kind.SERVICE), ip.term, *ends, state(CT_NEW))
    then = (to_backend(addresses(pod, demand.address)[0]),)
    program = Program(depends={("address", (network.name, demand.address)), ("network", network.name)})
    program.depends.add(("backends", target.service))
    seconds = target.affinity_seconds
    program.add_root(
        flow(Table.SERVICE, _PRIORITY, asked, then, Feature.KEPT, _owner(pod), idle=seconds, notify=True)
    )  # fmt: skip
    return program


def _owner(pod: Pod) -> str:
    return f"pod {pod.key}"


def _mark(pod: Pod) -> int:
    return object_hash(_owner(pod))


def _score(client: Address, pod: Pod) -> float:
    digest = hashlib.blake2b(client + pod.key.encode(), digest_size=8).digest()
    return -pod.weight / math.log((int.from_bytes(digest, "big") + 0.5) / (1 << 64))
