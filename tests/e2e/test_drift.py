# SPDX-License-Identifier: Apache-2.0
"""What an operator writes to a switch by hand is put right by itself, and said (ADR 0011)."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.fleet import ROOT, Fleet, eventually

LIMIT_SECONDS = 30.0  # the aim is 5; a busy machine may take longer
BRIDGE = ("ovs-ofctl", "--protocols=OpenFlow15")
UNUSED = 200000  # a number of a meter and of a group
FOREIGN = "table=0,priority=65000,actions=NORMAL"
pytestmark = pytest.mark.timeout(600)


def admission(fop: Fleet, host: str) -> list[str]:
    """The flows that say who is who on a host: they change only with its pods."""
    shown = fop.run(host, *BRIDGE, "--no-stats", "--no-names", "dump-flows", "br-int", "table=0")
    return sorted(line.strip() for line in shown.splitlines() if "table=0" in line or "priority=" in line)


def said(fop: Fleet, since: float) -> list[str]:
    """What the controllers have written into their logs about others."""
    lines: list[str] = []
    for host in fop.groups["controllers"]:
        words = ("--unit=qnet-controller", f"--since=@{since:.0f}", "--output=cat", "--quiet")
        lines += [line for line in fop.run(host, "journalctl", *words).splitlines() if "someone else" in line]
    return lines


def verify(fop: Fleet, directory: Path, repair: bool) -> list[dict[str, Any]]:
    """What the module qnet_verify finds on all controllers."""
    asked = ["-m", "qiniu.qnet.qnet_verify", "-a", json.dumps({"repair": repair}), "--tree", str(directory)]
    command = ["ansible", "controllers", "-i", str(fop.hosts_file), *asked]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    results = [json.loads((directory / host).read_text()) for host in fop.groups["controllers"]]
    assert sorted(host for result in results for host in result["hosts"]) == fop.groups["switches"]
    assert {result["changed"] for result in results if result["differences"]} <= {repair}
    return [row for result in results for row in result["differences"]]


@pytest.mark.parametrize("command", [("del-flows", "br-int", "table=0"), ("add-flow", "br-int", FOREIGN)])
def test_what_an_operator_writes_to_a_switch_is_put_right_and_said(fop: Fleet, command: tuple[str, ...]) -> None:
    host = fop.groups["switches"][0]
    eventually(lambda: fop.switch(host), 60, f"{host} has a master")
    before, counted, since = admission(fop, host), fop.total("qnet_tampered_total"), time.time() - 1
    assert before
    began = time.monotonic()
    fop.run(host, *BRIDGE, *command)
    eventually(lambda: fop.total("qnet_tampered_total") > counted, LIMIT_SECONDS, "it was noticed")
    eventually(lambda: admission(fop, host) == before, LIMIT_SECONDS, "it was put right")
    print(f"{' '.join(command)}: noticed and put right within {time.monotonic() - began:.1f} s")
    assert any(host in line for line in said(fop, since))


def test_verify_finds_and_repairs_what_nobody_notices_by_itself(fop: Fleet, tmp_path: Path) -> None:
    host = fop.groups["switches"][0]
    eventually(lambda: not verify(fop, tmp_path, repair=False), 60, "nothing differs")
    fop.run(host, *BRIDGE, "add-meter", "br-int", f"meter={UNUSED},pktps,bands=type=drop,rate=1")
    fop.run(host, *BRIDGE, "add-group", "br-int", f"group_id={UNUSED},type=all")
    for repair in (False, True):
        found = verify(fop, tmp_path, repair)
        assert [(row["host"], row["what"], row["problem"], row["number"]) for row in found] == [
            (host, "group", "foreign", UNUSED),
            (host, "meter", "foreign", UNUSED),
        ]
    eventually(lambda: not verify(fop, tmp_path, repair=True), 60, "nothing differs any more")
    for shown in ("dump-meters", "dump-groups"):
        assert f"={UNUSED}" not in fop.run(host, *BRIDGE, shown, "br-int")
