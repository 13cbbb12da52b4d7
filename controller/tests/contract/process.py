# SPDX-License-Identifier: Apache-2.0
"""A whole controller process with a real Open vSwitch and a real intent database, for tests to share."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from contract.fixtures import BRIDGE, clean, write_toml
from contract.intent import delete, fleet
from contract.real import QNET_SCHEMA, Authority, Database, Vswitch, database, wait_for

OPENFLOW, API = 16653, 19680


class Process:
    """A controller process, its log and its API."""

    def __init__(self, config: Path, log: Path) -> None:
        self.command = [sys.executable, "-m", "qnet_controller.cli.main", "--config", str(config)]
        self._log = log
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self.command, stderr=log, stdout=log)

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def pid(self) -> int:
        return self._process.pid

    def end(self, number: int = signal.SIGTERM) -> int:
        self._process.send_signal(number)
        return self._process.wait(8)

    def alive(self) -> bool:
        return self._process.poll() is None

    def get(self, path: str) -> tuple[int, str]:
        """Status and text of an API call; 0 while nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{API}{path}", timeout=2) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get("/v1/status")[1] or "{}")
        return found

    def switch(self) -> dict[str, Any]:
        switches = self.status().get("switches") or [{}]
        return dict(switches[0])

    def metric(self, name: str) -> float:
        """The sum over all labels."""
        lines = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", self.get("/metrics")[1], re.MULTILINE)
        return sum(map(float, lines))


class Stage(NamedTuple):
    """What the tests share; each gets it with the small fleet as intent, adopted."""

    process: Process
    switch: Vswitch
    intent: Database


@pytest.fixture(scope="module", name="stage")
def shared_stage(ovs: Vswitch, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("process")
    clean(ovs)
    with database(directory, "QNet", QNET_SCHEMA) as intent:
        intent.execute(*fleet())
        config = write_toml(
            directory / "controller.toml", authority, port=OPENFLOW, api=API, remote=f"unix:{intent.socket}"
        )
        process = Process(config, directory / "controller.log")
        try:
            point_at_controller(ovs)
            yield Stage(process, ovs, intent)
            assert "Traceback" not in process.log, process.log
        finally:
            if process.alive():
                process.end(signal.SIGKILL)
            clean(ovs)


@pytest.fixture(name="intent")
def small_fleet(stage: Stage) -> Database:
    everything = ("Export", "Pod_Address", "Pod", "Service_IP", "Service", "Security_Group", "Host", "Network")
    stage.intent.execute(*(delete(table) for table in ("QNet_Global", *everything)), *fleet())
    return stage.intent


@pytest.fixture(name="switch")
def its_switch(stage: Stage) -> Vswitch:
    return stage.switch


@pytest.fixture(name="process")
def master(stage: Stage, intent: Database) -> Process:
    """The controller, master of the switch, with nothing left to do."""
    wait_for(lambda: stage.process.switch().get("adopted"))
    wait_for(lambda: stage.process.switch()["flows"] == len(stage.switch.flows()))
    return stage.process


def point_at_controller(switch: Vswitch) -> None:
    switch.vsctl("set-controller", BRIDGE, f"ssl:127.0.0.1:{OPENFLOW}")
    switch.vsctl("set", "controller", BRIDGE, "max_backoff=1000")
