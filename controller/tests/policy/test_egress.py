# SPDX-License-Identifier: Apache-2.0
"""Egress rules on real Open vSwitch: what they open works from every network, and nothing else gets out or in."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from .agent import BIG, Answer
from .live import DATAPATH, VTEP_BLOCK, Fleet, dotted
from .revocation import PROGRAM, Streams, settle
from .tenants import IPV6, TCP, UDP, EgressPlan, World
from .wires import FLEET, open_outside, way_out

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]
OUT, OUT_MORE, OUT_SIX = 0xCB007109, 0xCB007182, (0x20010DB8 << 96) + 9  # 203.0.113.9, 203.0.113.130, 2001:db8::9
WIDE, NARROW, SIX = 0xCB007100, 0xCB007180, 0x20010DB8 << 96
TICK_MILLISECONDS, QUIET_SECONDS = 40, 1.5
EVERYTHING = (EgressPlan(0, 0), EgressPlan(0, 0, TCP, 80), EgressPlan(0x20010000 << 96, 16))


def world() -> World:
    """Two networks with the same addresses; a is in both of them, and there is b, which reaches nothing."""
    made = World({"red": 100, "blue": 200}, {"a": 1, "b": 2})
    made.services = {"a/s": "red", "a/t": "blue", "b/u": "red"}
    for service, host in (("a/s", "h1"), ("a/t", "h1"), ("b/u", "h2"), ("a/s", "h2")):
        made.new_pod(service, host, families=(0, IPV6))
    made.egress["a"] = frozenset({EgressPlan(WIDE, 24, TCP, 80), EgressPlan(NARROW, 25, UDP, 53)})
    return made


def tried(fleet: Fleet, pod: str, *ways: tuple[str, int, int | None]) -> list[Answer]:
    """What a pod gets."""
    fleet.agents[pod].ask(list(ways))
    answer: list[Answer] = fleet.agents[pod].answer()
    return answer


def reached(fleet: Fleet, pod: str, *ways: tuple[str, int, int | None]) -> list[bool]:
    """What of it answers."""
    return [answer is not None for answer in tried(fleet, pod, *ways)]


def test_rules_open_what_they_say_and_nothing_else(tmp_path: Path) -> None:
    made = world()
    assert made.pods["a/s-1"].address == made.pods["a/t-1"].address
    with Fleet(tmp_path, made, ["h1", "h2"]) as fleet:
        open_outside(
            fleet, {"outside": [f"{dotted(OUT)}/32", f"{dotted(OUT_SIX)}/128"], "more": [f"{dotted(OUT_MORE)}/32"]}
        )
        fleet.wait_until_ready()
        near, far, six = dotted(OUT), dotted(OUT_MORE), dotted(OUT_SIX)
        every = [(near, TCP, 80), (near, TCP, 81), (near, UDP, 53), (far, TCP, 80), (far, UDP, 53), (far, 1, None)]
        every += [(six, TCP, 80)]
        # Two pods with the same address in different networks at the same time: the host's own address is seen.
        for pod in ("a/s-1", "a/t-1"):
            fleet.agents[pod].ask(every)
        for pod in ("a/s-1", "a/t-1"):
            assert fleet.agents[pod].answer() == [
                ["outside", "172.31.1.1"], None, None, ["more", "172.31.101.1"], ["more", "172.31.101.1"], None, None,
            ]  # fmt: skip
        assert tried(fleet, "a/s-2", (near, TCP, 80)) == [["outside", "172.31.2.1"]]
        assert not any(reached(fleet, "b/u-1", *every))

        # Every address, and still none of the hosts, of tunnels, of other networks, or of the link.
        fleet.change_egress("a", *EVERYTHING)
        time.sleep(0.5)
        assert tried(fleet, "a/s-1", (six, TCP, 80), (near, TCP, 81), (near, 1, None), (six, UDP, 54)) == [
            ["outside", "fd31::1:1"], ["outside", "172.31.1.1"], ["?", ""], ["outside", "fd31::1:1"],
        ]  # fmt: skip
        hosts = [f"{VTEP_BLOCK}.1", f"{VTEP_BLOCK}.2", "172.31.1.1", "198.19.255.254", "127.0.0.1", "169.254.1.1"]
        assert not any(reached(fleet, "a/s-1", *((address, 1, None) for address in hosts if address != "127.0.0.1")))
        other = dotted(made.pods["b/u-1"].address)
        assert not any(reached(fleet, "a/s-1", (other, TCP, 80), (other, UDP, 53)))
        assert not any(reached(fleet, "b/u-1", *every))
        assert fleet.agents["a/s-1"].say(f"big {near} 53") == BIG

        # Nothing opens a connection inward, not even a machine that routes the addresses of the link to the host.
        fleet.ip(f"{fleet.prefix}outside", "route", "add", "198.19.0.0/16", "via", "172.31.1.1")
        ports = [line.split("(")[0].strip() for line in fleet.hosts["h1"].ofctl("show").splitlines() if "(qn" in line]
        inward = [
            (f"198.19.0.{port}", protocol, number) for port in ports for protocol, number in ((TCP, 80), (1, None))
        ]
        assert inward
        assert not any(reached(fleet, "outside", *inward))

        # A scan of random addresses asks once for each block that is treated alike.
        fleet.change_egress("a", EgressPlan(WIDE, 24, TCP, 80))
        time.sleep(0.5)
        before = fleet.asked()
        scan = [(f"{first}.{second}.7.7", UDP, 53) for first in range(1, 224, 9) for second in (3, 200)]
        reached(fleet, "a/s-2", *scan[: len(scan) // 2])
        asked = fleet.asked() - before
        assert 0 < asked <= 40, asked
        flows = fleet.hosts["h2"].ofctl("dump-flows", "table=3")
        known = reached(fleet, "a/s-2", *scan[: len(scan) // 2])
        assert not any(known)
        assert fleet.asked() - before == asked
        assert flows.count("nw_dst=") < 40
        explained = json.loads(fleet.api(f"/v1/trace?from=a/s-1&to={near}&protocol=tcp&port=80"))
        assert explained["passes"]
        assert [way["target"] for way in explained["ways"]] == ["outside"]
        for host in fleet.hosts.values():
            way_out(host, "attach", FLEET)
            assert host.ofctl("show").count("qnet-out") == 1
        if DATAPATH == "netdev":
            assert tried(fleet, "a/s-1", (near, TCP, 80)) == [["outside", "172.31.1.1"]]


def test_streams_end_in_both_directions_with_the_rule(tmp_path: Path) -> None:
    made = world()
    made.egress["a"] = frozenset({EgressPlan(OUT, 32), EgressPlan(NARROW, 25)})
    with Fleet(tmp_path, made, ["h1", "h2"], PROGRAM) as fleet:
        open_outside(fleet, {"outside": [f"{dotted(OUT)}/32"], "more": [f"{dotted(OUT_MORE)}/32"]})
        fleet.wait_until_ready()
        streams = Streams(fleet)
        streams.open("a/s-1", [(p, OUT, mode, TICK_MILLISECONDS) for p in (TCP, UDP) for mode in (1, 2, 3)])
        ended = set(streams.opened)
        streams.open("a/s-1", [(p, OUT_MORE, mode, TICK_MILLISECONDS) for p in (TCP, UDP) for mode in (1, 2, 3)])
        settle(streams)
        asked = {"security_groups": [{"name": "a", "egress": [{"to": f"{dotted(NARROW)}/25"}]}]}
        would = fleet.module("qnet_security_group", **asked, _ansible_check_mode=True, _ansible_diff=True)["what_if"]
        assert would["connections_ended"] == len(ended)
        assert [(item["group"], item["target"], item["address"], item["ports"]) for item in would["lost"]] == [
            ("a", "outside", f"{dotted(OUT)}/32", "all")
        ]
        gone = fleet.module("qnet_security_group", **asked, wait=True)
        assert gone["receipt"]["confirmed"]
        assert gone["receipt"]["connections_ended"] == len(ended), gone["receipt"]
        assert gone["receipt"]["ended"] == would["ended"]
        time.sleep(QUIET_SECONDS)
        after = streams.report()
        time.sleep(QUIET_SECONDS)
        later = streams.report()
        for number, sides in later.items():
            for side, (pod, _, records, lost, reset) in sides.items():
                if number in ended:
                    assert records == after[number][side][2], (number, side, pod)
                else:
                    assert not lost, (number, side)
                    assert not reset, (number, side)
                    assert records > after[number][side][2] or streams.opened[number][2] != 3, (number, side)
        back = fleet.module(
            "qnet_security_group", security_groups=[{"name": "a", "egress": [{"to": f"{dotted(OUT)}/32"}]}], wait=True
        )
        assert back["receipt"]["confirmed"]
        streams.open("a/s-1", [(TCP, OUT, 3, TICK_MILLISECONDS)])
