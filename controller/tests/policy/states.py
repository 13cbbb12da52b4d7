# SPDX-License-Identifier: Apache-2.0
"""A list of states that a fabric is put through, whatever order they come in: what counts is where it is now."""

from __future__ import annotations

from copy import deepcopy
from typing import cast

from qnet_controller.model import objects as o
from simulator.fabric import OUTSIDE_PORT, TUNNEL_PORT, Fabric

from .probe import Prober
from .tenants import World, objects, pod_object

EMPTY = World()


def snapshot(prober: Prober) -> World:
    """The world as it is; its pods know their hosts."""
    return deepcopy(prober.world)


def go_to(prober: Prober, state: World) -> None:
    """Change the running fabric from what it is to another state, intent at once and then the ports."""
    fabric = prober.fabric
    wanted = {(type(item), item.key): item for item in objects(state)}
    have = {place: item for place, item in fabric.intent.items() if place[0] is not o.Host}
    gone = [o.Removed(cast(type[o.Object], kind), key) for kind, key in have.keys() - wanted.keys()]
    fabric.apply([*gone, *(item for place, item in wanted.items() if have.get(place) != item)])
    _plug(fabric, {pod_object(pod).port_name: (pod_object(pod), pod.host) for pod in state.pods.values() if pod.host})
    prober.world = deepcopy(state)


def _plug(fabric: Fabric, wanted: dict[str, tuple[o.Pod, str]]) -> None:
    for node in fabric.nodes.values():
        for number, name in list(node.switch.ports.items()):
            if name not in (TUNNEL_PORT, OUTSIDE_PORT) and (name not in wanted or wanted[name][1] != node.name):
                fabric.pull(node, number)
    for pod, host in wanted.values():
        if pod.port_name not in fabric.nodes[host].switch.ports.values():
            fabric.plug(pod, host)
