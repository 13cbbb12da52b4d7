#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""P2, connects: what the first connection of a pair takes between pods of two hosts, and what a warm one takes.

Every round calls a service, and a pod, that nobody has called before, so that somebody has to ask. Beside: OVN on two
hosts of its own, where every round calls a load balancer, and an address, that nobody has called; plain Open vSwitch (a
learning bridge over a tunnel) in the same processes as ours. Printed as well: how many packets a first connection sent
to the controller; at most 2 are the goal, and no more time than OVN takes, although ours asks.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.ovn import OvnFleet, ovn_fleet
from bench.plain import PLAIN_SERVER, plain_ovs
from bench.pods import SERVICE_BLOCK, SERVICE_IP, Fleet, World, dotted, inside, one_service
from bench.report import arguments, number

CONNECTOR = Path(__file__).with_name("connector.py")
PORT, PAUSE_SECONDS, WARM_CONNECTS = "80", 0.5, 60
OVN_BLOCK = "10.6"


def times(where: list[str], address: str, count: int, pause: float) -> list[float]:
    """Milliseconds of single connections, one after the other."""
    command = [*where, sys.executable, "-S", str(CONNECTOR), "times", address, PORT, str(count), str(pause)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    if None in found:
        raise RuntimeError(f"a connection to {address} failed")
    return [seconds * 1000 for seconds in found]


def serve(where: list[str]) -> subprocess.Popen[str]:
    """A server that accepts and closes."""
    command = [*where, sys.executable, "-S", str(CONNECTOR), "serve", PORT]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert server.stdout
    server.stdout.readline()
    return server


def line(name: str, values: list[float], asked: float | None = None) -> str:
    """Median and 99th percentile, and the packets that asked."""
    ordered = sorted(values)
    worst = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    packets = "" if asked is None else f", {number(asked)} packet-ins a connection"
    return f"  {name:<22} p50 {number(statistics.median(values))}, p99 {number(worst)} ({len(values)}){packets}"


def world(rounds: int) -> World:
    """For every round a service to be called by its Service IP, and one whose pod is called; all pods are on h2."""
    made = one_service(["h2"], ["h1"])
    for turn in range(rounds):
        for way in ("vip", "pod"):
            made.services[f"a/{way}{turn}"] = "red"
            made.new_pod(f"a/{way}{turn}", "h2")
        made.service_ips[f"a/vip{turn}:main"] = SERVICE_BLOCK + 20 + turn
    return made


class Other:
    """OVN: its caller, and the addresses that a round calls."""

    def __init__(self, fleet: OvnFleet, rounds: int) -> None:
        gateway = f"{OVN_BLOCK}.0.1"
        fleet.add_switch("red", gateway)
        self.caller = fleet.add_pod("oc", "red", "o1", gateway, f"{OVN_BLOCK}.1.1")
        servers = [f"{OVN_BLOCK}.2.{number}" for number in range(1, 2 * rounds + 3)]
        self.servers = [fleet.add_pod(f"os{turn}", "red", "o2", gateway, one) for turn, one in enumerate(servers)]
        self.pods, behind = servers[: rounds + 1], servers[rounds + 1 :]
        self.services = [f"10.96.1.{number}" for number in range(1, rounds + 2)]
        for service, pod in zip(self.services, behind, strict=True):
            fleet.add_service("red", service, PORT, pod)
        fleet.central.sync()


def measure(fleet: Fleet, other: Other, rounds: int) -> list[str]:
    """All ways, first and warm, interleaved."""
    caller = inside(fleet, "a/c-1")
    client, server = plain_ovs(fleet, "h1", "h2")
    plain, servers = ["ip", "netns", "exec", client], list[subprocess.Popen[str]]()
    first: dict[str, list[float]] = {name: [] for name in ("Service IP", "pod IP", "OVN Service IP", "OVN pod IP")}
    warm: dict[str, list[float]] = {name: [] for name in (*first, "plain OVS")}
    asked = dict.fromkeys(("Service IP", "pod IP"), 0)
    try:
        # Hosts find each other once: a tunnel's first packet waits for ARP of the underlay, with any control plane.
        servers += map(serve, (["ip", "netns", "exec", server], *other.servers))
        known = [(caller, SERVICE_IP), (plain, PLAIN_SERVER), (other.caller, other.pods[-1])]
        for where, address in (*known, (other.caller, other.services[-1])):
            times(where, address, 1, 0)
        for turn in range(rounds):
            pod = fleet.world.pods[f"a/pod{turn}-1"]
            for name, where, address in (
                ("Service IP", caller, dotted(SERVICE_BLOCK + 20 + turn)),
                ("OVN Service IP", other.caller, other.services[turn]),
                ("pod IP", caller, dotted(pod.address)),
                ("OVN pod IP", other.caller, other.pods[turn]),
            ):
                before = fleet.asked()
                first[name] += times(where, address, 1, PAUSE_SECONDS)
                if name in asked:
                    asked[name] += fleet.asked() - before
                warm[name] += times(where, address, WARM_CONNECTS // rounds + 1, 0.01)[1:]
            warm["plain OVS"] += times(plain, PLAIN_SERVER, WARM_CONNECTS // rounds + 1, 0.01)[1:]
            print(f"  round {turn + 1}/{rounds}", file=sys.stderr, flush=True)
    finally:
        for serving in servers:
            os.killpg(serving.pid, 9)
            serving.wait()
    return [
        *(line(f"{name}, first", first[name], asked[name] / rounds if name in asked else None) for name in first),
        *(line(f"{name}, warm", values) for name, values in warm.items()),
    ]


def main() -> None:
    """Measure and print."""
    chosen = arguments(__doc__.splitlines()[0] if __doc__ else "", rounds=10).parse_args()
    with (
        tempfile.TemporaryDirectory() as directory,
        Fleet(Path(directory), world(chosen.rounds), ["h1", "h2"]) as fleet,
        ovn_fleet(fleet) as other,
    ):
        fleet.wait_until_ready()
        lines = measure(fleet, Other(other, chosen.rounds), chosen.rounds)
    print(f"connects across two hosts: ms, {chosen.rounds} rounds; load of the machine {os.getloadavg()[0]:.1f}")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
