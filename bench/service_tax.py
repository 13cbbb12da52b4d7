#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""P7: new connections per second through a Service IP and straight to its pod, warm, and what the switches pay for one.

Two hosts, the caller on one and the backend on the other, 8 connections in flight. Beside: OVN on two hosts of its own
(tracked connections, a load balancer on the switch); plain Open vSwitch (a learning bridge over a tunnel, no conntrack)
in the same processes as ours; and a DNAT map of nftables over a wire between two namespaces, which is the kernel's work
and no overlay's. CPU: of both ovs-vswitchd, user and system, per connection.

All connections are forgotten before each run. Open vSwitch 3.1 keeps the translated addresses of a closed connection in
use for up to half a minute, on the userspace datapath, with any control plane; a client that has been through all of
its ports by then finds them taken. `--reuse-ports` forgets nothing, and so measures that.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bench.ovn import OvnFleet, ovn_fleet
from bench.plain import NFT_SERVICE, PLAIN_SERVER, nftables_map, plain_ovs
from bench.pods import SERVICE_IP, Fleet, dotted, inside, one_service
from bench.report import Goal, Series, arguments, interleave, table

from policy.live import Vswitch as Host

CONNECTOR = Path(__file__).with_name("connector.py")
PORT, SECONDS, IN_FLIGHT, WARM_SECONDS = "8200", 1.4, 8, 0.3
TICKS = os.sysconf("SC_CLK_TCK")
OVN_SERVICE = "10.96.0.10"
GOALS = (
    Goal("Service IP", "pod IP", 0.9),
    Goal("Service IP", "OVN Service IP", 1.2),
    Goal("pod IP", "OVN pod IP", 1.2),
)
CPU_GOALS = (
    Goal("Service IP", "OVN Service IP", 1 / 1.2, at_least=False),
    Goal("pod IP", "OVN pod IP", 1 / 1.2, at_least=False),
)


@dataclass(frozen=True)
class Way:
    """How a contender connects: the client's namespace, the address, and the hosts whose switches carry it."""

    where: list[str]
    address: str
    hosts: tuple[Host, ...] = ()
    repair: Callable[[], None] | None = None


class Measure:
    """Rates of contenders, with the CPU seconds per connection of the last run of each in `cpu`."""

    def __init__(self, forget: bool) -> None:
        self.forget = forget
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

    @staticmethod
    def _switch_seconds(hosts: tuple[Host, ...]) -> float:
        total = 0.0
        for host in hosts:
            process = (host.directory / "vswitchd.pid").read_text().strip()
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / TICKS
        return total

    def _connect(self, where: list[str], address: str, seconds: float) -> tuple[int, int, float]:
        command = [*where, sys.executable, "-S", str(CONNECTOR), "rate", address, PORT, str(seconds), str(IN_FLIGHT)]
        done, failed, took = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        return done, failed, took

    def rate(self, name: str, way: Way) -> float:
        """Connections per second, after a while of warming up."""
        if way.repair:
            way.repair()
        if self.forget:
            for host in way.hosts:
                host.appctl("dpctl/flush-conntrack")
        self._connect(way.where, way.address, WARM_SECONDS)
        before = self._switch_seconds(way.hosts)
        done, failed, took = self._connect(way.where, way.address, SECONDS)
        if way.hosts:
            self.cpu.setdefault(name, []).append((self._switch_seconds(way.hosts) - before) / max(done, 1) * 1e6)
        if failed:
            print(f"  {name}: {failed} of {done} failed", file=sys.stderr)
        return (done - failed) / took


def main() -> None:
    """Measure all contenders in turn, and print."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--reuse-ports", action="store_true", help="do not forget connections before each run")
    chosen = parser.parse_args()
    measure = Measure(forget=not chosen.reuse_ports)
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        fleet = stack.enter_context(Fleet(Path(directory), one_service(["h2"], ["h1"]), ["h1", "h2"]))
        fleet.wait_until_ready()
        other = stack.enter_context(ovn_fleet(fleet))
        stack.callback(measure.stop)
        ways = {**ours(fleet, measure), **plain(fleet, measure), **ovn(other, measure), **kernel(fleet, measure)}
        time.sleep(1)  # the learning bridge and the tunnels' neighbours are there
        series = interleave({name: partial(measure.rate, name, way) for name, way in ways.items()}, chosen.rounds)
    print(table("new connections, warm, 8 in flight", "per second", series, GOALS))
    print(f"  ovs-vswitchd of OVN's hosts aborted {other.aborts} times and was started again")
    cpu = {name: Series(name, tuple(values)) for name, values in measure.cpu.items()}
    print(table("CPU of both switches", "µs per connection", cpu, CPU_GOALS))


def ours(fleet: Fleet, measure: Measure) -> dict[str, Way]:
    """Two pods of one group, one of them behind a Service IP."""
    measure.serve(inside(fleet, "a/s-1"))
    pod, hosts = dotted(fleet.world.pods["a/s-1"].address), tuple(fleet.hosts.values())
    caller = inside(fleet, "a/c-1")
    return {"Service IP": Way(caller, SERVICE_IP, hosts), "pod IP": Way(caller, pod, hosts)}


def ovn(fleet: OvnFleet, measure: Measure) -> dict[str, Way]:
    """The same with OVN, which tracks no connection of pods whose switch has no load balancer."""
    hosts, ways = tuple(fleet.hosts.values()), {}
    for name, block in (("OVN Service IP", "10.6"), ("OVN pod IP", "10.7")):
        switch, gateway, server = f"s{block}", f"{block}.0.1", f"{block}.2.1"
        fleet.add_switch(switch, gateway)
        caller = fleet.add_pod(f"oc{block}", switch, "o1", gateway, f"{block}.1.1")
        measure.serve(fleet.add_pod(f"os{block}", switch, "o2", gateway, server))
        ways[name] = Way(caller, server, hosts, fleet.revive)
    service = ways["OVN Service IP"]
    fleet.add_service("s10.6", OVN_SERVICE, PORT, service.address)
    fleet.central.sync()
    return ways | {"OVN Service IP": replace(service, address=OVN_SERVICE)}


def plain(fleet: Fleet, measure: Measure) -> dict[str, Way]:
    """A learning bridge."""
    client, server = plain_ovs(fleet, "h1", "h2")
    measure.serve(["ip", "netns", "exec", server])
    return {"plain OVS": Way(["ip", "netns", "exec", client], PLAIN_SERVER, tuple(fleet.hosts.values()))}


def kernel(fleet: Fleet, measure: Measure) -> dict[str, Way]:
    """A DNAT map, where the kernel has nftables."""
    try:
        client, server = nftables_map(fleet)
    except AssertionError as error:
        print(f"  without nftables: {error}", file=sys.stderr)
        return {}
    measure.serve(["ip", "netns", "exec", server])
    return {"nftables map": Way(["ip", "netns", "exec", client], NFT_SERVICE)}


if __name__ == "__main__":
    main()
