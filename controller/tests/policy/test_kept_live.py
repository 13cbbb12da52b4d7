# SPDX-License-Identifier: Apache-2.0
"""Client affinity with real packets: who keeps a pod, who moves when it leaves, and that nobody moves back in time."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from .live import Fleet, dotted, port_name
from .tenants import IPV6, SERVICE_BLOCK, TCP, ExportPlan, World

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]
SECONDS, SETTLE_SECONDS = 8, 0.5
CALLS = 6
CLIENTS = 6


def kept_world(family: int) -> World:
    """Three pods of a/s on two hosts, six clients on the same two; clients keep their pod."""
    world = World({"red": 100}, {"a": 1, "b": 2})
    world.services = {"a/s": "red", "b/u": "red"}
    world.service_ips = {"a/s:main": family + SERVICE_BLOCK + 10}
    world.kept = {"a/s:main": SECONDS}
    for service, count in (("a/s", 3), ("b/u", CLIENTS)):
        for number in range(count):
            world.new_pod(service, ("h1", "h2")[number % 2], families=(family,))
    world.exports["a/s", "b"] = ExportPlan("a/s", "b")
    return world


def call(fleet: Fleet, address: int) -> dict[str, str]:
    """Who serves each client; every one of a few new connections must come to the same pod."""
    found = {}
    for number in range(1, CLIENTS + 1):
        answers = fleet.agents[f"b/u-{number}"].say(json.dumps([[dotted(address), TCP, 80]] * CALLS))
        servers = {answer and answer[0] for answer in answers}
        assert len(servers) == 1, f"b/u-{number} was served by {servers}"
        found[f"b/u-{number}"] = servers.pop()
    assert None not in found.values(), found
    return found


@pytest.mark.parametrize("family", [0, IPV6], ids=["IPv4", "IPv6"])
def test_clients_keep_their_pod_until_it_leaves(family: int, tmp_path: Path) -> None:
    world = kept_world(family)
    with Fleet(tmp_path, world, ["h1", "h2"]) as fleet:
        fleet.wait_until_ready()
        service = family + SERVICE_BLOCK + 10
        first = call(fleet, service)
        assert len(set(first.values())) > 1
        assert call(fleet, service) == first

        gone = world.pods[first["b/u-1"]]
        host = fleet.hosts[str(gone.host)]
        host.vsctl("del-port", "br-int", port_name(gone.key))
        fleet.ip(host.namespace, "link", "del", port_name(gone.key))
        time.sleep(SETTLE_SECONDS)
        then = call(fleet, service)
        assert gone.key not in then.values()
        stayed = {client: server for client, server in first.items() if server != gone.key}
        assert {client: then[client] for client in stayed} == stayed

        fleet.plug(gone)
        fleet.wait_until_ready()
        assert call(fleet, service) == then, "a client went back to a pod that had left"
        time.sleep(SECONDS + 2)
        assert gone.key in call(fleet, service).values(), "after its time nobody chose the pod that had come back"
