# SPDX-License-Identifier: Apache-2.0
"""What a switch holds before anybody asks: the frame, and what each of its pods needs."""

from __future__ import annotations

from ..model.model import HOSTS
from .broadcast import broadcast_frame, broadcast_of_pod
from .checks import answer_flow, target_of
from .frame import BROADCAST_METER, frame, pod_flows
from .outside import to_and_from_outside, way_out
from .parts import Parts
from .wanted import Local, Part, Program


def frame_program(parts: Parts) -> Program:
    """The flows that are the same whatever is intended."""
    program, tunnel = Program(depends={("switch", parts.datapath_id)}), parts.tunnel_port()
    program.add(*frame(tunnel), *broadcast_frame(tunnel), *way_out(parts.way_out()))
    return program


def local_program(parts: Parts, owner: Local) -> Program | None:
    """The flows of a pod of this switch; None when it is none."""
    model = parts.model
    pod = model.pods.get(owner.pod)
    location = model.location(pod) if pod else None
    if pod is None or location is None or location.datapath_id != parts.datapath_id:
        return None
    network, group = model.networks.get(pod.network), model.groups.get(pod.group)
    if network is None or group is None:
        return None
    host = model.host_by_datapath.get(parts.datapath_id)
    moves_ports = host is not None and host.datapath_kind == "system"
    program = Program(depends={("pod", pod.key), ("network", network.name), HOSTS})
    out = parts.way_out()
    if out is not None:
        program.add(*to_and_from_outside(pod, group.number, network, location.port, out))
        program.needs.add(Part("outside", (group.name,)))
    program.add(*pod_flows(pod, group.number, network, location, moves_ports, model.passages.spaces(network.name)))
    if group.broadcast:
        program.add(*broadcast_of_pod(pod, group.number, network, location.port))
        program.meters = (BROADCAST_METER | location.port,)
    program.needs.add(Part("network", (network.name,)))
    service, target = model.services.get(pod.service), target_of(pod, network)
    if service is not None and service.health is not None and target is not None:
        program.add(answer_flow(pod, location.port, target, service.health))
    return program
