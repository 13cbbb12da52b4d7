# SPDX-License-Identifier: Apache-2.0
"""Calls between networks that use the same addresses: only what is exported, only by the way there is, and back."""

from __future__ import annotations

import pytest

from qnet_controller.model import objects as o
from simulator import packets as p
from simulator.fabric import VIRTUAL_MAC
from simulator.packets import packed

from .probe import Prober
from .scene import grant, opened, revoke
from .tenants import SERVICE_BLOCK, TCP, ExportPlan, pod_object, service_ip_object
from .test_simulated import HOSTS

CALLS, ANSWERS, SEEN, THERE = 300, 301, SERVICE_BLOCK + 250, SERVICE_BLOCK + 10
GUEST = o.Guest("blue", "red", CALLS, (packed(SEEN),))


@pytest.fixture
def prober(prober: Prober) -> Prober:
    """The scene, with a/s offered to x in the network of x, at an address that also means it at home."""
    world = prober.world
    world.guests["blue", "red"] = (CALLS, (SEEN,))
    world.service_ips["a/s:there"] = THERE
    world.elsewhere["a/s:there"] = "blue"
    prober.fabric.apply([GUEST, service_ip_object(world, "a/s:there")])
    grant(prober, ExportPlan("a/s", "x"))
    return prober


def known(prober: Prober, key: str) -> o.Pod:
    """A pod as the controller knows it."""
    return prober.fabric.model.pods[key]


def test_every_pair_is_as_the_policy_says(prober: Prober) -> None:
    # x/y-1 has the address of a/s-1, one of the pods that it calls.
    assert prober.world.pods["x/y-1"].address == prober.world.pods["a/s-1"].address
    assert {opened(prober, "x/y-1", THERE).server for _ in range(30)} == {"a/s-1", "a/s-2"}
    prober.check_all()


def test_it_ends_both_ways_with_the_export_and_with_the_passage(prober: Prober) -> None:
    items = [opened(prober, client, THERE) for client in ("x/y-1", "x/y-2") for _ in range(5)]
    assert all(prober.check_open(item) for item in items)
    revoke(prober, "a/s", "x")
    assert not any(prober.check_open(item) for item in items)
    grant(prober, ExportPlan("a/s", "x"))
    items = [opened(prober, client, THERE) for client in ("x/y-1", "x/y-2") for _ in range(5)]
    prober.fabric.apply([o.Removed(o.Guest, GUEST.key)])
    for item in items:
        server = prober.world.pods[item.server]
        assert not item.session.forward()
        assert not item.session.backward(known(prober, server.key))


def test_a_pod_opens_nothing_towards_its_callers(prober: Prober) -> None:
    item = opened(prober, "x/y-1", THERE)
    seen = item.session.at_server
    assert seen is not None
    server = prober.world.pods[item.server]
    for sport, dport in ((80, 9), (7, seen.src_port), (7, 80)):
        for flags in (p.SYN, p.ACK, p.SYN | p.ACK, p.RST):
            assert not prober.fabric.send(known(prober, server.key), p.tcp(server.address, sport, SEEN, dport, flags))


@pytest.mark.parametrize(("host", "vni"), [("h3", CALLS), ("h3", ANSWERS), ("h1", ANSWERS)])
def test_a_tunnel_brings_only_who_is_behind_it(prober: Prober, host: str, vni: int) -> None:
    opened(prober, "x/y-1", THERE)
    opened(prober, "x/y-2", THERE)
    target = "h2" if host == "h1" else "h1"
    outer = {"tun_id": vni, "tun_src": HOSTS[host][1], "tun_dst": HOSTS[target][1]}
    pods = prober.world.pods
    for source in {pod.address for pod in pods.values()}:
        for there in ("a/s-1", "a/s-2", "a/t-1", "x/y-1", "x/y-2", "c/w-1"):
            packet = p.tcp(source, 80, pods[there].address, 9, p.SYN)
            packet.eth_src, packet.eth_dst = 0x020000000001, VIRTUAL_MAC
            assert not prober.fabric.inject(prober.fabric.nodes[target], 1, packet, outer), packet


def test_the_own_group_needs_an_export_as_well(prober: Prober) -> None:
    world = prober.world
    world.services["a/far"] = "blue"
    pod = world.new_pod("a/far", "h2")
    prober.fabric.apply([o.Service("far", "a", "blue")])
    prober.fabric.apply([pod_object(pod)])
    prober.fabric.plug(pod_object(pod), "h2")
    assert prober.probe(pod, THERE, TCP, 80) is None
