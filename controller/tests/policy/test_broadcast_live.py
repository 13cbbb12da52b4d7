# SPDX-License-Identifier: Apache-2.0
"""Broadcast and multicast on real Open vSwitch with the real controller and real kernels in the pods."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from contract.real import wait_for

from .hearing import IPV4_GROUPS, IPV6_GROUPS
from .live import Fleet, dotted
from .oracle import hear
from .tenants import IPV6, POD_BLOCK, ExportPlan, World

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]
HEARING = Path(__file__).parent / "hearing.py"
TO_ALL = {0: ("255.255.255.255", dotted(POD_BLOCK + 255), *IPV4_GROUPS), IPV6: IPV6_GROUPS}
LONGEST_SECONDS, SETTLE_SECONDS = 10.0, 1.0


def world() -> World:
    """Group a in two networks, one pod of it on each host and two on h1; b and another network's pods beside them."""
    made = World({"red": 100, "blue": 200}, {"a": 1, "b": 2}, broadcast={"a"})
    made.services = {"a/s": "red", "b/u": "red", "a/z": "blue"}
    for service, host in (("a/s", "h1"), ("a/s", "h1"), ("a/s", "h2"), ("b/u", "h1"), ("b/u", "h2"), ("a/z", "h1"),
                          ("a/z", "h2")):  # fmt: skip
        made.new_pod(service, host, families=(0, IPV6))
    made.exports["a/s", "b"] = ExportPlan("a/s", "b", direct=True)
    return made


def tell(fleet: Fleet, mark: str) -> dict[str, list[str]]:
    """Every pod sends to all in every way; returns what each should have heard."""
    due: dict[str, list[str]] = {key: [] for key in fleet.world.pods}
    for key, pod in fleet.world.pods.items():
        for family, targets in TO_ALL.items():
            source = next(dotted(address) for address in pod.addresses if (address >= IPV6) == bool(family))
            for number, target in enumerate(targets):
                text = f"{mark}/{key}/{family != 0}/{number}"
                assert fleet.agents[key].say(f"send {source} {target} {text}") is True
                for listener in hear(fleet.world, pod):
                    due[listener].append(text)
    return due


def check(fleet: Fleet, mark: str) -> None:
    """What everybody sends to all is heard by exactly those who should, once."""
    due = tell(fleet, mark)
    got: dict[str, list[str]] = {key: [] for key in due}
    end, settled = time.monotonic() + LONGEST_SECONDS, 0.0
    while time.monotonic() < end and not (settled and time.monotonic() > settled):
        for key, agent in fleet.agents.items():
            # A kernel lets its own sockets hear what they send.
            others = (text for text in agent.say("heard") if not text.startswith(f"{mark}/{key}/"))
            got[key] += [text for text in others if text.startswith(mark)]
        # All is there; what should not be may still come.
        if not settled and all(len(got[key]) >= len(due[key]) for key in due):
            settled = time.monotonic() + SETTLE_SECONDS
        time.sleep(0.05)
    assert {key: sorted(texts) for key, texts in got.items()} == {key: sorted(texts) for key, texts in due.items()}


def warm(fleet: Fleet, one: str, other: str) -> None:
    """Open vSwitch loses what it sends to another host before it knows that one's MAC address on the underlay."""
    source = dotted(fleet.world.pods[one].address)

    def heard() -> bool:
        fleet.agents[one].say(f"send {source} {IPV4_GROUPS[0]} warm")
        return bool(fleet.agents[other].say("heard"))

    wait_for(heard, LONGEST_SECONDS)


def test_members_alone_hear_it_and_a_change_is_immediate(tmp_path: Path) -> None:
    with Fleet(tmp_path, world(), ["h1", "h2"], HEARING) as fleet:
        fleet.wait_until_ready()
        for agent in fleet.agents.values():
            agent.say("heard")  # they listen from now on
        warm(fleet, "a/s-1", "a/s-3")
        check(fleet, "one")
        asked = fleet.asked()
        check(fleet, "two")
        assert fleet.asked() == asked
        fleet.change_broadcast("a", False)
        fleet.change_broadcast("b", True)
        time.sleep(SETTLE_SECONDS)
        check(fleet, "three")
        fleet.move(fleet.world.pods["b/u-1"], "h2")
        fleet.change_broadcast("a", True)
        fleet.agents["b/u-1"].say("heard")  # it listens at its new interface
        time.sleep(SETTLE_SECONDS)
        check(fleet, "four")
