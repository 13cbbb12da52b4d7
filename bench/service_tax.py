#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""P7: new connections per second through a Service IP and straight to its pod, warm, and what the switches pay for one.

Two hosts, the caller on one and the backend on the other, 8 connections in flight. Beside: plain Open vSwitch (a
learning bridge over a tunnel, no conntrack) in the same processes, and a DNAT map of nftables over a wire between two
namespaces, which is the kernel's work and no overlay's. CPU: of both ovs-vswitchd, user and system, per connection.
OVN is not run here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.plain import NFT_SERVICE, PLAIN_SERVER, nftables_map, plain_ovs
from bench.pods import SERVICE_IP, Fleet, dotted, inside, one_service
from bench.report import Goal, Series, arguments, interleave, table

CONNECTOR = Path(__file__).with_name("connector.py")
PORT, SECONDS, IN_FLIGHT, WARM_SECONDS = "8200", 3.0, 8, 1.0
TICKS = os.sysconf("SC_CLK_TCK")
GOALS = (Goal("Service IP", "pod IP", 0.9),)


class Measure:
    """Rates of contenders, with the CPU seconds per connection of the last run of each in `cpu`."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.cpu: dict[str, list[float]] = {}
        self._servers: list[subprocess.Popen[str]] = []

    def serve(self, where: list[str]) -> None:
        """Start a server."""
        server = subprocess.Popen([*where, sys.executable, "-S", CONNECTOR, "serve", PORT], stdout=subprocess.PIPE,
                                  text=True, start_new_session=True)  # fmt: skip
        self._servers.append(server)
        assert server.stdout
        if server.stdout.readline() != "ready\n":
            raise RuntimeError("a server did not start")

    def stop(self) -> None:
        """End the servers, with what they forked."""
        for server in self._servers:
            os.killpg(server.pid, 9)
            server.wait()

    def _switch_seconds(self) -> float:
        total = 0.0
        for host in self.fleet.hosts.values():
            process = (host.directory / "vswitchd.pid").read_text().strip()
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / TICKS
        return total

    def _connect(self, where: list[str], address: str, seconds: float) -> tuple[int, int, float]:
        command = [*where, sys.executable, "-S", str(CONNECTOR), "rate", address, PORT, str(seconds), str(IN_FLIGHT)]
        done, failed, took = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        return done, failed, took

    def rate(self, name: str, where: list[str], address: str) -> float:
        """Connections per second, after a while of warming up."""
        self._connect(where, address, WARM_SECONDS)
        before = self._switch_seconds()
        done, failed, took = self._connect(where, address, SECONDS)
        self.cpu.setdefault(name, []).append((self._switch_seconds() - before) / max(done, 1) * 1e6)
        if failed:
            print(f"  {name}: {failed} of {done} failed", file=sys.stderr)
        return (done - failed) / took


def main() -> None:
    """Measure all contenders in turn, and print."""
    chosen = arguments(__doc__.splitlines()[0] if __doc__ else "").parse_args()
    with tempfile.TemporaryDirectory() as directory:
        fleet = Fleet(Path(directory), one_service(["h2"], ["h1"]), ["h1", "h2"])
        with fleet:
            fleet.wait_until_ready()
            measure = Measure(fleet)
            try:
                series = interleave(contenders(fleet, measure), chosen.rounds)
            finally:
                measure.stop()
    print(table("new connections, warm, 8 in flight", "per second", series, GOALS))
    cpu = {name: Series(name, tuple(values)) for name, values in measure.cpu.items() if any(values)}
    cpu.pop("nftables map", None)
    print(table("CPU of both switches", "µs per connection", cpu))


def contenders(fleet: Fleet, measure: Measure) -> dict[str, Callable[[], float]]:
    """Every way to connect, each with its server."""
    pod = dotted(fleet.world.pods["a/s-1"].address)
    measure.serve(inside(fleet, "a/s-1"))
    client, server = plain_ovs(fleet, "h1", "h2")
    measure.serve(["ip", "netns", "exec", server])
    ways = {
        "Service IP": (inside(fleet, "a/c-1"), SERVICE_IP),
        "pod IP": (inside(fleet, "a/c-1"), pod),
        "plain OVS": (["ip", "netns", "exec", client], PLAIN_SERVER),
    }
    try:
        kernel_client, kernel_server = nftables_map(fleet)
        measure.serve(["ip", "netns", "exec", kernel_server])
        ways["nftables map"] = (["ip", "netns", "exec", kernel_client], NFT_SERVICE)
    except AssertionError as error:
        print(f"  without nftables: {error}", file=sys.stderr)
    time.sleep(1)  # the learning bridge and the tunnel's neighbour are there
    return {name: partial(measure.rate, name, *way) for name, way in ways.items()}


if __name__ == "__main__":
    main()
