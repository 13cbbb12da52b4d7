#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What plays cost on a lab of ten hosts: host-tasks, seconds and CPU to create, find nothing to do, add a host, change.

The lab (QNET_LAB with `-run` added) is made for it and taken down: one controller, and hosts with pods. The peer is a
playbook with a task per object (networks, groups, services, Service IPs, exports, and each pod on its host), made with
the same modules for the same state; it does not set up hosts, so it stands beside tenants.yml with pods.yml. Host-tasks
are those that ran, from Ansible's recap, with every turn of a loop over objects; CPU is that of the control node with
all its children, and with the connections of ssh that stay behind for the next play: they are ended after each, so
every play opens its own. What the hosts do is not in it, although they are on the same machine here. Adding a host must
change nothing on the others: neither by what the play says, nor by their files, their switches and their flows. Leave
the checkout alone while it runs. More hosts: `--switches 49 --pods 5`; many pods as well, in a bearable time, where the
peer is stopped before it is done, and what it has cost until then stands for it:
`--switches 49 --pods 70 --only-idle --peer-seconds 2400`.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import report
from tests.e2e.fleet import RECAP, Fleet, Play

ROOT = Path(__file__).resolve().parents[1]
GROUPS, SERVICES, EXPORTS = 5, 100, 300  # services and exports of the fleet, beside its pods
GOAL = 10.0
LONGEST_SECONDS = 3600  # of one play
DONE = re.compile(r"^(?:ok|changed): \[", re.MULTILINE)  # a task on a host, or a turn of its loop
CHANGED = re.compile(r"^changed: \[([^\s\]]+)(?: -> ([^\s\](]+))?", re.MULTILINE)  # a host, and whom it delegated to
# What a play could change on a host: files (newer than a mark), the switch, its flows without what only counts.
FILES = "find /etc /opt /usr/local /root/.ssh /var/lib/qnet -newer /run/qnet-mark -type f 2>/dev/null"
SWITCH = (
    "ovs-vsctl --bare --columns=name,external_ids,other_config,options list Interface; ovs-vsctl show; "
    "ovs-ofctl -O OpenFlow15 --no-stats --sort dump-flows br-int; ip -brief address; ls /run/netns 2>/dev/null || true"
)
PR_SET_CHILD_SUBREAPER = 36  # prctl(2): processes whose parents have ended become ours
Inventory = dict[str, Any]


@dataclass(frozen=True)
class Cost:
    """What one run has cost."""

    title: str
    tasks: int
    seconds: float
    cpu: float
    changed: dict[str, int]
    stopped: bool = False  # before it was done

    def row(self) -> str:
        """A line of the table."""
        changed = ", ".join(f"{host} {count}" for host, count in sorted(self.changed.items())) or "nothing"
        end = ", and was stopped there" if self.stopped else ""
        return f"  {self.title:<40} {self.tasks:>6} {self.seconds:>9.1f} {self.cpu:>9.1f}   {changed}{end}"


