#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""R5: how long, and how many, new connections to a Service IP fail after one of its backends is gone.

Three backends on three hosts, one caller at a constant rate. Gone by: its link going down, its process being killed,
its host freezing (the switch and the pod get SIGSTOP, as a frozen control group would do to them).
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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.pods import SERVICE_IP, Agent, Fleet, inside, one_service, port_name
from bench.report import Series, arguments, number

LOAD = Path(__file__).with_name("steady_load.py")
VICTIM, VICTIM_HOST, CALLER = "a/s-2", "h2", "a/c-1"
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


class Drill:
    """One fleet, on which a backend is lost again and again."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    def status(self) -> dict[str, Any]:
        """What the controller says."""
        found: dict[str, Any] = json.loads(self.fleet.api("/v1/status"))
        return found

    def wait_for_all(self) -> None:
        """Wait until every backend is in rotation."""
        end = time.monotonic() + 60
        wanted = {"service": "a/s", "backends": ["a/s-1", "a/s-2", "a/s-3"], "all_down": False}
        while (found := self.status()["services"]) != [wanted]:
            if time.monotonic() > end:
                raise RuntimeError(f"the backends do not come back: {found}")
            time.sleep(0.2)

    def run(self, lose: Callable[[], None], bring_back: Callable[[], None], bound: float) -> Outcome:
        """Load, lose the backend meanwhile, and see."""
        self.wait_for_all()
        time.sleep(WARM_SECONDS)
        load = subprocess.Popen(
            [*inside(self.fleet, CALLER), sys.executable, "-S", str(LOAD), SERVICE_IP, "80",
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
        self.fleet.ip(self.fleet.hosts[VICTIM_HOST].namespace, "link", "set", port_name(VICTIM), state)

    def kill(self) -> None:
        """The backend's process dies."""
        process = self.fleet.agents[VICTIM].process
        process.kill()
        process.wait()

    def start(self) -> None:
        """It runs again."""
        self.fleet.agents[VICTIM] = Agent(f"{self.fleet.prefix}{VICTIM.replace('/', '.')}", VICTIM)

    def signal_host(self, what: signal.Signals) -> None:
        """Freeze or thaw every process of the host."""
        switch = int((self.fleet.hosts[VICTIM_HOST].directory / "vswitchd.pid").read_text())
        for process in (switch, self.fleet.agents[VICTIM].process.pid):
            os.kill(process, what)


def main() -> None:
    """Run all three drills in turn, and print."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "")
    chosen = parser.parse_args()
    hosts = ["h1", "h2", "h3"]
    with tempfile.TemporaryDirectory() as directory:
        fleet = Fleet(Path(directory), one_service(hosts, hosts[:1]), hosts)
        fleet.configuration = f"[liveness]\nsilence_milliseconds = {SILENCE_MILLISECONDS}\n"
        found = drill(fleet, chosen.rounds)
    show(found, chosen.rounds)


def drill(fleet: Fleet, rounds: int) -> dict[str, list[Outcome]]:
    """All ways to lose a backend, a round each in turn."""
    with fleet:
        fleet.wait_until_ready()
        fleet.change_service("a/s", health_check=["map", [list(item) for item in CHECK.items()]])
        on = Drill(fleet)
        freeze, thaw = (partial(on.signal_host, what) for what in (signal.SIGSTOP, signal.SIGCONT))
        ways: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
            "link down": (partial(on.link, "down"), partial(on.link, "up")),
            "process dead": (on.kill, on.start),
            "host frozen": (freeze, thaw),
        }
        found: dict[str, list[Outcome]] = {name: [] for name in ways}
        for turn in range(rounds):
            for name, way in ways.items():
                found[name].append(on.run(*way, BOUNDS[name]))
                print(f"  round {turn + 1}/{rounds}: {name}: {found[name][-1]}", file=sys.stderr, flush=True)
    return found


def show(found: dict[str, list[Outcome]], rounds: int) -> None:
    """The table."""
    print(f"dead backends: one of three, {RATE} new connections/s, checks every {INTERVAL:g} s, {THRESHOLD} to fail; ")
    print(f"median of {rounds} rounds (spread); load of the machine {os.getloadavg()[0]:.1f}")
    for name, outcomes in found.items():
        seconds = Series(name, tuple(outcome.seconds for outcome in outcomes))
        shares = Series(name, tuple(outcome.share * 100 for outcome in outcomes))
        later = max(outcome.later for outcome in outcomes) * 100
        met = later == 0
        print(
            f"  {name:<13} last failure after {seconds} s, {shares} % failed until then, {number(later)} % after "
            f"{BOUNDS[name]:g} s: {'met' if met else 'MISSED'}"
        )


if __name__ == "__main__":
    main()
