# SPDX-License-Identifier: Apache-2.0
"""Broadcast and multicast: to nobody; of a group that declares it, to all others of it in the network alone."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from qnet_controller.decide.decide import Origin
from qnet_controller.model import objects as o
from qnet_controller.pipeline import messages as m
from qnet_controller.pipeline.broadcast import Broadcast
from qnet_controller.pipeline.tables import Table
from simulator import packets as p
from simulator.fabric import TUNNEL_PORT
from simulator.switch import Emission

from .probe import GROUPS, Prober, to_all
from .scene import grant
from .tenants import IPV6, POD_BLOCK, ExportPlan, PodPlan, group_object, pod_object
from .test_simulated import check_programs


def declare(prober: Prober, *groups: str) -> None:
    """These groups may speak to all of their own, others may not."""
    before, prober.world.broadcast = prober.world.broadcast, set(groups)
    prober.fabric.apply([group_object(prober.world, group) for group in sorted(before ^ set(groups))])


def hold(prober: Prober) -> None:
    """Everybody sends to all of every kind, and exactly those hear it who should."""
    for client in prober.clients():
        for number in range(6):
            prober.to_all(client, number)
    check_programs(prober.fabric)


def add(prober: Prober, service: str, host: str) -> PodPlan:
    """A new pod of both families."""
    pod = prober.world.new_pod(service, host, families=(0, IPV6))
    prober.fabric.apply([pod_object(pod)])
    prober.fabric.plug(pod_object(pod), host)
    return pod


def test_nobody_hears_anything_unless_it_is_declared(prober: Prober) -> None:
    asked = prober.fabric.asked()
    hold(prober)
    assert prober.fabric.asked() == asked


def test_members_alone_hear_it_and_only_their_hosts_get_it(prober: Prober) -> None:
    add(prober, "a/t", "h2")
    grant(prober, ExportPlan("a/s", "b", direct=True))  # that one may call them is no reason
    declare(prober, "a", "x")
    hold(prober)
    sender = prober.world.pods["a/s-1"]
    node, port = prober.fabric.port(pod_object(sender))
    packet = replace(to_all(sender.address, 0), eth_src=int.from_bytes(pod_object(sender).mac, "big"))
    outcomes, _ = node.switch.follow(packet, port, {})
    there = [item for item in outcomes if isinstance(item, Emission) and node.switch.ports[item.port] == TUNNEL_PORT]
    assert [item.tun_dst for item in there] == [prober.fabric.nodes["h2"].vtep]
    assert Broadcast(Origin.TUNNEL, 100, 1) not in prober.fabric.nodes["h3"].program.demands


def test_a_second_packet_asks_nobody(prober: Prober) -> None:
    declare(prober, "a")
    pod = prober.world.pods["a/s-1"]
    for number in range(3):
        prober.to_all(pod, number)
    asked = prober.fabric.asked()
    for number in range(3):
        prober.to_all(pod, number)
    assert prober.fabric.asked() == asked


def test_every_change_is_exact_at_once_and_touches_nothing_else(prober: Prober) -> None:
    declare(prober, "a", "b")
    new = add(prober, "a/t", "h3")
    hold(prober)
    prober.fabric.move(pod_object(new), "h3", "h1")
    new.host = "h1"
    hold(prober)
    prober.fabric.unplug(pod_object(new), "h1")
    new.host = None
    hold(prober)
    del prober.world.pods[new.key]
    prober.fabric.apply([o.Removed(o.Pod, new.key)])
    hold(prober)
    before = len(prober.fabric.commands)
    declare(prober, "b")
    said = [command for _, command in prober.fabric.commands[before:]]
    tables = {item.key[0] if isinstance(item, m.DeleteFlow) else item.flow.table
              for item in said if isinstance(item, m.DeleteFlow | m.AddFlow)}  # fmt: skip
    assert tables <= {Table.ADMISSION, Table.BROADCAST}
    assert len([item for item in said if isinstance(item, m.DeleteMeter)]) == 3
    hold(prober)


def test_a_new_master_takes_it_over_without_a_word(prober: Prober) -> None:
    declare(prober, "a")
    hold(prober)
    before = len(prober.fabric.commands)
    prober.fabric.restart_controller(random.Random(1))
    assert all(isinstance(item[1], m.PutGroup) for item in prober.fabric.commands[before:])
    hold(prober)


def test_the_demand_ends_with_the_traffic(prober: Prober) -> None:
    declare(prober, "a")
    prober.to_all(prober.world.pods["a/s-1"], 0)
    assert any(isinstance(item, Broadcast) for node in prober.fabric.nodes.values() for item in node.program.demands)
    prober.fabric.wait(prober.fabric.settings.idle_timeout_seconds + 1)
    assert not any(isinstance(item, Broadcast) for n in prober.fabric.nodes.values() for item in n.program.demands)


@pytest.mark.parametrize("family", [0, IPV6])
def test_who_pretends_or_serves_is_not_heard(prober: Prober, family: int) -> None:
    declare(prober, "a", "c")
    pod = add(prober, "a/t", "h2")
    mac = int.from_bytes(pod_object(pod).mac, "big")
    mine, other = pod.own(family), prober.world.pods["a/s-1"].address + family
    assert mine is not None
    good = to_all(mine, 0)
    unicast_frame = replace(good, eth_dst=0x0A0000000001)
    unicast_address = replace(good, target=prober.world.pods["a/s-1"].address + family)
    tries = [replace(good, source=other), replace(good, eth_src=mac ^ 1), unicast_frame, unicast_address]
    if family:
        tries += [replace(good, dst_port=port) for port in (546, 547)]
        neighbour = p.Packet(eth_type=p.ETH_IPV6, ip_proto=p.ICMPV6, source=mine, target=GROUPS[1][0])
        tries += [replace(neighbour, icmp_type=kind, eth_dst=good.eth_dst) for kind in (134, 136, 137)]
    else:
        tries += [replace(good, dst_port=port) for port in (67, 68)]
        tries += [replace(good, ip_proto=2)]
    for packet in tries:
        assert not prober.fabric.send(pod_object(pod), packet), packet


def test_a_tunnel_is_not_believed(prober: Prober) -> None:
    """Another host's word counts for its own pods alone: not for strangers, other groups, other networks, or DHCP."""
    declare(prober, "a")
    here, member = prober.fabric.nodes["h1"], prober.world.pods["a/s-2"]
    assert member.host == "h2"
    outer = {"tun_src": prober.fabric.nodes["h2"].vtep, "tun_dst": here.vtep, "tun_id": 100}
    good = to_all(member.address, 0)
    got = {prober.receiver(delivery.pod) for delivery in prober.fabric.inject(here, 1, good, outer)}
    assert got == {"a/s-1", "a/t-1"}
    outsider = prober.world.pods["b/u-2"]
    for packet, changes in (
        (good, {"tun_src": 0x01020304}), (good, {"tun_id": 200}), (good, {"tun_id": 7}),
        (replace(good, dst_port=68), {}), (replace(good, source=outsider.address), {}),
        (replace(good, source=outsider.address), {"tun_src": prober.fabric.nodes["h3"].vtep}),
        (replace(good, source=POD_BLOCK + 200), {}),
    ):  # fmt: skip
        reached = {prober.receiver(item.pod) for item in prober.fabric.inject(here, 1, packet, outer | changes)}
        assert reached <= {"x/y-1"} if changes.get("tun_id") == 200 else not reached, (packet, changes)


def test_each_pod_has_a_meter_of_its_own(prober: Prober) -> None:
    declare(prober, "a")
    loud, quiet = prober.world.pods["a/s-1"], prober.world.pods["a/t-1"]
    heard = sum(len(prober.fabric.send(pod_object(loud), to_all(loud.address, 0))) for _ in range(1000))
    assert heard == 2 * prober.fabric.settings.broadcast_burst
    prober.to_all(quiet, 0)