def inventory(hosts: list[str], pods_per_host: int) -> Inventory:
    """The variables of a fleet: the pods of each service on hosts in turn, so that one more host moves none."""
    replicas = max(1, pods_per_host * len(hosts) // SERVICES)
    groups: list[dict[str, Any]] = [{"name": f"g{number}", "services": []} for number in range(GROUPS)]
    for number in range(SERVICES):
        address, first = f"10.96.0.{number + 1}", number % len(hosts)
        groups[number % GROUPS]["services"].append(
            {"name": f"s{number}", "network": "prod", "replicas": replicas, "hosts": hosts[first:] + hosts[:first],
             "service_ips": [{"address": address}]}
        )  # fmt: skip
    pairs = [
        (f"g{n % GROUPS}/s{n}", f"g{(n + 1 + turn) % GROUPS}") for turn in range(GROUPS - 1) for n in range(SERVICES)
    ]
    return {
        "qnet_networks": [
            {"name": "prod", "vni": 100, "pod_subnets": ["10.10.0.0/16"], "service_subnets": ["10.96.0.0/16"]}
        ],
        "qnet_tenants": [{"name": "t", "security_groups": groups}],
        "qnet_exports": [{"service": service, "to": to} for service, to in pairs[:EXPORTS]],
    }


def write(directory: Path, variables: Inventory) -> Path:
    """The variables as an inventory for plays on the lab."""
    (directory / "group_vars" / "all").mkdir(parents=True, exist_ok=True)
    (directory / "group_vars" / "all" / "all.yml").write_text(json.dumps(variables))
    (directory / "groups.yml").write_text(json.dumps({"all": {"children": {"controllers": {}, "switches": {}}}}))
    return directory


def one_by_one(variables: Inventory) -> list[dict[str, Any]]:
    """The plays of the peer: a task for each object."""
    tasks: list[dict[str, Any]] = [{"qiniu.qnet.qnet_network": network} for network in variables["qnet_networks"]]
    for tenant in variables["qnet_tenants"]:
        for group in tenant["security_groups"]:
            tasks.append({"qiniu.qnet.qnet_security_group": {"name": group["name"], "tenant": tenant["name"]}})
            for service in group["services"]:
                name = {"group": group["name"], "name": service["name"]}
                conduct = {key: service[key] for key in ("network", "drain_seconds") if key in service}
                tasks.append({"qiniu.qnet.qnet_service": name | conduct})
                place = {"group": group["name"], "service": service["name"]}
                tasks.append({"qiniu.qnet.qnet_service_ip": {**place, **service["service_ips"][0]}})
    tasks += [{"qiniu.qnet.qnet_export": export} for export in variables["qnet_exports"]]
    placed = "qnet_tenants | qiniu.qnet.qnet_pods(groups['switches'])"
    attach = {
        "qiniu.qnet.qnet_pod": {
            "name": "{{ item.name }}", "service": "{{ item.service }}", "mtu": 1450,
            "database": ["ssl:{{ hostvars[groups['controllers'][0]].ansible_host }}:6641"],
            "private_key": "/etc/qnet/pki/host.key", "certificate": "/etc/qnet/pki/host.pem",
            "ca_certificate": "/etc/qnet/pki/ca.pem",
        },
        "loop": f"{{{{ {placed} | selectattr('host', 'equalto', inventory_hostname) }}}}",
    }  # fmt: skip
    return [
        {"hosts": "controllers[0]", "gather_facts": False, "tasks": tasks},
        {"hosts": "switches", "gather_facts": False, "tasks": [attach]},
    ]


@contextmanager
def all_processes() -> Iterator[None]:
    """Whatever the block starts is counted, what it leaves in the background as well: that is ended when it ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0, os.strerror(ctypes.get_errno())
    before = children()
    try:
        yield
    finally:
        while left := children() - before:  # those of one that ends become ours as well
            for one in left:
                os.kill(one, signal.SIGTERM)
            for one in left:
                os.waitpid(one, 0)
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def children() -> set[int]:
    """The processes whose parent this one is."""
    listed = subprocess.run(
        ["ps", "--no-headers", "-o", "pid,comm", "--ppid", str(os.getpid())], capture_output=True, text=True, check=True
    )
    return {int(line.split()[0]) for line in listed.stdout.splitlines() if line.split()[1] != "ps"}


def cost(title: str, run: Any, extra: int = 0) -> Cost:
    """Run a play, and what it has cost; `extra` are the turns of its loops beyond one task each."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with all_processes():
        try:
            done: Play = run()
            output, stopped = done.output, False
            assert done.status == 0, output[-4000:]
        except subprocess.TimeoutExpired as ended:
            output, stopped = (ended.output or b"").decode(errors="replace"), True
        seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    tasks = len(DONE.findall(output)) if stopped else sum(int(row[1]) for row in RECAP.findall(output)) + extra
    changed = Counter(delegate or host for host, delegate in CHANGED.findall(output))
    found = Cost(title, tasks, seconds, cpu, dict(changed), stopped)
    print(found.row(), file=sys.stderr, flush=True)
    return found


@contextmanager
def lab(switches: int) -> Iterator[Fleet]:
    """A lab of its own, with one controller."""
    name = f"{os.environ.get('QNET_LAB', 'qnet')}-run"
    os.environ |= {"QNET_LAB": name, "QNET_LAB_CONTROLLERS": "1", "QNET_LAB_SWITCHES": str(switches)}
    command = [str(ROOT / "lab" / "lab")]
    subprocess.run([*command, "up"], check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    try:
        yield Fleet(name, play_seconds=LONGEST_SECONDS)
    finally:
        subprocess.run([*command, "down"], check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)


def mark(fleet: Fleet, hosts: list[str]) -> dict[str, str]:
    """Host -> its switch now; files that are written from here on can be told."""
    for host in hosts:
        fleet.run(host, "touch", "/run/qnet-mark")
    return {host: fleet.run(host, "sh", "-c", SWITCH) for host in hosts}


def unlike(fleet: Fleet, before: dict[str, str]) -> None:
    """Fail where a host is not as it was."""
    for host, shown in before.items():
        now = fleet.run(host, "sh", "-c", SWITCH)
        lines = sorted(set(shown.splitlines()) ^ set(now.splitlines()))
        assert not lines, f"adding a host has changed the switch of {host}: {lines[:5]}"
        files = fleet.run(host, "sh", "-c", FILES, check=False)
        assert not files, f"adding a host has changed files of {host}: {files}"


@dataclass(frozen=True)
class Fleets:
    """The same state twice: as an inventory for our plays, and as a playbook with a task per object."""

    fleet: Fleet
    peer: Fleet  # the same, with the time that the peer's plays have
    directory: Path
    variables: Inventory
    turns: int  # of the peer's loops, beyond one task for each host

    @classmethod
    def of(cls, fleet: Fleet, peer_seconds: int, directory: Path, pods_per_host: int) -> Fleets:
        """All but the last host have pods."""
        hosts = fleet.groups["switches"][:-1]
        variables = inventory(hosts, pods_per_host)
        tenants = variables["qnet_tenants"]
        pods = sum(s["replicas"] for t in tenants for g in t["security_groups"] for s in g["services"])
        made = cls(fleet, Fleet(fleet.name, play_seconds=peer_seconds), directory, variables, pods - len(hosts))
        made.write()
        return made

    def write(self) -> None:
        """What the variables say now becomes what both want."""
        write(self.directory / "wanted", self.variables)
        (self.directory / "one_by_one.yml").write_text(json.dumps(one_by_one(self.variables)))

    def ours(self, what: str, plays: str, *arguments: str) -> Cost:
        """Run plays of qnet."""
        title = ", ".join(f"{play}.yml" for play in plays.split())
        return cost(f"{title}: {what}", lambda: self.fleet.try_play(plays, self.directory / "wanted", *arguments))

    def theirs(self, what: str) -> Cost:
        """Run the peer."""
        play, wanted = f"../{os.path.relpath(self.directory / 'one_by_one', ROOT)}", self.directory / "wanted"
        return cost(f"a task per object: {what}", lambda: self.peer.try_play(play, wanted), self.turns)


def idle(both: Fleets) -> list[Cost]:
    """Both find nothing to do."""
    found = [both.ours("nothing to do", "tenants pods"), both.theirs("nothing to do")]
    assert not found[0].changed, found[0].changed
    assert not found[1].changed, f"the peer wants another state: {found[1].changed}"
    return found


def add_a_host(both: Fleets, but_new: str) -> list[Cost]:
    """Nothing to do for the others, and then one more host, which must change nothing on them."""
    fleet = both.fleet
    *old, new = fleet.groups["switches"]
    found = [both.ours("nothing to do", "site", "--limit", but_new)]
    assert not found[0].changed, found[0].changed
    before = mark(fleet, old)
    found.append(both.ours("add one host", "site"))
    touched = set(found[1].changed) - {new, fleet.groups["controllers"][0]}  # the controller's host has the database
    assert not touched, f"adding {new} has changed {touched}"
    unlike(fleet, before)
    return found


def change(both: Fleets) -> list[Cost]:
    """Both change one service."""
    service = both.variables["qnet_tenants"][0]["security_groups"][0]["services"][0]
    found = []
    for seconds, run in ((30, lambda what: both.ours(what, "tenants")), (31, both.theirs)):
        service["drain_seconds"] = seconds
        both.write()
        found.append(run("change one service"))
        assert sum(found[-1].changed.values()) == 1, found[-1].changed
    return found


def measure(both: Fleets, only_idle: bool) -> list[Cost]:
    """All runs, in the order in which a fleet lives."""
    if only_idle:
        return [both.ours("create", "site"), *idle(both)]
    but_new = f"all:!{both.fleet.groups['switches'][-1]}"
    created = both.ours("create", "site", "--limit", but_new)
    return [created, *add_a_host(both, but_new), *idle(both), *change(both)]


def main() -> None:
    """Measure and print."""
    parser = report.arguments(__doc__ or "", rounds=1)
    parser.add_argument("--switches", type=int, default=9, help="hosts with pods (default: 9)")
    parser.add_argument("--pods", type=int, default=100, help="pods per host (default: 100)")
    parser.add_argument("--only-idle", action="store_true", help="only create, and the runs with nothing to do")
    parser.add_argument(
        "--peer-seconds", type=int, default=LONGEST_SECONDS, help="after which it is stopped, with --only-idle"
    )
    options = parser.parse_args()
    with lab(options.switches) as fleet, tempfile.TemporaryDirectory() as name:
        found = measure(Fleets.of(fleet, options.peer_seconds, Path(name), options.pods), options.only_idle)
    load = os.getloadavg()[0]
    print(
        f"{options.switches + 1} hosts, about {options.pods} pods on each but the last; load of the machine {load:.1f}"
    )
    print(f"  {'':<40} {'tasks':>6} {'seconds':>9} {'CPU s':>9}   changed")
    for one in found:
        print(one.row())
    ours, theirs = (next(c for c in found if c.title == f"{w}: nothing to do") for w in
                    ("tenants.yml, pods.yml", "a task per object"))  # fmt: skip
    for what, ratio in (("host-tasks", theirs.tasks / ours.tasks), ("seconds", theirs.seconds / ours.seconds),
                        ("CPU", theirs.cpu / ours.cpu)):  # fmt: skip
        met = "met" if ratio >= GOAL else "not seen, it was stopped" if theirs.stopped else "MISSED"
        more = "more than " if theirs.stopped else ""
        print(f"  nothing to do, {what}: {more}{ratio:.1f} times fewer, goal ≥ {GOAL:.0f}: {met}")


if __name__ == "__main__":
    main()
