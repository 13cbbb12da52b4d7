# SPDX-License-Identifier: Apache-2.0
"""Random tenants on real Open vSwitch and the real controller: packets sent, and compared with the policy oracle."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest

from .agent import BIG, TALKING_PORT
from .live import Fleet, dotted
from .oracle import expected
from .tenants import ICMP, IPV6, POD_BLOCK, SERVICE_BLOCK, TCP, UDP, ExportPlan, World, random_export, random_world

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]
PROBES: list[tuple[int, int | None]] = [(TCP, 80), (TCP, 81), (UDP, 53), (UDP, 54), (ICMP, None)]
SETTLE_SECONDS, RESTART_SECONDS, CLOSE_SECONDS = 0.7, 5.0, 0.5
RESUME_SECONDS = 5.0
"""Longer than TCP waits to send again what was lost meanwhile."""


def check(fleet: Fleet, what: str) -> None:
    """Every pod tries every address in every way; who answers, and what it saw, is as the oracle says."""
    world, wrong = fleet.world, []
    used = {address for pod in world.pods.values() for address in pod.addresses} | set(world.service_ips.values())
    addresses = sorted(used) + [family + block + 251 for family in (0, IPV6) for block in (POD_BLOCK, SERVICE_BLOCK)]
    now = time.time()
    for (key, address, protocol, port), answer in fleet.measure(addresses, PROBES).items():
        client = world.pods[key]
        want = expected(world, client, address, protocol, port, now)
        place = f"{key}@{client.host} -> {dotted(address)} in {client.network}, {protocol}/{port}"
        if answer is None:
            if want.receivers:
                wrong.append(f"wrong deny: {place}, expected {set(want.receivers)}")
        elif not want.receivers:
            wrong.append(f"wrong allow: {place} got {answer}")
        elif protocol != ICMP:
            who, seen = answer
            source = want.seen_at or (address if want.balanced and who == key else client.own(address))
            assert source is not None
            if who not in want.receivers or seen != dotted(source):
                wrong.append(f"{place}: {answer}, expected one of {set(want.receivers)} that sees {dotted(source)}")
    assert not wrong, f"{what}: {len(wrong)} wrong\n" + "\n".join(wrong)


def small_world(family: int) -> World:
    """Group a serves with one pod on h2, group b calls from h1; a/s is exported to b with its pods."""
    world = World({"red": 100}, {"a": 1, "b": 2})
    world.services = {"a/s": "red", "b/u": "red"}
    world.service_ips = {"a/s:main": family + SERVICE_BLOCK + 10}
    world.new_pod("a/s", "h2", families=(family,))
    world.new_pod("b/u", "h1", families=(family,))
    world.exports["a/s", "b"] = ExportPlan("a/s", "b", direct=True)
    return world


@pytest.mark.parametrize("family", [0, IPV6], ids=["IPv4", "IPv6"])
def test_live_promises(family: int, tmp_path: Path) -> None:
    world = small_world(family)
    with Fleet(tmp_path, world, ["h1", "h2"]) as fleet:
        fleet.wait_until_ready()
        service, pod = dotted(family + SERVICE_BLOCK + 10), dotted(world.pods["a/s-1"].address)
        client, name = fleet.agents["b/u-1"], ["a/s-1", dotted(world.pods["b/u-1"].address)]
        tries = [[service, TCP, 80], [pod, TCP, 81], [service, UDP, 53], [service, ICMP, None]]

        # A second connection of a pair asks nobody.
        assert client.say(json.dumps(tries)) == [name, name, name, ["?", ""]]
        asked = fleet.asked()
        assert asked
        for _ in range(3):
            assert client.say(json.dumps(tries)) == [name, name, name, ["?", ""]]
        assert fleet.asked() == asked

        # One client port reaches the pod through the Service IP, then straight, and again; one after the other, since
        # on the userspace datapath not both at once.
        for address in (service, pod, service, pod):
            time.sleep(CLOSE_SECONDS)
            assert [address, *client.say(json.dumps([[address, TCP, 80, 5000]]))] == [address, name]

        # A denied pair asks once for many packets.
        denied = [[dotted(family + POD_BLOCK + 99), TCP, 80]] * 5
        assert client.say(json.dumps(denied)) == [None] * 5
        assert fleet.asked() - asked <= 5
        asked = fleet.asked()
        assert client.say(json.dumps(denied)) == [None] * 5
        assert fleet.asked() == asked

        # An open connection survives the controller, and ends both ways with its port or its export.
        assert client.say(f"hold {service}") is True
        fleet.stop_controller()
        assert client.say("listen") > 5
        fleet.start_controller()
        time.sleep(RESTART_SECONDS)
        assert client.say("listen") > 5
        fleet.change_export(ExportPlan("a/s", "b", frozenset({(TCP, 80)}), direct=True))
        time.sleep(SETTLE_SECONDS)
        assert client.say("arrivals") == 0
        talking = (TCP, TALKING_PORT)
        fleet.change_export(ExportPlan("a/s", "b", frozenset({(TCP, 80), talking}), direct=True))
        time.sleep(RESUME_SECONDS)
        assert client.say("listen") == 0, "a connection that has been ended came back with its port"
        assert client.say(f"hold {service}") is True
        fleet.change_export(ExportPlan("a/s", "b", frozenset({talking})))
        time.sleep(SETTLE_SECONDS)
        assert client.say("listen") > 5
        fleet.remove_export(world.exports["a/s", "b"])
        time.sleep(SETTLE_SECONDS)
        assert client.say("listen") == 0
        assert client.say(json.dumps(tries)) == [None] * 4


def test_live_fragments_and_a_moved_pod_that_speaks_first(tmp_path: Path) -> None:
    world = small_world(0)
    world.new_pod("b/u", "h2", families=(0,))
    talking, dns = (TCP, TALKING_PORT), (UDP, 53)
    world.exports["a/s", "b"] = ExportPlan("a/s", "b", frozenset({talking, dns}), direct=True)
    with Fleet(tmp_path, world, ["h1", "h2"]) as fleet:
        fleet.wait_until_ready()
        service, pod = dotted(SERVICE_BLOCK + 10), dotted(world.pods["a/s-1"].address)
        clients = [fleet.agents["b/u-1"], fleet.agents["b/u-2"]]  # on another host, and on the same one
        for client in clients:
            for address in (service, pod, service):
                assert client.say(f"big {address} 53") == BIG
                assert client.say(f"big {address} 54") == 0
        # The server goes on talking from its new host, though nobody asks it anything there.
        for client in clients:
            assert client.say(f"hold {service}") is True
        for target in ("h1", "h2"):
            fleet.move(world.pods["a/s-1"], target)
            fleet.wait_until_ready()
            time.sleep(RESUME_SECONDS)
            for client in clients:
                assert client.say("listen") > 5, target


@pytest.mark.parametrize("family", [0, IPV6], ids=["IPv4", "IPv6"])
def test_live_calls_between_networks_with_the_same_addresses(family: int, tmp_path: Path) -> None:
    """The caller and a pod that it calls have one address; next to each is a pod of the other's network."""
    world = World({"red": 100, "blue": 200}, {"a": 1, "b": 2, "c": 3})
    world.services = {"a/s": "red", "b/u": "blue", "c/w": "blue", "c/x": "red"}
    for service, host in (("a/s", "h1"), ("a/s", "h2"), ("b/u", "h1"), ("b/u", "h2"), ("c/w", "h1"), ("c/x", "h1")):
        world.new_pod(service, host, families=(family,))
    assert world.pods["a/s-1"].address == world.pods["b/u-1"].address
    assert world.pods["a/s-2"].address == world.pods["b/u-2"].address
    world.guests = {("blue", "red"): (300, (family + SERVICE_BLOCK + 250,))}
    world.service_ips = {"a/s:main": family + SERVICE_BLOCK + 10, "a/s:blue": family + SERVICE_BLOCK + 10}
    world.elsewhere = {"a/s:blue": "blue"}
    world.exports["a/s", "b"] = ExportPlan("a/s", "b", frozenset({(TCP, 80), (UDP, 53), (ICMP, None), (TCP, 82)}))
    with Fleet(tmp_path, world, ["h1", "h2"]) as fleet:
        fleet.wait_until_ready()
        check(fleet, "exported")
        client = fleet.agents["b/u-1"]
        assert client.say(f"hold {dotted(family + SERVICE_BLOCK + 10)}") is True
        assert client.say("listen") > 5
        expires = int(time.time()) + 3
        fleet.change_export(ExportPlan("a/s", "b", frozenset({(TCP, 82)}), expires=expires))
        time.sleep(expires - time.time() + SETTLE_SECONDS)
        assert client.say("listen") == 0, "an open connection outlived its export"
        check(fleet, "expired")


