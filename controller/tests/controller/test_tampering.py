# SPDX-License-Identifier: Apache-2.0
"""Someone else writes to a switch by hand: noticed at once, put right, reported, and nothing else is touched."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from contract.intent import update
from contract.process import Process, its_switch, master, shared_stage, small_fleet
from contract.real import Database, Vswitch, wait_for
from qnet_controller.pipeline.tables import Table

__all__ = ["its_switch", "master", "shared_stage", "small_fleet"]


def content(switch: Vswitch) -> list[str]:
    """Flows, groups and meters, without what changes by itself."""
    found = [re.sub(r"(duration|n_packets|n_bytes|idle_age)=\S+ ", "", line) for line in switch.flows()]
    for kind in ("groups", "meters"):
        text = switch.ofctl(f"dump-{kind}")
        found += [line.strip() for line in text.splitlines() if "_id" in line or "rate" in line or "meter=" in line]
    return sorted(found)


ASKS_THE_WAY = f"table={int(Table.LOCATION)},priority=1,cookie=7,ip,reg2=0/0x100,reg3=1/0xffff"
TAMPERINGS: dict[str, Callable[[Vswitch], object]] = {
    "every flow": lambda s: s.ofctl("del-flows"),
    "one flow": lambda s: s.ofctl("del-flows", f"table={int(Table.TRACK)},ip"),
    "actions, cookie kept": lambda s: s.ofctl("mod-flows", f"table={int(Table.EGRESS)},ip actions=drop"),
    "added": lambda s: s.ofctl("add-flow", f"table={int(Table.PLAN)},priority=7000,ip actions=drop"),
    "replaced": lambda s: s.ofctl("add-flow", f"{ASKS_THE_WAY} actions=drop"),
    "foreign group": lambda s: s.ofctl("add-group", "group_id=4711,type=select,bucket=actions=output:1"),
    "every meter": lambda s: s.ofctl("del-meters"),
    "meter": lambda s: s.ofctl("mod-meter", "meter=1,pktps,burst,bands=type=drop,rate=1,burst_size=1"),
}


@pytest.mark.parametrize("what", TAMPERINGS)
def test_what_others_change_is_put_right(process: Process, switch: Vswitch, what: str) -> None:
    before = content(switch)
    reported = process.metric("qnet_tampered_total")
    TAMPERINGS[what](switch)
    wait_for(lambda: process.metric("qnet_tampered_total") > reported, 5)
    wait_for(lambda: content(switch) == before, 5)
    assert "someone else" in process.log


UNSEEN = ("actions, cookie kept", "meter")
"""What the cookies do not show, so that it is found only where what is there is read back."""


@pytest.mark.parametrize("what", UNSEEN)
def test_what_others_change_while_no_controller_looks_is_found_by_its_content(
    process: Process, switch: Vswitch, what: str
) -> None:
    before, said = content(switch), process.log.count("someone else")
    process.end()
    TAMPERINGS[what](switch)
    assert content(switch) != before
    process.start()
    wait_for(lambda: process.switch().get("adopted"))
    wait_for(lambda: content(switch) == before, 5)
    assert (process.log.count("someone else") > said) == (what == "actions, cookie kept")


def test_our_own_changes_are_no_tampering(process: Process, switch: Vswitch, intent: Database) -> None:
    reported = process.metric("qnet_tampered_total")
    intent.execute(update("Pod", ["name", "==", "web-3"], mac="02:00:00:00:00:44"))
    wait_for(lambda: any("02:00:00:00:00:44" in line for line in switch.flows()))
    switch.ofctl("add-flow", "table=250,priority=1,ip actions=drop")  # comes after it on the same connection
    wait_for(lambda: process.metric("qnet_tampered_total") == reported + 1)


def test_several_changes_at_once_are_put_right(process: Process, switch: Vswitch) -> None:
    before = content(switch)
    switch.ofctl("del-groups")
    switch.ofctl("del-flows", "table=0")
    wait_for(lambda: content(switch) == before, 5)
