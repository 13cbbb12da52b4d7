#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Kill plays at random points on the lab, run them again, and compare: same state, then nothing to do, nobody noticed.

Usage: tests/drills/kills.py [--rounds N] [--kills N] [--site-every N] [--minutes N] [--connections N] [--seed N]
       [--keep]

In every fourth round it is site.yml, in the others tenants.yml with pods.yml. The inventory changes from round to round
(pods, an export, with site.yml a setting of the controllers), so that there is something to interrupt everywhere. With
--kills the play of a round is killed several times, each time at another point, before it may run to its end; that is
the quicker way to many points. A play that had ended before its point is started once more with another point.
SIGKILL takes the play with all its processes; what it has started on hosts runs on. Modules alone are killed by the
tests of the collection: `QNET_KILLS=100 make test-modules`. `make drill-kills` runs both.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.drills import drill as drills  # noqa: E402
from tests.drills.plays import dump  # noqa: E402
from tests.e2e.fleet import Fleet, Play  # noqa: E402

LONGEST_SECONDS = 4 * 3600
PERIOD = 0.1
TRIES = 3  # to interrupt a play that has been quicker than it was before
# Its counters of what it drops, but for the one that has each packet which goes to the controller.
DROPPED = re.compile(r"^(?!datapath_drop_userspace_action_error)(\S*drop\S*) .* total: (\d+)$", re.MULTILINE)
SITE, TENANTS = ("site",), ("tenants", "pods")
OF_HOST = (
    "ovs-vsctl --bare --columns=name,external_ids list Interface; ls /run/netns; cat /etc/qnet/controller.toml; "
    "readlink /opt/qnet/controller/current; sha256sum /etc/qnet/pki/host.pem; ls /etc/systemd/system; "
    "systemctl is-active ovs-vswitchd qnet-controller qnet-database qnet-underlay qnet-connections.socket"
)


@dataclass(frozen=True)
class Wish:
    """What the inventory of a round says: three pods of a service or one, the ports of an export, a setting."""

    more: bool
    setting: int

    def variables(self) -> dict[str, Any]:
        """Extra variables. The bystanders of all drills are in them, always the same."""
        target = {"target-1": [f"10.30.1.{n}" for n in range(1, 251)]}
        replicas = 3 if self.more else 1
        services = {
            "one": [
                {"name": "caller", "network": "drill", "hosts": ["h1"]},
                {"name": "target", "network": "drill", "hosts": ["h2"], "addresses": target},
            ],
            "two": [{"name": "caller", "network": "drill", "hosts": ["h1"]}],
            "three": [
                {
                    "name": "spare",
                    "network": "drill",
                    "hosts": ["h1", "h2"],
                    "replicas": replicas,
                    "addresses": {f"spare-{n}": [f"10.30.2.{n}"] for n in range(1, replicas + 1)},
                },
            ],
        }
        groups = [{"name": name, "services": rows} for name, rows in services.items()]
        return {
            "qnet_tenants": [{"name": "drill", "security_groups": groups}],
            "qnet_exports": [
                {"service": "one/target", "to": "two", "direct": True},
                {
                    "service": "three/spare",
                    "to": "two",
                    "direct": True,
                    "ports": ["udp/9999" if self.more else "tcp/80"],
                },
            ],
            "controller_idle_timeout_seconds": self.setting,
            "pods_grace_seconds": 1,
        }


def kill_tree(root: int) -> None:
    """SIGKILL to a process and all that come from it: Ansible's workers have sessions, so groups, of their own."""
    os.kill(root, signal.SIGSTOP)  # it makes no more of them
    listed = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(pid): int(parent) for pid, parent in (line.split() for line in listed.splitlines())}
    found = [root]
    for one in found:
        found += [pid for pid, parent in parents.items() if parent == one]
    for one in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