@pytest.mark.parametrize("family", [0, IPV6], ids=["IPv4", "IPv6"])
def test_live_modules_join_networks_and_part_them_again(family: int, tmp_path: Path) -> None:
    """The lists of an inventory through qnet_tenant and qnet_guest; VNI and addresses are what those allocate."""
    world = World({"red": 100, "blue": 200}, {"a": 1, "b": 2})
    world.services = {"a/s": "red", "b/u": "blue"}
    for service, host in (("a/s", "h1"), ("a/s", "h2"), ("b/u", "h1"), ("b/u", "h2")):
        world.new_pod(service, host, families=(family,))
    assert world.pods["a/s-1"].address == world.pods["b/u-1"].address
    seen, address = family + SERVICE_BLOCK + 1, family + SERVICE_BLOCK + 40
    service_ips = [{"name": "there", "network": "blue", "address": dotted(address)}]
    offered = {"name": "s", "network": "red", "service_ips": service_ips}
    lists: dict[str, object] = {
        "guests": [{"network": "blue", "home": "red"}],
        "tenants": [{"name": "a", "security_groups": [{"name": "a", "services": [offered]}]}],
        "exports": [{"service": "a/s", "to": "b", "ports": ["tcp/80", "udp/53"]}],
    }
    with Fleet(tmp_path, world, ["h1", "h2"]) as fleet:
        fleet.wait_until_ready()
        check(fleet, "apart")
        fleet.module("qnet_tenant", **lists, wait=True)
        (guest,) = fleet.module("qnet_guest_info")["guests"]
        assert guest["vni"] == 16777214
        assert dotted(seen) in guest["addresses"]
        world.guests["blue", "red"] = (guest["vni"], (seen,))
        world.service_ips["a/s:there"], world.elsewhere["a/s:there"] = address, "blue"
        world.exports["a/s", "b"] = ExportPlan("a/s", "b", frozenset({(TCP, 80), (UDP, 53)}))
        check(fleet, "joined")
        assert fleet.module("qnet_tenant", **lists)["changed"] is False
        gone = [{"group": "a", "service": "s", "name": "there"}]
        fleet.module("qnet_service_ip", service_ips=gone, state="absent", wait=True)
        fleet.module("qnet_guest", network="blue", home="red", state="absent", wait=True)
        del world.guests["blue", "red"], world.service_ips["a/s:there"], world.elsewhere["a/s:there"]
        check(fleet, "apart again")


@pytest.mark.parametrize("seed", [7, 8])
def test_live_packets_reach_exactly_whom_they_should(seed: int, tmp_path: Path) -> None:
    chooser = random.Random(seed)
    world = random_world(chooser, ["h1", "h2"], time.time())
    for export in world.exports.values():
        export.expires = None
    with Fleet(tmp_path, world, ["h1", "h2"]) as fleet:
        fleet.wait_until_ready()
        check(fleet, "at first")
        if world.exports:
            fleet.remove_export(chooser.choice(list(world.exports.values())))
            time.sleep(SETTLE_SECONDS)
            check(fleet, "an export revoked")
        added = random_export(world, chooser, time.time())
        assert added
        added.expires = None
        fleet.add_export(added)
        time.sleep(SETTLE_SECONDS)
        check(fleet, "an export added")
        pod = chooser.choice(list(world.pods.values()))
        fleet.move(pod, "h2" if pod.host == "h1" else "h1")
        fleet.wait_until_ready()
        time.sleep(SETTLE_SECONDS)
        check(fleet, f"{pod.key} moved")
        fleet.stop_controller()
        fleet.start_controller()
        time.sleep(RESTART_SECONDS)
        check(fleet, "the controller restarted")
