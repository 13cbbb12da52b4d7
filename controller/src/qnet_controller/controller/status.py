# SPDX-License-Identifier: Apache-2.0
"""What /v1/status shows of the model and of the switches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..model.model import Model
from ..pipeline.outside import OUTSIDE_PORT_NAME
from . import names
from .health import Health
from .rotation import Rotation
from .switch import Switch


def model_counts(model: Model) -> dict[str, int]:
    """How many objects of each kind are intended."""
    return {
        "networks": len(model.networks),
        "hosts": len(model.hosts),
        "groups": len(model.groups),
        "services": len(model.services),
        "service_ips": len(model.service_ips),
        "pods": len(model.pods),
        "exports": len(model.exports),
        "egress_rules": sum(len(group.egress) for group in model.groups.values()),
    }


def fleet(model: Model, switches: list[dict[str, Any]], rotation: Rotation, health: Health) -> dict[str, Any]:
    """The parts that are about the fleet."""
    return {
        "model": model_counts(model),
        "switches": switches,
        "services": rotation.status(),
        "pods": pods(model, health),
    }


def switches(
    model: Model, connected: Mapping[int, Switch], master_for: Callable[[int], str | None]
) -> list[dict[str, Any]]:
    """One entry per host, by name; with the counts of its program where this controller is master."""
    return [
        _switch(model, connected, name) | {"elected": master_for(model.hosts[name].datapath_id)}
        for name in sorted(model.hosts)
    ]


def _switch(model: Model, connected: Mapping[int, Switch], name: str) -> dict[str, Any]:
    host = model.hosts[name]
    switch = connected.get(host.datapath_id)
    found: dict[str, Any] = {
        "host": name,
        "datapath_id": f"{host.datapath_id:016x}",
        "state": host.state,
        "connected": switch is not None,
        "role": switch.role_name if switch else None,
        "adopted": bool(switch and switch.adopted),
        "way_out": model.port_number(host.datapath_id, OUTSIDE_PORT_NAME) is not None,
    }
    program = switch.ready() if switch else None
    return found | (program.status() if program else {})


def pods(model: Model, health: Health) -> list[dict[str, Any]]:
    """One entry per pod, by key, with where it is and how it is."""
    return [_pod(model, key) | health.status(key) for key in sorted(model.pods)]


def _pod(model: Model, key: str) -> dict[str, Any]:
    pod = model.pods[key]
    location = model.location(pod)
    host = model.host_by_datapath.get(location.datapath_id) if location else None
    return {
        "pod": key,
        "service": pod.service,
        "network": pod.network,
        "addresses": [names.address_text(address) for address in pod.addresses],
        "host": host.name if host else None,
        "port": location.port if location else None,
        "live": bool(location and location.live),
        "in_rotation": model.in_rotation(pod),
    }
