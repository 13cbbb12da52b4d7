#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Kill plays at random points on the lab, run them again, and compare: same state, then nothing to do, nobody noticed.

Usage: tests/drills/kills.py [--rounds N] [--connections N] [--seed N] [--keep]

In every fourth round it is site.yml, in the others tenants.yml with pods.yml. The inventory changes from round to round
(pods, an export, with site.yml a setting of the controllers), so that there is something to interrupt everywhere.
SIGKILL takes the play with all its processes; what it has started on hosts runs on. Modules alone are killed by the
tests of the collection: `QNET_KILLS=100 make test-modules`. `make drill-kills` runs both.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.drills import drill as drills  # noqa: E402
from tests.drills.plays import dump  # noqa: E402
from tests.e2e.fleet import Fleet, Play  # noqa: E402

LONGEST_SECONDS = 3600
PERIOD = 0.1
SITE_EVERY = 4  # rounds
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
        }


class Killer:
    """A fleet, its plays, and the states that these reach when nobody disturbs them."""

    def __init__(self, fleet: Fleet, seed: int) -> None:
        self.fleet = fleet
        self.chooser = random.Random(seed)
        self.states: dict[Wish, str] = {}
        self.longest: dict[tuple[str, ...], float] = {}
        self.wish = Wish(more=False, setting=5)

    def whole(self, plays: tuple[str, ...]) -> Play:
        """The plays to their end."""
        began = time.monotonic()
        done = self.fleet.play(" ".join(plays), drills.INVENTORY, **self.wish.variables())
        self.longest[plays] = max(self.longest.get(plays, 0.0), time.monotonic() - began)
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
        at = self.chooser.uniform(0, self.longest[plays])
        command = [
            "ansible-playbook", *(f"playbooks/{name}.yml" for name in plays),
            "-i", str(drills.INVENTORY), "-i", str(self.fleet.hosts_file), "-e", json.dumps(self.wish.variables()),
        ]  # fmt: skip
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, cwd=ROOT, start_new_session=True, **quiet) as process:  # type: ignore[call-overload]
            try:
                process.wait(at)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                return at
        return None

    def round(self, number: int) -> tuple[bool, bool]:
        """One round: whether something was interrupted, and whether it ended as it must."""
        plays = SITE if number % SITE_EVERY == 0 else TENANTS
        self.wish = Wish(not self.wish.more, 11 - self.wish.setting if plays == SITE else self.wish.setting)
        at = self.kill(plays)
        self.whole(plays)
        same = self.state() == self.states[self.wish]
        again = self.whole(plays)
        fate = "had ended" if at is None else f"killed after {at:.1f} s"
        print(
            f"round {number}, {' and '.join(plays)}: {fate}; state {'the same' if same else 'DIFFERS'}; second run "
            f"changed {again.changed or 'nothing'}",
            flush=True,
        )
        return at is not None, same and not again.changed


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
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
        killer = Killer(fleet, options.seed)
        killer.learn()
        rounds = [killer.round(number) for number in range(1, options.rounds + 1)]
        seen: dict[str, Any] = script.result()
    interrupted, well = (sum(row[n] for row in rounds) for n in (0, 1))
    lost = sum(seconds is None for _, seconds in seen["flow"])
    print(
        f"{well} of {options.rounds} rounds reached the same state with nothing left to do; {interrupted} were killed "
        f"at work. Bystanders: {lost} of {len(seen['flow'])} datagrams lost, {len(seen['resets'])} of "
        f"{seen['connections']} connections broken"
    )
    return 0 if well == options.rounds and not lost and not seen["resets"] else 1


if __name__ == "__main__":
    sys.exit(main())
