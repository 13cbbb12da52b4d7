# SPDX-License-Identifier: Apache-2.0
"""The fixed world that promises are tested in, and what is done in it."""

from __future__ import annotations

from qnet_controller.model import objects as o
from qnet_controller.pipeline.demands import Settings
from simulator.conntrack import Datapath
from simulator.fabric import Fabric
from simulator.packets import packed

from .probe import Open, Prober
from .tenants import SERVICE_BLOCK, TCP, ExportPlan, World, export_object, objects, pod_object
from .test_simulated import HOSTS

SIP = SERVICE_BLOCK + 10
SIP_OF_B = SERVICE_BLOCK + 11


def build_scene(datapath: Datapath) -> Prober:
    """Group a: service s (two pods, Service IP), t (one pod). Group b: service u (Service IP) and v. c: one pod.

    a/s is exported to b for every protocol. Another network has pods at the same addresses.
    """
    world = World({"red": 100, "blue": 200}, {"a": 1, "b": 2, "c": 3, "x": 4})
    world.services = {"a/s": "red", "a/t": "red", "b/u": "red", "b/v": "red", "c/w": "red", "x/y": "blue"}
    world.service_ips = {"a/s:main": SIP, "b/u:main": SIP_OF_B}
    for service, host in (
        ("a/s", "h1"), ("a/s", "h2"), ("a/t", "h1"), ("b/u", "h1"), ("b/u", "h3"), ("b/v", "h3"), ("c/w", "h1"),
        ("x/y", "h1"), ("x/y", "h2"),
    ):  # fmt: skip
        world.new_pod(service, host)
    world.exports["a/s", "b"] = ExportPlan("a/s", "b")
    fabric = Fabric(HOSTS, Settings(), datapath)
    fabric.apply([o.Host(name, (packed(vtep),), dpid, datapath) for name, (dpid, vtep) in HOSTS.items()])
    fabric.open_outside()
    fabric.apply(objects(world))
    for pod in world.pods.values():
        assert pod.host
        fabric.plug(pod_object(pod), pod.host)
    return Prober(world, fabric)


def opened(prober: Prober, client: str, address: int, protocol: int = TCP, port: int | None = 80) -> Open:
    """A connection that must open."""
    found = prober.probe(prober.world.pods[client], address, protocol, port)
    assert found is not None
    return found


def revoke(prober: Prober, service: str, group: str) -> None:
    """Remove an export."""
    export = prober.world.exports.pop((service, group))
    prober.fabric.apply([o.Removed(o.Export, export_object(export).key)])


def grant(prober: Prober, export: ExportPlan) -> None:
    """Add or change an export."""
    prober.world.exports[export.service, export.to] = export
    prober.fabric.apply([export_object(export)])
