# SPDX-License-Identifier: Apache-2.0
"""What an operator writes to a switch by hand is put right by itself, and said (ADR 0011)."""

from __future__ import annotations

import time

import pytest
from tests.e2e.fleet import Fleet, eventually

LIMIT_SECONDS = 30.0  # the aim is 5; a busy machine may take longer
BRIDGE = ("ovs-ofctl", "--protocols=OpenFlow15")
UNUSED = 200000  # a number of a meter and of a group
ADDED = {"meter": f"meter={UNUSED},pktps,bands=type=drop,rate=1", "group": f"group_id={UNUSED},type=all"}
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


@pytest.mark.parametrize("kind", ["meter", "group"])
def test_what_an_operator_adds_beside_the_flows_is_removed_and_said(fop: Fleet, kind: str) -> None:
    host = fop.groups["switches"][0]
    eventually(lambda: fop.switch(host), 60, f"{host} has a master")
    counted, since = fop.total("qnet_tampered_total"), time.time() - 1
    fop.run(host, *BRIDGE, f"add-{kind}", "br-int", ADDED[kind])
    eventually(lambda: fop.total("qnet_tampered_total") > counted, LIMIT_SECONDS, "it was noticed")
    dump = (*BRIDGE, f"dump-{kind}s", "br-int")
    eventually(lambda: f"={UNUSED}" not in fop.run(host, *dump), LIMIT_SECONDS, "it was removed")
    assert any(f"{kind} {UNUSED}" in line for line in said(fop, since))
