# SPDX-License-Identifier: Apache-2.0
"""What a controller's machine may do to it: another time of day, no file descriptors left. With a real Open vSwitch."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from contract.fixtures import clean, write_toml
from contract.intent import echo_request, fleet
from contract.process import API, OPENFLOW, Process, point_at_controller
from contract.real import QNET_SCHEMA, Authority, Database, Vswitch, database, wait_for
from qnet_controller.pipeline.tables import Table

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
HOUR = 3600
SPARE = 4  # file descriptors
START = 60  # seconds: with a clock of its own a process reads a file whenever it asks for the time


class Clock:
    """The time of day of a process: that of the machine and an offset, which may be changed while it runs."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "offset"
        self.set(0)

    @property
    def environment(self) -> dict[str, str]:
        """What makes a process believe in this clock; its monotonic clock is the machine's, as with a real jump."""
        return {
            "LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(self._file), "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }  # fmt: skip

    def set(self, seconds: int) -> None:
        """Jump; the file is replaced as a whole, since it is read at any moment."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self._file)


@pytest.fixture(name="clock")
def its_clock(tmp_path: Path) -> Clock:
    assert FAKETIME.exists(), "apt-get install libfaketime"
    return Clock(tmp_path)


@pytest.fixture(name="intent")
def small_fleet(tmp_path: Path) -> Iterator[Database]:
    with database(tmp_path, "QNet", QNET_SCHEMA) as intent:
        intent.execute(*fleet())
        yield intent


@pytest.fixture(name="process")
def its_process(
    ovs: Vswitch, authority: Authority, intent: Database, clock: Clock, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Process]:  # fmt: skip
    clean(ovs)
    remote = f"unix:{intent.socket}"
    config = write_toml(tmp_path / "controller.toml", authority, port=OPENFLOW, api=API, remote=remote)
    for name, value in clock.environment.items():
        monkeypatch.setenv(name, value)
    process = Process(config, tmp_path / "controller.log")
    try:
        point_at_controller(ovs)
        wait_for(lambda: process.switch().get("adopted"), START)
        yield process
    finally:
        if process.alive():
            process.end()
        clean(ovs)


def plans(switch: Vswitch, target: str) -> list[str]:
    return [line for line in switch.flows() if f"table={int(Table.PLAN)}," in line and f"nw_dst={target}" in line]


def send(switch: Vswitch, target: str) -> None:
    """Pod 3 sends a packet to an address."""
    switch.ofctl("packet-out", f"in_port=3 packet={echo_request(3, target)} actions=resubmit(,0)")


def asks(switch: Vswitch, target: str, kind: str) -> None:
    """Pod 3 sends a packet to an address that it has no flow for, and gets one of this kind."""
    send(switch, target)
    wait_for(lambda: [line for line in plans(switch, target) if kind in line])


@pytest.mark.parametrize("offset", [HOUR, -HOUR])
def test_a_controller_whose_clock_is_wrong_from_the_start_serves_as_any_other(
    process: Process, ovs: Vswitch, clock: Clock, offset: int
) -> None:
    asks(ovs, "10.96.0.10", "goto_table")
    before = sorted(key(line) for line in ovs.flows())
    process.end(signal.SIGKILL)
    clock.set(offset)
    process.start()
    wait_for(lambda: process.switch().get("adopted"), START)
    assert sorted(key(line) for line in ovs.flows()) == before
    asks(ovs, "10.10.9.9", "drop")


@pytest.mark.parametrize("jump", [HOUR, -HOUR, 24 * HOUR])
def test_jumps_of_the_clock_end_no_session_and_no_flow(process: Process, ovs: Vswitch, clock: Clock, jump: int) -> None:
    asks(ovs, "10.96.0.10", "goto_table")
    before = sorted(key(line) for line in ovs.flows())
    clock.set(jump)
    asks(ovs, "10.10.9.1", "drop")
    clock.set(0)
    # A second refusal is a wide one, which shows no address.
    send(ovs, "10.10.9.2")
    wait_for(lambda: [line for line in ovs.flows() if "hard_timeout=30" in line and "nw_dst" not in line])
    assert set(before) <= {key(line) for line in ovs.flows()}
    assert process.metric("qnet_adoptions_total") == 1
    assert "Traceback" not in process.log


def test_without_file_descriptors_new_peers_wait_and_old_ones_are_served(process: Process, ovs: Vswitch) -> None:
    used = len(os.listdir(f"/proc/{process.pid}/fd"))
    before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (used + SPARE, before[1]))
    with ExitStack() as stack:
        for _ in range(10 * SPARE):
            stack.enter_context(socket.create_connection(("127.0.0.1", OPENFLOW), timeout=5))
        wait_for(lambda: len(os.listdir(f"/proc/{process.pid}/fd")) >= used + SPARE)
        asks(ovs, "10.96.0.10", "goto_table")
        asks(ovs, "10.10.9.9", "drop")
    # The limit stays: what has been taken is given back.
    wait_for(lambda: process.metric("qnet_adoptions_total") == 1, 20)  # more would mean that the switch was lost
    assert process.alive()
    assert not re.search("handler .* failed", process.log)


def key(line: str) -> str:
    """A flow as it is shown, without what counts."""
    return re.sub(r"(duration|n_packets|n_bytes|idle_age|hard_age)=\S+ ", "", line)
