# SPDX-License-Identifier: GPL-3.0-or-later
"""The intent database as a Raft cluster of three: any member will do, and what is said when the quorum is lost."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import signal
import socket
import subprocess
import time
import typing as t

import pytest

from ansible_collections.qiniu.qnet.tests import conftest

SERVERS = 3
NETWORK: dict[str, t.Any] = {"name": "prod", "vni": 1, "pod_subnets": ["10.0.0.0/24"]}


@dataclasses.dataclass
class Member:
    """One server of the cluster, in a directory of its own."""

    directory: pathlib.Path
    raft: str
    pid: int = 0

    @property
    def remote(self) -> str:
        return f"unix:{self.directory / 'qnet.sock'}"

    def control(self, *command: str) -> str:
        target = str(self.directory / "control.sock")
        return subprocess.run(
            ["ovs-appctl", "-t", target, *command], check=True, capture_output=True, text=True, timeout=20
        ).stdout

    def start(self) -> None:
        place = self.directory
        server = ["ovsdb-server", str(place / "qnet.db"), f"--remote=punix:{place / 'qnet.sock'}"]
        server += [f"--unixctl={place / 'control.sock'}", f"--pidfile={place / 'server.pid'}", "--detach", "--no-chdir"]
        server += [f"--log-file={place / 'server.log'}", "-vconsole:off"]
        subprocess.run(server, check=True, timeout=20, env={**os.environ, "OVS_RUNDIR": str(place)})
        self.pid = int((place / "server.pid").read_text())

    def kill(self) -> None:
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.pid = 0

    def role(self) -> str:
        lines = self.control("cluster/status", "QNet").splitlines()
        return next(line.split()[1] for line in lines if line.startswith("Role:"))


@pytest.fixture
def cluster(tmp_path: pathlib.Path) -> t.Iterator[list[Member]]:
    """Three members that have elected a leader; the leader comes first."""
    members = []
    for number in range(SERVERS):
        (tmp_path / str(number)).mkdir()
        members.append(Member(tmp_path / str(number), f"tcp:127.0.0.1:{free_port()}"))
    tool = [
        "ovsdb-tool",
        "create-cluster",
        str(members[0].directory / "qnet.db"),
        str(conftest.SCHEMA),
        members[0].raft,
    ]
    subprocess.run(tool, check=True, timeout=20)
    for member in members[1:]:
        tool = ["ovsdb-tool", "join-cluster", str(member.directory / "qnet.db"), "QNet", member.raft, members[0].raft]
        subprocess.run(tool, check=True, timeout=20)
    try:
        for member in members:
            member.start()
        for member in members:
            waiting = ["ovsdb-client", "wait", member.remote, "QNet", "connected"]
            subprocess.run(waiting, check=True, timeout=60)
        yield sorted(members, key=lambda member: member.role() != "leader")
    finally:
        for member in members:
            member.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def on(target_python: str, import_path: str) -> t.Callable[[Member], conftest.Runner]:
    """A runner whose modules use the socket of one member, as on that database host."""
    return lambda member: conftest.Runner(target_python, import_path, member.remote)


def test_any_member_will_do_and_the_loss_of_one_is_survived(
    cluster: list[Member], on: t.Callable[[Member], conftest.Runner]
) -> None:
    leader, follower, other = cluster
    assert on(follower)("qnet_network", **NETWORK)["generation"] == 1
    assert on(other)("qnet_network", **NETWORK)["changed"] is False

    started = [
        on(cluster[number % SERVERS]).start("qnet_security_group", name=f"g{number}", tenant="x") for number in range(6)
    ]
    results = [conftest.Runner.finish(process) for process in started]
    assert [result.get("msg") for result in results if result.get("failed")] == []
    numbers = {group["number"] for group in on(leader)("qnet_security_group_info")["security_groups"]}
    assert numbers == set(range(1, 7))

    leader.kill()
    remotes = [member.remote for member in cluster]
    assert on(follower)("qnet_security_group", name="late", tenant="x", database=remotes)["generation"] == 8

    other.kill()
    begun = time.monotonic()
    said = on(follower).refused("qnet_network", name="prod", mtu=1400, timeout_seconds=5)
    assert time.monotonic() - begun < 15
    assert "no success within 5 s while " in said
    assert "check its quorum" in said
