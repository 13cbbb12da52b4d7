# SPDX-License-Identifier: Apache-2.0
"""The small real fleet of the policy tests, for benches: namespaces as hosts, Open vSwitch, database, controller."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "controller" / "tests"))

from policy.live import Agent, Fleet, dotted, port_name
from policy.tenants import SERVICE_BLOCK, World

__all__ = ["SERVICE_BLOCK", "SERVICE_IP", "Agent", "Fleet", "World", "dotted", "inside", "one_service", "port_name"]

SERVICE_IP = dotted(SERVICE_BLOCK + 10)


def one_service(backends: list[str], callers: list[str]) -> World:
    """Service `a/s` with a pod on each host of `backends`; pods of `a/c`, of the same group, on those of `callers`."""
    world = World({"red": 100}, {"a": 1})
    world.services = {"a/s": "red", "a/c": "red"}
    world.service_ips = {"a/s:main": SERVICE_BLOCK + 10}
    for service, hosts in (("a/s", backends), ("a/c", callers)):
        for host in hosts:
            world.new_pod(service, host)
    return world


def inside(fleet: Fleet, pod: str) -> list[str]:
    """What a command begins with that runs in a pod's network namespace."""
    return ["ip", "netns", "exec", f"{fleet.prefix}{pod.replace('/', '.')}"]
