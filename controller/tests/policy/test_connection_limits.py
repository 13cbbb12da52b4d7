# SPDX-License-Identifier: Apache-2.0
"""A pod that opens connections without end fills its own share of the connections tracked on its host, nobody else's.

On real Open vSwitch. The limits are set by what the role `connections` installs. QNET_FLOOD: how many connections.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest

from contract.real import REPOSITORY, run

from .live import Fleet, Vswitch, dotted, port_name
from .tenants import World

pytestmark = [pytest.mark.live, pytest.mark.timeout(300)]
FLOODING = Path(__file__).parent / "flooding.py"
LIMITS = REPOSITORY / "roles" / "connections" / "files" / "qnet_connection_limits.py"
FLOOD, LIMIT, QUESTIONS = int(os.environ.get("QNET_FLOOD", "10000")), 2000, 200


def world() -> World:
    """On h1: a rogue with somebody to call there, and a bystander that calls a pod of h2 and one of h1."""
    made = World({"red": 100}, {"a": 1, "b": 2})
    made.services = {"a/rogue": "red", "a/called": "red", "b/by": "red", "b/near": "red", "b/far": "red"}
    for service, host in (("a/rogue", "h1"), ("a/called", "h1"), ("b/by", "h1"), ("b/near", "h1"), ("b/far", "h2")):
        made.new_pod(service, host)
    made.service_ips = {"a/called:main": 0x0A020010, "b/near:main": 0x0A020011, "b/far:main": 0x0A020012}
    return made


def limit(host: Vswitch, connections: int) -> None:
    """Let a host limit what each of its pods has; its log does not tell of each zone, and of all else as before."""
    levels = host.appctl("vlog/list")
    run(sys.executable, "-I", str(LIMITS), str(connections), f"--control={host.directory / 'vswitchd.ctl'}")
    assert host.appctl("vlog/list") == levels
    assert "zone limit" not in (host.directory / "vswitchd.log").read_text()


def tracked(fleet: Fleet, pod: str) -> tuple[int, int]:
    """The limit of a pod and how many connections are tracked for it now."""
    host = fleet.hosts[str(fleet.world.pods[pod].host)]
    zone = host.vsctl("get", "Interface", port_name(pod), "ofport")
    said = host.appctl("dpctl/ct-get-limits", f"zone={zone}")
    found = re.search(rf"zone={zone},limit=(\d+),count=(\d+)", said)
    assert found, said
    return int(found[1]), int(found[2])


def test_a_flood_fills_its_own_share_and_a_bystander_keeps_all(tmp_path: Path) -> None:
    with Fleet(tmp_path, world(), ["h1", "h2"], FLOODING) as fleet:
        fleet.wait_until_ready()
        limit(fleet.hosts["h1"], LIMIT)
        rogue, bystander = fleet.agents["a/rogue-1"], fleet.agents["b/by-1"]
        called, near, far = (dotted(address) for address in fleet.world.service_ips.values())
        for address in (near, far):
            assert bystander.say(f"ask {address} {QUESTIONS}") == QUESTIONS
        # While it floods, and after.
        assert rogue.process.stdin
        rogue.process.stdin.write(f"flood {called} {FLOOD}\n")
        rogue.process.stdin.flush()
        meanwhile = [bystander.say(f"ask {address} {QUESTIONS}") for address in (near, far)]
        assert rogue.answer() == FLOOD
        after = [bystander.say(f"ask {address} {QUESTIONS}") for address in (near, far)]
        assert meanwhile + after == [QUESTIONS] * 4
        assert tracked(fleet, "a/rogue-1") == (LIMIT, LIMIT)
        assert tracked(fleet, "b/by-1")[1] < LIMIT
        assert [event["text"] for event in said(fleet)] == [
            f"has {LIMIT} connections, as many as it may: it opens no more, and takes no more"
        ]
        fleet.hosts["h1"].appctl("dpctl/flush-conntrack")
        assert [event["text"] for event in said(fleet)][1:] == ["may have more connections again"]


def said(fleet: Fleet) -> list[dict[str, str]]:
    """What the controller says of the rogue's connections, having looked now."""
    return [event for event in json.loads(fleet.api("/v1/drops"))["events"] if event["sender"] == "pod a/rogue-1"]