class Killer:
    """A fleet, its plays, and the states that these reach when nobody disturbs them."""

    def __init__(self, fleet: Fleet, seed: int, site_every: int) -> None:
        self.fleet = fleet
        self.site_every = site_every
        self.chooser = random.Random(seed)
        self.states: dict[Wish, str] = {}
        self.lasted: dict[tuple[str, ...], float] = {}  # the last time that nobody disturbed them
        self.wish = Wish(more=False, setting=5)

    def whole(self, plays: tuple[str, ...]) -> Play:
        """The plays to their end."""
        began = time.monotonic()
        done = self.fleet.play(" ".join(plays), drills.INVENTORY, **self.wish.variables())
        self.lasted[plays] = time.monotonic() - began
        return done

    def state(self) -> str:
        """A hash of everything that the plays make: the intent, and what of it is on the hosts."""
        parts = list(dump(self.fleet))
        for host in [*self.fleet.groups["controllers"], *self.fleet.groups["switches"]]:
            parts += sorted(self.fleet.run(host, "sh", "-c", f"({OF_HOST}) 2>/dev/null; true").splitlines())
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def learn(self) -> None:
        """All wishes in turn, undisturbed."""
        for setting in (5, 6):
            for more in (True, False):
                self.wish = Wish(more, setting)
                self.whole(SITE if more else TENANTS)
                self.states[self.wish] = self.state()
        assert len(set(self.states.values())) == len(self.states), "some wishes cannot be told apart"

    def kill(self, plays: tuple[str, ...]) -> float | None:
        """Start the plays and kill them after a while, with all their processes; when, or None: they had ended."""
        at = self.chooser.uniform(0, self.lasted[plays])
        command = [
            "ansible-playbook", *(f"playbooks/{name}.yml" for name in plays),
            "-i", str(drills.INVENTORY), "-i", str(self.fleet.hosts_file), "-e", json.dumps(self.wish.variables()),
        ]  # fmt: skip
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, cwd=ROOT, start_new_session=True, **quiet) as process:  # type: ignore[call-overload]
            try:
                process.wait(at)
            except subprocess.TimeoutExpired:
                kill_tree(process.pid)
                return at
        return None

    def kill_surely(self, plays: tuple[str, ...]) -> float | None:
        """As kill; plays that had ended are started again."""
        return next((at for _ in range(TRIES) if (at := self.kill(plays)) is not None), None)

    def round(self, number: int, kills: int) -> tuple[int, bool]:
        """One round: how often the plays were interrupted, and whether it ended as it must."""
        plays = SITE if number % self.site_every == 0 else TENANTS
        self.wish = Wish(not self.wish.more, 11 - self.wish.setting if plays == SITE else self.wish.setting)
        began, before = time.monotonic(), dropped(self.fleet)
        times = [at for _ in range(kills) if (at := self.kill_surely(plays)) is not None]
        phases = [time.monotonic() - began]
        self.whole(plays)
        phases.append(time.monotonic() - began)
        same = self.state() == self.states[self.wish]
        again = self.whole(plays)
        phases.append(time.monotonic() - began)
        more = Counter(dropped(self.fleet)) - Counter(before)
        fate = f"killed after {', '.join(f'{at:.1f}' for at in times)} s" if times else "had ended"
        print(
            f"round {number}, {' and '.join(plays)}: {fate}; state {'the same' if same else 'DIFFERS'}; second run "
            f"changed {again.changed or 'nothing'}; the last kill, the whole play and the second run had ended after "
            f"{', '.join(f'{at:.0f}' for at in phases)} s; Open vSwitch dropped "
            f"{', '.join(f'{n} {name}' for name, n in sorted(more.items())) or 'nothing'}",
            flush=True,
        )
        return len(times), same and not again.changed


def dropped(fleet: Fleet) -> dict[str, int]:
    """What the switches have dropped since they were started: Open vSwitch's own counters, by host and name."""
    found = {}
    for host in fleet.groups["switches"]:
        for name, total in DROPPED.findall(fleet.run(host, "ovs-appctl", "coverage/show")):
            found[f"{host} {name}"] = int(total)
    return found


def when_lost(flow: list[tuple[float, float | None]], begun: list[float]) -> list[str]:
    """In which rounds datagrams were lost, whose, and when: after the round had begun, and by the machine's clock."""
    lost: dict[int, list[tuple[float, int]]] = {}
    for index, (sent, seconds) in enumerate(flow):
        if seconds is None:
            lost.setdefault(bisect.bisect(begun, sent), []).append((sent, index % len(drills.CALLERS)))
    lines = []
    for number, found in sorted(lost.items()):
        since = begun[number - 1] if number else flow[0][0]
        whose = Counter(drills.CALLERS[caller].name for _, caller in found)
        first, last = found[0][0], found[-1][0]
        lines.append(
            f"round {number}: {len(found)} datagrams lost ({', '.join(f'{n} of {who}' for who, n in whose.items())}), "
            f"{first - since:.2f} to {last - since:.2f} s after it had begun, {first:.3f} to {last:.3f}"
        )
    return lines


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--kills", type=int, default=1, help="times that the play of a round is killed (default: 1)")
    parser.add_argument("--site-every", type=int, default=4, help="rounds, of which one is site.yml's (default: 4)")
    parser.add_argument("--minutes", type=float, default=180, help="no round begins after so many (default: 180)")
    parser.add_argument("--connections", type=int, default=50, help="open connections of bystanders (default: 50)")
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--keep", action="store_true", help="the lab is up and has the drills' inventory already")
    options = parser.parse_args()
    fleet = Fleet(os.environ.get("QNET_LAB", "qnet"))
    if not options.keep:
        subprocess.run([ROOT / "lab" / "lab", "up"], check=True, stdin=subprocess.DEVNULL)
        fleet.play("site", drills.INVENTORY)
    drills.install(fleet)
    with drills.target(fleet), drills.caller(fleet, LONGEST_SECONDS, options.connections, PERIOD) as script:
        killer = Killer(fleet, options.seed, options.site_every)
        killer.learn()
        end = time.monotonic() + 60 * options.minutes
        rounds: list[tuple[int, bool]] = []
        begun: list[float] = []
        while len(rounds) < options.rounds and time.monotonic() < end:
            begun.append(time.monotonic())
            rounds.append(killer.round(len(rounds) + 1, options.kills))
        seen: dict[str, Any] = script.result()
    killed, well = sum(times for times, _ in rounds), sum(right for _, right in rounds)
    lost = sum(seconds is None for _, seconds in seen["flow"])
    for line in when_lost(seen["flow"], begun):
        print(line)
    print(
        f"{well} of {len(rounds)} rounds reached the same state with nothing left to do; plays were killed at work "
        f"{killed} times. Bystanders: {lost} of {len(seen['flow'])} datagrams lost, {len(seen['resets'])} of "
        f"{seen['connections']} connections broken"
    )
    return 0 if well == len(rounds) > 0 and not lost and not seen["resets"] else 1


if __name__ == "__main__":
    sys.exit(main())
