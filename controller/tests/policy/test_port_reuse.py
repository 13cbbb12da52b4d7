# SPDX-License-Identifier: Apache-2.0
"""A client port goes from the Service IP to the pod and back, while connections come and go beside it.

On the wire both ways have the same addresses and ports. `QNET_TEST_DATAPATH=system` runs this on the datapath of the
kernel, on a machine that has one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from contract.real import wait_for

from .live import Fleet, dotted
from .tenants import SERVICE_BLOCK, ExportPlan, World

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]
CHURN = Path(__file__).with_name("churn.py")
SERVICE_IP, PORT = dotted(SERVICE_BLOCK + 10), 8100
FIRST_PORT, TIMES = 20000, 20
PAUSE_SECONDS = 0.5
"""For both ends to close: on the userspace datapath two connections that look alike on the wire exclude each other."""
CHURN_SECONDS, IN_FLIGHT = 60, 8


def world() -> World:
    """Service a/s on h2, exported to b with its pod; on h1 the pod of b that is looked at, and one that churns."""
    made = World({"red": 100}, {"a": 1, "b": 2})
    made.services = {"a/s": "red", "b/u": "red"}
    made.service_ips = {"a/s:main": SERVICE_BLOCK + 10}
    for service, host in (("a/s", "h2"), ("b/u", "h1"), ("b/u", "h1")):
        made.new_pod(service, host)
    made.exports["a/s", "b"] = ExportPlan("a/s", "b", direct=True)
    return made


def start(fleet: Fleet, pod: str, *words: str) -> subprocess.Popen[str]:
    """Run a verb of churn.py in a pod."""
    namespace = f"{fleet.prefix}{pod.replace('/', '.')}"
    command = ["ip", "netns", "exec", namespace, sys.executable, "-S", str(CHURN), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def switches(fleet: Fleet) -> list[str]:
    """The process ids of ovs-vswitchd, by host."""
    return [(host.directory / "vswitchd.pid").read_text().strip() for host in fleet.hosts.values()]


def test_a_client_port_goes_from_the_service_ip_to_the_pod_and_back(tmp_path: Path) -> None:
    with Fleet(tmp_path, world(), ["h1", "h2"]) as fleet:
        fleet.wait_until_ready()
        pod = dotted(fleet.world.pods["a/s-1"].address)
        before = switches(fleet)
        server = start(fleet, "a/s-1", "serve", str(PORT))
        churning = None
        try:
            assert server.stdout
            assert server.stdout.readline() == "ready\n"
            ways = [f"{address}:{PORT}" for address in (SERVICE_IP, pod, SERVICE_IP)]
            churning = start(fleet, "b/u-2", "churn", str(CHURN_SECONDS), str(IN_FLIGHT), *ways[:2])
            looked_at = start(fleet, "b/u-1", "ports", str(FIRST_PORT), str(TIMES), str(PAUSE_SECONDS), *ways)
            results = json.loads(looked_at.communicate(timeout=120)[0])
            failed = [result for result in results if result[2] is None]
            assert len(results) == 3 * TIMES
            assert not failed
            connections, failures = json.loads(churning.communicate(timeout=CHURN_SECONDS + 30)[0])
            print(f"{connections} connections beside it, {failures} of them failed")
            assert connections > 100
            assert failures < connections / 100
        finally:
            for process in (server, churning):
                if process:
                    process.kill()
                    process.wait()
        wait_for(lambda: switches(fleet) == before, 1)
        for host in fleet.hosts.values():
            assert host.appctl("version"), "ovs-vswitchd has died"
            assert "EMER" not in (host.directory / "vswitchd.log").read_text()
