# SPDX-License-Identifier: Apache-2.0
"""Faults on hosts of the lab, each a context manager: there while the block runs, and healed after it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.fleet import Fleet

CONTROLLER, DATABASE = "qnet-controller", "qnet-database"
OPENFLOW_PORT, PEER_PORT = 6653, 6654
FILES, DISK_SIZE = "/var/lib/qnet/database", "128m"
BOTH, IN, OUT = ("input", "output"), ("input",), ("output",)


def main_pid(fleet: Fleet, host: str, unit: str) -> str:
    """The process of a unit; 0 when it does not run."""
    return fleet.run(host, "systemctl", "show", "--property=MainPID", "--value", unit)


def systemctl(fleet: Fleet, host: str, verb: str, unit: str) -> None:
    """systemctl on a host."""
    fleet.run(host, "systemctl", verb, unit)


@contextmanager
def killed(fleet: Fleet, host: str, unit: str) -> Iterator[None]:
    """kill -9; systemd starts the unit again by itself."""
    fleet.run(host, "systemctl", "kill", "--signal=KILL", unit)
    yield


@contextmanager
def stopped(fleet: Fleet, host: str, unit: str) -> Iterator[None]:
    """A graceful stop, and a start."""
    systemctl(fleet, host, "stop", unit)
    try:
        yield
    finally:
        systemctl(fleet, host, "start", unit)


@contextmanager
def paused(fleet: Fleet, host: str, unit: str) -> Iterator[None]:
    """SIGSTOP, and SIGCONT: the process finds everything that has been sent to it meanwhile."""
    fleet.run(host, "systemctl", "kill", "--signal=STOP", unit)
    try:
        yield
    finally:
        fleet.run(host, "systemctl", "kill", "--signal=CONT", unit)


@contextmanager
def cut(fleet: Fleet, host: str, ports: tuple[int, ...], chains: tuple[str, ...] = BOTH) -> Iterator[None]:
    """Packets from and to these TCP ports vanish at a host, in one direction or both; with no ports, all packets."""
    rules = [f"table inet drill {{ chain {name} {{ type filter hook {name} priority 0; {_drop(name, ports)} }}; }}"
             for name in chains]  # fmt: skip
    fleet.run(host, "nft", "; ".join(rules))
    try:
        yield
    finally:
        fleet.run(host, "nft", "delete", "table", "inet", "drill")


def _drop(chain: str, ports: tuple[int, ...]) -> str:
    if not ports:
        return f"{'iifname' if chain == 'input' else 'oifname'} eth0 drop;"
    listed = ", ".join(map(str, ports))
    return f"tcp sport {{ {listed} }} drop; tcp dport {{ {listed} }} drop;"


@contextmanager
def half_open(fleet: Fleet, host: str) -> Iterator[None]:
    """The controller's host falls silent and its controller dies: nobody is told, all connections stay half open."""
    with cut(fleet, host, ()):
        fleet.run(host, "systemctl", "kill", "--signal=KILL", CONTROLLER)
        yield


@contextmanager
def without_quorum(fleet: Fleet, hosts: list[str]) -> Iterator[None]:
    """The members of the database on these hosts are killed and stay away."""
    for host in hosts:
        fleet.run(host, "systemctl", "kill", "--signal=KILL", DATABASE)
        fleet.run(host, "systemctl", "stop", DATABASE)
    try:
        yield
    finally:
        for host in hosts:
            systemctl(fleet, host, "start", DATABASE)


@contextmanager
def small_disks(fleet: Fleet) -> Iterator[None]:
    """Each member of the database has a file system of its own, of `DISK_SIZE`."""
    for host in fleet.groups["controllers"]:
        move = (
            f"cp -a {FILES} {FILES}.drill && mount -t tmpfs -o size={DISK_SIZE} drill {FILES} && {_copy('.drill', '')}"
        )
        _without(fleet, host, move)
    try:
        yield
    finally:
        for host in fleet.groups["controllers"]:
            _without(
                fleet, host, f"{_copy('', '.drill')} && umount {FILES} && {_copy('.drill', '')} && rm -r {FILES}.drill"
            )


def _copy(source: str, target: str) -> str:
    return f"cp -a {FILES}{source}/. {FILES}{target}"


def _without(fleet: Fleet, host: str, script: str) -> None:
    """Run a script while the member of the database on a host is stopped; the others have a leader before and after."""
    systemctl(fleet, host, "stop", DATABASE)
    try:
        fleet.run(host, "sh", "-ec", script)
    finally:
        systemctl(fleet, host, "start", DATABASE)
    leader(fleet)


@contextmanager
def full_disk(fleet: Fleet, host: str) -> Iterator[None]:
    """Nothing can be written any more where a member of the database has its file."""
    fleet.run(host, "sh", "-c", f"cat /dev/zero >{FILES}/filler 2>/dev/null; true")
    try:
        yield
    finally:
        fleet.run(host, "rm", f"{FILES}/filler")


def leader(fleet: Fleet) -> str:
    """The host of the database's leader."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        for host in fleet.groups["controllers"]:
            shown = fleet.run(
                host, "ovs-appctl", "--target=/run/qnet-database/qnet.ctl", "cluster/status", "QNet", check=False
            )
            if "\nRole: leader" in shown:
                return host
        time.sleep(0.2)
    raise AssertionError("the database has no leader")
