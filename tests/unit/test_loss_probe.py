# SPDX-License-Identifier: Apache-2.0
"""The probes of an upgrade, in a namespace of their own: what the network answers is not lost, what it drops is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PROBE = Path(__file__).resolve().parents[2] / "roles/loss_probe/files/qnet_loss_probe.py"
SENT = 20  # requests, 50 a second
PATIENCE_SECONDS = 60.0
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")


@pytest.fixture
def namespace() -> Iterator[str]:
    """A network namespace whose loopback answers."""
    name = f"qnet-probe-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


@pytest.fixture(params=["127.0.0.1", "::1"])
def probe(request: pytest.FixtureRequest, namespace: str, tmp_path: Path) -> Iterator[tuple[str, Any, Path]]:
    """Its address, its process, and its report."""
    pairs, report = tmp_path / "pairs", tmp_path / "report"
    pairs.write_text(json.dumps([{"namespace": namespace, "source": "a", "target": "b", "address": request.param}]))
    with subprocess.Popen([sys.executable, PROBE, pairs, report]) as process:
        yield request.param, process, report
        process.kill()


def after(report: Path, sent: int) -> dict[str, Any]:
    """The report once so many more requests have been sent."""
    end = time.monotonic() + PATIENCE_SECONDS
    first: int | None = None
    while time.monotonic() < end:
        if report.exists():
            row: dict[str, Any] = json.loads(report.read_text())[0]
            first = row["sent"] if first is None else first
            if row["sent"] >= first + sent:
                return row
        time.sleep(0.1)
    raise AssertionError(f"no {sent} requests were sent within {PATIENCE_SECONDS} s")


def ended(process: Any, report: Path) -> dict[str, Any]:
    """The last report."""
    process.send_signal(signal.SIGTERM)
    process.wait(PATIENCE_SECONDS)
    found: dict[str, Any] = json.loads(report.read_text())[0]
    return found


def test_a_probe_that_does_not_run_for_a_while_loses_nothing(probe: tuple[str, Any, Path]) -> None:
    _, process, report = probe
    after(report, SENT)
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.5)
    process.send_signal(signal.SIGCONT)
    after(report, SENT)
    row = ended(process, report)
    assert row["sent"] > SENT
    assert (row["lost"], row["lost_at"]) == (0, [])


def test_what_the_network_drops_is_lost_and_dated(probe: tuple[str, Any, Path], namespace: str) -> None:
    address, process, report = probe
    after(report, SENT)
    kind = "icmpv6" if ":" in address else "icmp"
    rules = (
        "add table inet t; add chain inet t i { type filter hook input priority 0; }; "
        f"add rule inet t i {kind} type echo-request drop"
    )
    subprocess.run(["ip", "netns", "exec", namespace, "nft", rules], check=True)
    after(report, SENT)
    row = ended(process, report)
    assert 0 < row["lost"] < row["sent"]
    assert row["lost_at"]
