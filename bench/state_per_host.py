#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""P8: what one host holds for 3,000 services and 3,000 exports of which 1 % are in use, beside OVN with the same.

Ours: real Open vSwitch on two hosts, the real database and controller; a pod of one host has called 30 services whose
pods are on the other. OVN: one host with a pod, 3,000 load balancers and 3,000 ACLs. It installs everything at once,
whoever calls whom, so nobody calls there. Counted are the OpenFlow flows and groups of the caller's host, and the
memory of the control processes of a host: OVN's is ovn-controller, and ours has none. Goal: 1/50 of the flows.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "controller" / "tests"))

from bench import report
from bench.ovn import Ovn, ovn
from bench.pods import SERVICE_BLOCK, Fleet, World, dotted
from bench.service_change import Crowd

from policy.revocation import Intent
from policy.tenants import TCP, ExportPlan

GOAL, ACTIVE_SHARE, PORT = 1 / 50, 0.01, 80
ADOPT_SECONDS = 120.0


@dataclass(frozen=True)
class State:
    """What a host holds."""

    flows: int
    groups: int
    agent_bytes: int
    load_seconds: float


def world(active: int) -> World:
    """`active` services of group a with a pod each on h2, exported to b, which has a pod on h1."""
    made = World({"red": 100}, {"a": 1, "b": 2})
    made.services = {"b/u": "red"} | {f"a/s{number}": "red" for number in range(active)}
    made.new_pod("b/u", "h1")
    for number in range(active):
        made.service_ips[f"a/s{number}:main"] = SERVICE_BLOCK + 10 + number
        made.new_pod(f"a/s{number}", "h2")
        made.exports[f"a/s{number}", "b"] = ExportPlan(f"a/s{number}", "b")
    return made


def count(dump: str) -> int:
    """Entries of a dump: one a line after the heading."""
    return sum(1 for line in dump.splitlines() if "cookie=" in line or "group_id=" in line)


def resident(process: int) -> int:
    """Bytes of memory of a process."""
    text = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("VmRSS"))


def ours(directory: Path, services: int, active: int) -> State:
    """Our state on the host of the caller, when every active pair has a connection."""
    with Fleet(directory, world(active), ["h1", "h2"]) as fleet:
        fleet.wait_until_ready()
        intent = Intent(fleet.database.socket)
        began = time.monotonic()
        Crowd(intent).grow(services - active)
        generation = intent.generation()
        while not json.loads(fleet.api(f"/v1/receipt?generation={generation}&wait=2")).get("confirmed"):
            assert time.monotonic() - began < ADOPT_SECONDS
        took = time.monotonic() - began
        tries = [[dotted(SERVICE_BLOCK + 10 + number), TCP, PORT] for number in range(active)]
        answers = fleet.agents["b/u-1"].say(json.dumps(tries))
        assert [answer[0] for answer in answers] == [f"a/s{number}-1" for number in range(active)], answers
        host = fleet.hosts["h1"]
        return State(count(host.ofctl("dump-flows")), count(host.ofctl("dump-groups")), 0, took)


def theirs(directory: Path, services: int) -> State:
    """OVN's state on a host with one pod."""
    with ovn(directory) as system:
        system.switch.vsctl(
            "add-port", "br-int", "p1", "--", "set", "interface", "p1", "type=internal", "external_ids:iface-id=u"
        )
        system.central.change(
            [
                ["ls-add", "red"],
                ["lsp-add", "red", "u"],
                ["lsp-set-addresses", "u", "02:00:00:00:00:01 10.16.0.2"],
                ["pg-add", "b", "u"],
                ["acl-add", "b", "from-lport", "1000", "ip4.src == $b_ip4", "drop"],
            ]
        )
        system.central.sync()
        began = time.monotonic()
        system.central.change(list(offers(services)))
        system.central.sync()
        took = time.monotonic() - began
        return counted(system, took)


def offers(services: int) -> list[list[str]]:
    """A Service IP with a pod for each service, and a grant to group b: as with ours, on whatever port."""
    commands = []
    for number in range(services):
        vip, pod = f"10.96.{number // 250}.{1 + number % 250}", f"10.17.{number // 250}.{1 + number % 250}"
        commands += [
            ["lb-add", f"s{number}", f"{vip}:{PORT}", f"{pod}:{PORT}", "tcp"],
            ["ls-lb-add", "red", f"s{number}"],
            ["acl-add", "b", "from-lport", "1001", f"ip4.src == $b_ip4 && ip4.dst == {vip}", "allow-related"],
        ]
    return commands


def counted(system: Ovn, took: float) -> State:
    """What OVN's host holds now."""
    switch = system.switch
    return State(
        count(switch.ofctl("dump-flows")),
        count(switch.ofctl("dump-groups")),
        resident(system.agent.pid),
        took,
    )


def main() -> None:
    """Measure and print."""
    parser = report.arguments(__doc__.splitlines()[0] if __doc__ else "", rounds=3)
    parser.add_argument("--services", type=int, default=3000, help="how many, with an export each")
    options = parser.parse_args()
    active = max(1, round(options.services * ACTIVE_SHARE))
    found: dict[str, list[State]] = {"ours": [], "OVN": []}
    for turn in range(options.rounds):
        with tempfile.TemporaryDirectory() as directory:
            found["ours"].append(ours(Path(directory), options.services, active))
        with tempfile.TemporaryDirectory() as directory:
            found["OVN"].append(theirs(Path(directory), options.services))
        print(f"  round {turn + 1}/{options.rounds}: {found['ours'][-1]}, OVN {found['OVN'][-1]}", file=sys.stderr)
    print(f"one host, {options.services} services and exports, {active} in use; load {os.getloadavg()[0]:.1f}")
    for what, unit, divisor in (
        ("flows", "", 1), ("groups", "", 1), ("agent_bytes", "MB", 10**6), ("load_seconds", "s", 1),
    ):  # fmt: skip
        series = {
            name: report.Series(name, tuple(getattr(state, what) / divisor for state in states))
            for name, states in found.items()
        }
        print(f"  {what.replace('_', ' ')}: ours {series['ours']} {unit}, OVN {series['OVN']} {unit}".rstrip())
        if what == "flows":
            print(f"  {report.Goal('ours', 'OVN', GOAL, at_least=False).line(series)}")


if __name__ == "__main__":
    main()
