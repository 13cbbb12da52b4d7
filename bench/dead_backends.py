#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""R5: how long, and how many, new connections to a Service IP fail after one of its backends is gone.

Three backends on three hosts, one caller at a constant rate. Gone by: its link going down, its process being killed,
its host freezing (the switch, OVN's agent and the pod get SIGSTOP, as a frozen control group would do to them). OVN
runs beside it, with the same interval and threshold of its checks, without policy.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from bench.ovn import OvnFleet, install, ovn_fleet
from bench.pods import SERVICE_IP, Agent, Fleet, inside, one_service, port_name
from bench.report import Series, arguments, number

LOAD = Path(__file__).with_name("steady_load.py")
VICTIM, VICTIM_HOST, CALLER = "a/s-2", "h2", "a/c-1"
OVN_HOST, OVN_NETWORK, OVN_SERVICE = "o2", "10.6", "10.96.0.10"
INTERVAL, THRESHOLD = 1.0, 2
CHECK = {"type": "tcp", "port": "80", "interval_seconds": f"{INTERVAL:g}", "timeout_seconds": "0.5",
         "healthy_threshold": "1", "unhealthy_threshold": str(THRESHOLD)}  # fmt: skip
RATE, PATIENCE, WARM_SECONDS, LOAD_SECONDS = 100, 0.4, 1.0, 6.0
BOUNDS = {"link down": 0.1, "process dead": INTERVAL * THRESHOLD, "host frozen": INTERVAL * THRESHOLD}
SILENCE_MILLISECONDS = 1200


@dataclass(frozen=True, slots=True)
class Outcome:
    """What callers noticed: seconds from the event to the last failure, and the share that failed until then."""

    seconds: float
    share: float
    later: float  # share that failed after the bound


class System(Protocol):
    """A Service IP with three backends, of which one can be lost."""

    caller: list[str]  # what a command begins with that runs in the caller's namespace
    address: str
    carrier: tuple[str, str]  # network namespace and name of the victim's interface on its host
    namespace: str  # of the victim
    victim: Agent

    def wait_for_all(self) -> None:
        """Wait until every backend is in rotation."""

    def of_host(self) -> list[int]:
        """Processes of the victim's host."""


class Ours:
    """qnet."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.caller, self.address = fleet, inside(fleet, CALLER), SERVICE_IP
        self.namespace = f"{fleet.prefix}{VICTIM.replace('/', '.')}"
        self.carrier = (fleet.hosts[VICTIM_HOST].namespace, port_name(VICTIM))

    @property
    def victim(self) -> Agent:
        """The backend that is lost."""
        return self.fleet.agents[VICTIM]

    @victim.setter
    def victim(self, agent: Agent) -> None:
        self.fleet.agents[VICTIM] = agent

    def wait_for_all(self) -> None:
        """Until the controller says so."""
        wanted = {"service": "a/s", "backends": ["a/s-1", "a/s-2", "a/s-3"], "all_down": False}
        patient(lambda: json.loads(self.fleet.api("/v1/status"))["services"], [wanted])

    def of_host(self) -> list[int]:
        """Open vSwitch; there is no agent."""
        return [int((self.fleet.hosts[VICTIM_HOST].directory / "vswitchd.pid").read_text())]


class Ovn:
    """OVN with the same checks, without policy."""

    def __init__(self, fleet: OvnFleet, stack: ExitStack) -> None:
        self.fleet, self.address = fleet, OVN_SERVICE
        fleet.add_switch("s", f"{OVN_NETWORK}.0.1")
        self.caller = fleet.add_pod("oc", "s", "o1", f"{OVN_NETWORK}.0.1", f"{OVN_NETWORK}.1.1")
        backends = {}
        for index, host in enumerate(fleet.hosts, 1):
            name, address = f"os{index}", f"{OVN_NETWORK}.2.{index}"
            fleet.add_pod(name, "s", host, f"{OVN_NETWORK}.0.1", address)
            backends[address] = name
            if host == OVN_HOST:
                self.namespace, self.carrier = f"{fleet.fleet.prefix}{name}", (fleet.hosts[host].namespace, name)
                self.victim = Agent(self.namespace, name)
            else:
                stack.callback(Agent(f"{fleet.fleet.prefix}{name}", name).stop)
        stack.callback(lambda: self.victim.stop())
        fleet.add_service("s", OVN_SERVICE, "80", *backends)
        check = {"interval": f"{INTERVAL:g}", "timeout": "1", "success_count": "1", "failure_count": str(THRESHOLD)}
        fleet.add_check(OVN_SERVICE, "80", f"{OVN_NETWORK}.0.2", backends, **check)
        fleet.central.sync()

    def wait_for_all(self) -> None:
        """Until its checks say so."""
        self.fleet.revive()
        patient(self.fleet.central.monitored, ["online"] * 3)
        self.fleet.central.sync()

    def of_host(self) -> list[int]:
        """Open vSwitch and OVN's agent."""
        pid = (self.fleet.hosts[OVN_HOST].directory / "vswitchd.pid").read_text()
        return [int(pid), self.fleet.agents[OVN_HOST].pid]


def patient(found: Callable[[], object], wanted: object) -> None:
    """Wait until something is as it should be."""
    end = time.monotonic() + 60
    while (now := found()) != wanted:
        if time.monotonic() > end:
            raise RuntimeError(f"the backends do not come back: {now}")
        time.sleep(0.2)


class Drill:
    """A system, on which a backend is lost again and again."""

    def __init__(self, fleet: Fleet, system: System) -> None:
        self.fleet, self.system = fleet, system

    def run(self, lose: Callable[[], None], bring_back: Callable[[], None], bound: float) -> Outcome:
        """Load, lose the backend meanwhile, and see."""
        self.system.wait_for_all()
        time.sleep(WARM_SECONDS)
        load = subprocess.Popen(
            [*self.system.caller, sys.executable, "-S", str(LOAD), self.system.address, "80",
             *map(str, (RATE, LOAD_SECONDS + WARM_SECONDS, PATIENCE))],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        time.sleep(WARM_SECONDS)
        lose()
        lost_at = time.monotonic()
        try:
            results = json.loads(load.communicate(timeout=60)[0])
        finally:
            bring_back()
        before = [well for began, well in results if began < lost_at - PATIENCE]
        if not before or not all(before):
            print(f"  {before.count(False)} of {len(before)} failed before the event", file=sys.stderr)
        after = [(began - lost_at, well) for began, well in results if began >= lost_at]
        last = max((when for when, well in after if not well), default=0.0)
        until = [well for when, well in after if when <= last]
        later = [well for when, well in after if when > bound]
        return Outcome(last, until.count(False) / max(len(until), 1), later.count(False) / max(len(later), 1))

    # -- ways to lose a backend ------------------------------------------------------------------------------------

    def link(self, state: str) -> None:
        """The backend's port loses its carrier, or has it again."""
        namespace, device = self.system.carrier
        self.fleet.ip(namespace, "link", "set", device, state)

    def kill(self) -> None:
        """The backend's process dies."""
        process = self.system.victim.process
        process.kill()
        process.wait()

    def start(self) -> None:
        """It runs again."""
        self.system.victim = Agent(self.system.namespace, VICTIM)

    def signal_host(self, what: signal.Signals) -> None:
        """Freeze or thaw every process of the host."""
        for process in (*self.system.of_host(), self.system.victim.process.pid):
            os.kill(process, what)


def main() -> None:
    """Run all three drills in turn, and print."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "")
    chosen = parser.parse_args()
    hosts = ["h1", "h2", "h3"]
    install()  # while there is a way out of here
    with tempfile.TemporaryDirectory() as directory:
        fleet = Fleet(Path(directory), one_service(hosts, hosts[:1]), hosts)
        fleet.configuration = f"[liveness]\nsilence_milliseconds = {SILENCE_MILLISECONDS}\n"
        found = drill(fleet, chosen.rounds)
    show(found, chosen.rounds)


def drill(fleet: Fleet, rounds: int) -> dict[str, list[Outcome]]:
    """All ways to lose a backend, a round each in turn, of both systems."""
    with fleet, ExitStack() as stack:
        fleet.wait_until_ready()
        fleet.change_service("a/s", health_check=["map", [list(item) for item in CHECK.items()]])
        peer = stack.enter_context(ovn_fleet(fleet, ("o1", OVN_HOST, "o3")))
        systems: dict[str, System] = {"qnet": Ours(fleet), "OVN": Ovn(peer, stack)}
        found: dict[str, list[Outcome]] = {f"{way}, {name}": [] for way in BOUNDS for name in systems}
        for turn in range(rounds):
            for name, system in systems.items():
                for way, (lose, bring_back) in ways_to_lose(Drill(fleet, system)).items():
                    outcome = Drill(fleet, system).run(lose, bring_back, BOUNDS[way])
                    found[f"{way}, {name}"].append(outcome)
                    print(f"  round {turn + 1}/{rounds}: {way}, {name}: {outcome}", file=sys.stderr, flush=True)
    return found


def ways_to_lose(on: Drill) -> dict[str, tuple[Callable[[], None], Callable[[], None]]]:
    """What loses a backend, and what brings it back."""
    freeze, thaw = (partial(on.signal_host, what) for what in (signal.SIGSTOP, signal.SIGCONT))
    return {
        "link down": (partial(on.link, "down"), partial(on.link, "up")),
        "process dead": (on.kill, on.start),
        "host frozen": (freeze, thaw),
    }


def show(found: dict[str, list[Outcome]], rounds: int) -> None:
    """The table."""
    print(f"dead backends: one of three, {RATE} new connections/s, checks every {INTERVAL:g} s, {THRESHOLD} to fail; ")
    print(f"median of {rounds} rounds (spread); load of the machine {os.getloadavg()[0]:.1f}")
    for name, outcomes in found.items():
        bound = BOUNDS[name.partition(",")[0]]
        seconds = Series(name, tuple(outcome.seconds for outcome in outcomes))
        shares = Series(name, tuple(outcome.share * 100 for outcome in outcomes))
        later = max(outcome.later for outcome in outcomes) * 100
        verdict = "" if name.endswith("OVN") else ": met" if later == 0 else ": MISSED"
        print(
            f"  {name:<18} last failure after {seconds} s, {shares} % failed until then, {number(later)} % after "
            f"{bound:g} s{verdict}"
        )


if __name__ == "__main__":
    main()
