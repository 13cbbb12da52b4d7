#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Kill site.yml at random points on the lab, run it again, and compare: same state, then nothing to do, nobody noticed.

Usage: tests/drills/kills.py [--rounds N] [--connections N] [--seed N] [--keep]

The inventory changes from round to round (a pod, an export, a setting of the controllers), so that there is something
to interrupt everywhere. SIGKILL takes the play with all its processes; what it has started on hosts runs on.
Modules alone are killed by the tests of the collection: `QNET_KILLS=100 make test-modules`.
This drill has not been run yet.
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
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.drills import drill as drills  # noqa: E402
from tests.drills.plays import dump  # noqa: E402
from tests.e2e.fleet import Fleet, Play  # noqa: E402

LONGEST_SECONDS = 3600
PERIOD = 0.1
OF_HOST = (
    "ovs-vsctl --bare --columns=name,external_ids list Interface; ls /run/netns; cat /etc/qnet/controller.toml; "
    "readlink /opt/qnet/controller/current; sha256sum /etc/qnet/pki/host.pem; ls /etc/systemd/system; "
    "systemctl is-active ovs-vswitchd qnet-controller qnet-database qnet-underlay qnet-connections.socket"
)


def wish(number: int) -> dict[str, Any]:
    """Extra variables of a round: every other one wants a pod and an export less, and another setting."""
    tenants = [
        {"name": "drill", "security_groups": [
            {"name": "one", "services": [
                {"name": "caller", "network": "drill", "hosts": ["h1"]},
                {"name": "target", "network": "drill", "hosts": ["h2"],
                 "addresses": {"target-1": [f"10.30.1.{n}" for n in range(1, 251)]}},
            ]},
            {"name": "two", "services": [
                {"name": "caller", "network": "drill", "hosts": ["h1", "h2"], "replicas": 1 + number % 2},
            ]},
        ]},
    ]  # fmt: skip
    exports = [{"service": "one/target", "to": "two", "direct": True, "ports": ["udp/9999"] if number % 2 else []}]
    return {
        "qnet_tenants": tenants, "qnet_exports": exports, "controller_idle_timeout_seconds": 5 + number % 2,
    }  # fmt: skip


def state(fleet: Fleet) -> str:
    """A hash of everything that the play makes: the intent, and what of it is on the hosts."""
    parts = list(dump(fleet))
    for host in [*fleet.groups["controllers"], *fleet.groups["switches"]]:
        parts += sorted(fleet.run(host, "sh", "-c", f"({OF_HOST}) 2>/dev/null; true").splitlines())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def kill_at(fleet: Fleet, variables: dict[str, Any], seconds: float) -> bool:
    """Start the play and kill it after a while, with all its processes; whether it was still at work."""
    command = [
        "ansible-playbook", "playbooks/site.yml", "-i", str(drills.INVENTORY), "-i", str(fleet.hosts_file),
        "-e", json.dumps(variables),
    ]  # fmt: skip
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True, **quiet) as process:  # type: ignore[call-overload]
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return True
    return False


def whole(fleet: Fleet, variables: dict[str, Any]) -> tuple[Play, float]:
    """The play to its end, and how long it took."""
    began = time.monotonic()
    return fleet.play("site", drills.INVENTORY, **variables), time.monotonic() - began


def run(fleet: Fleet, rounds: int, seed: int) -> tuple[int, int]:
    """All rounds: how many were interrupted, and how many of all ended as they must."""
    chooser = random.Random(seed)
    states: dict[int, str] = {}
    longest = 0.0
    for parity in (1, 0):
        _, seconds = whole(fleet, wish(parity))
        states[parity], longest = state(fleet), max(longest, seconds)
    assert states[0] != states[1]
    interrupted = well = 0
    for number in range(1, rounds + 1):
        variables, at = wish(number), chooser.uniform(0, longest)
        killed = kill_at(fleet, variables, at)
        whole(fleet, variables)
        same = state(fleet) == states[number % 2]
        again, _ = whole(fleet, variables)
        interrupted += killed
        well += same and not again.changed
        print(
            f"round {number}: {'killed' if killed else 'had ended'} after {at:.1f} s; state "
            f"{'the same' if same else 'DIFFERS'}; second run changed {again.changed or 'nothing'}",
            flush=True,
        )
    return interrupted, well


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
        interrupted, well = run(fleet, options.rounds, options.seed)
        seen: dict[str, Any] = script.result()
    lost = sum(seconds is None for _, seconds in seen["flow"])
    print(
        f"{well} of {options.rounds} rounds reached the same state with nothing left to do; {interrupted} were killed "
        f"at work. Bystanders: {lost} of {len(seen['flow'])} datagrams lost, {len(seen['resets'])} of "
        f"{seen['connections']} connections broken"
    )
    return 0 if well == options.rounds and not lost and not seen["resets"] else 1


if __name__ == "__main__":
    sys.exit(main())
