# SPDX-License-Identifier: Apache-2.0
"""The parts that a fleet runs against: a real ovsdb-server with generated intent, and the whole controller process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contract.fixtures import write_toml
from contract.real import QNET_SCHEMA, Authority, Database, database

from . import REPOSITORY, intent, wire
from .process import Target
from .switch import Spec


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def cpu_seconds(process: int) -> float:
    """CPU time that a process has used so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Controller:
    """The controller's process; `start` again after `kill` is a restart on the same ports."""

    def __init__(self, directory: Path, authority: Authority, remote: str, environment: dict[str, str]) -> None:
        self.port, self.api = free_port(), free_port()
        self._environment = environment
        self._log = directory / "controller.log"
        config = write_toml(directory / "controller.toml", authority, port=self.port, api=self.api, remote=remote)
        self._command = [sys.executable, "-m", "qnet_controller.cli.main", "--config", str(config)]
        self._command += ["--log-level", "warning"]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, env=os.environ | self._environment)

    def kill(self) -> None:
        """End the process at once."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    @property
    def log(self) -> str:
        """What it has logged."""
        return self._log.read_text() if self._log.exists() else ""

    def get(self, path: str, seconds: float = 30.0) -> str:
        """An API call; empty while nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.api}{path}", timeout=seconds) as reply:
                return str(reply.read().decode())
        except (urllib.error.URLError, OSError):
            return ""

    def metrics(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = [line for line in self.get("/metrics").splitlines() if line.split("{")[0].split(" ")[0] == name]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def adopted(self) -> int:
        """How many switches it is ready to serve."""
        found: dict[str, Any] = json.loads(self.get("/v1/status") or "{}")
        return sum(bool(switch.get("adopted")) for switch in found.get("switches", ()))

    def wait_adopted(self, count: int, seconds: float = 120.0) -> None:
        """Wait until so many switches are served."""
        end = time.monotonic() + seconds
        while self.metrics("qnet_adoptions_total") < count or self.adopted() < count:
            if time.monotonic() > end or (self.process and self.process.poll() is not None):
                raise TimeoutError(f"{self.adopted()} of {count} switches are adopted\n{self.log[-2000:]}")
            time.sleep(max(0.2, count / 500))  # asking takes the controller the longer, the more there are

    def memory(self) -> int:
        """Resident bytes."""
        assert self.process
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("VmRSS"))

    def cpu_seconds(self) -> float:
        """CPU time used so far."""
        assert self.process
        return cpu_seconds(self.process.pid)


class Stage:
    """Everything that our controller needs, in a directory of its own."""

    def __init__(self, directory: Path, plan: intent.Plan, intent_database: Database, authority: Authority) -> None:
        self.directory = directory
        self.plan = plan
        self.database = intent_database
        self.authority = authority

    def controller(self, **environment: str) -> Controller:
        """A controller of this stage, not started yet."""
        return Controller(self.directory, self.authority, f"unix:{self.database.socket}", environment)

    def specs(self, plan_table: int) -> list[Spec]:
        """The switches of the plan, with certificates."""
        found = []
        for host in self.plan.hosts:
            certificate, key = self.authority.issue(host.name)
            found.append(
                Spec(
                    host.name, host.datapath_id, wire.OPENFLOW_15, self.plan.ports(host.index), str(certificate),
                    str(key), plan_table,
                )
            )  # fmt: skip
        return found

    def target(self, controller: Controller) -> Target:
        """Where its switches connect."""
        return Target(controller.port, str(self.authority.ca))


@contextmanager
def stage(plan: intent.Plan) -> Iterator[Stage]:
    """A database with the plan, and an authority."""
    with tempfile.TemporaryDirectory(prefix="qnet-bench-") as text:
        directory = Path(text)
        with database(directory, "QNet", QNET_SCHEMA) as served:
            intent.load(served.socket, intent.operations(plan))
            yield Stage(directory, plan, served, Authority(directory))


@contextmanager
def running(command: Sequence[str], port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another controller, until the end of the block; it has begun to listen on `port`."""
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=REPOSITORY)
    try:
        end = time.monotonic() + 30
        while True:
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if time.monotonic() > end or process.poll() is not None:
                raise RuntimeError(f"{command[0]} does not listen on {port}: {log.read_text()[-1500:]}")
            time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.wait()
