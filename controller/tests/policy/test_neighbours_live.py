# SPDX-License-Identifier: Apache-2.0
"""The first packet between two hosts is not lost: their switches know the next hop before anybody needs it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from contract.real import wait_for

from .live import DATAPATH, VTEP_BLOCK, Agent, Fleet, Vswitch, dotted
from .tenants import POD_BLOCK, World

pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(120),
    pytest.mark.skipif(DATAPATH != "netdev", reason="the kernel finds the next hop of its tunnels itself"),
]
HEARING = Path(__file__).parent / "hearing.py"
FIRST_SECONDS, AGAIN_SECONDS = 5, 45  # when it has come to its controller; until it has its turn


def knows(host: Vswitch, other: Vswitch) -> bool:
    return f"{VTEP_BLOCK}.{other.number} " in host.appctl("tnl/neigh/show")


def heard(agent: Agent, text: str) -> bool:
    return text in agent.say("heard")


def test_hosts_know_each_other_before_the_first_packet_and_again_when_they_have_forgotten(tmp_path: Path) -> None:
    world = World({"red": 100}, {"a": 1}, broadcast={"a"})
    world.services = {"a/s": "red"}
    for name in ("h1", "h2", "h3"):
        world.new_pod("a/s", name)
    with Fleet(tmp_path, world, ["h1", "h2", "h3"], HEARING) as fleet:
        fleet.wait_until_ready()
        for agent in fleet.agents.values():
            agent.say("heard")  # they listen from now on
        pairs = [(one, other) for one in fleet.hosts.values() for other in fleet.hosts.values() if one is not other]
        for turn, seconds in (("first", FIRST_SECONDS), ("again", AGAIN_SECONDS)):
            wait_for(lambda: all(knows(one, other) for one, other in pairs), seconds)
            for number in (1, 2, 3):
                one, text = fleet.agents[f"a/s-{number}"], f"{turn}-{number}"
                assert one.say(f"send {dotted(world.pods[f'a/s-{number}'].address)} {dotted(POD_BLOCK + 255)} {text}")
                for other in {1, 2, 3} - {number}:
                    wait_for(partial(heard, fleet.agents[f"a/s-{other}"], text), 3)
            for host in fleet.hosts.values():
                host.appctl("revalidator/purge")  # a flow through the tunnel that is looked at again would ask as well
                host.appctl("tnl/neigh/flush")
                assert f"{VTEP_BLOCK}." not in host.appctl("tnl/neigh/show")
