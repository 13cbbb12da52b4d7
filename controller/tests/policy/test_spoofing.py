# SPDX-License-Identifier: Apache-2.0
"""What a pod or a tunnel may not send is dropped by a flow that says why, and counted for who has sent it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from qnet_controller.controller.drops import COOKIE, COOKIE_MASK, Drops
from qnet_controller.controller.metrics import Metrics
from qnet_controller.model import objects as o
from qnet_controller.pipeline import messages as m
from qnet_controller.pipeline.messages import Feature, InstalledFlow, Traffic
from qnet_controller.pipeline.recover import recover
from qnet_controller.pipeline.strangers import MOST_ALIKE, STRANGERS, Source
from simulator import packets as p
from simulator.fabric import Node
from simulator.packets import packed

from .probe import Prober
from .scene import SIP, opened
from .tenants import IPV6, POD_BLOCK, PodPlan, pod_object
from .test_simulated import HOSTS


def counted(node: Node) -> list[tuple[InstalledFlow, Traffic]]:
    """What a switch answers when it is asked for the flows that drop for a reason."""
    flows, packets = node.switch.flows, node.switch.counters()
    found = (flow for flow in flows.values() if flow.cookie & COOKIE_MASK == COOKIE)
    return [(InstalledFlow(flow.key, flow.cookie), Traffic(packets[flow.key], 0)) for flow in found]


class Counting:
    """The drops of a host, and what has been added to them."""

    def __init__(self, prober: Prober, host: str = "h1") -> None:
        self.prober, self.host = prober, host
        self.rows: dict[tuple[str, str], int] = {}

    async def more(self) -> dict[tuple[str, str], int]:
        """(sender, reason) → packets since the last time."""
        node = self.prober.fabric.nodes[self.host]
        if not hasattr(self, "_drops"):
            self._drops = Drops(lambda: self.prober.fabric.model, {}, Metrics())
        self._drops.count(node.switch.datapath_id, self.host, counted(node))
        rows = {(r["sender"], r["reason"]): r["packets"] for r in self._drops.status()["drops"]}
        added = {place: n - self.rows.get(place, 0) for place, n in rows.items() if n != self.rows.get(place, 0)}
        self.rows = rows
        return added

    def stop(self) -> list[str]:
        """End; returns the texts of the events."""
        self._drops.stop()
        return [f"{event['sender']}: {event['text']}" for event in self._drops.status()["events"]]


def dual(prober: Prober) -> PodPlan:
    """A pod with addresses of both families on h1."""
    pod = prober.world.new_pod("c/w", "h1", families=(0, IPV6))
    prober.fabric.apply([pod_object(pod)])
    prober.fabric.plug(pod_object(pod), "h1")
    return pod


def packets(prober: Prober, pod: PodPlan) -> dict[str, list[p.Packet]]:
    """Reason → packets that a pod may not send for it."""
    victim = prober.world.pods["a/s-1"]
    own, six, mac = pod.address, pod.addresses[1], int.from_bytes(pod_object(pod).mac, "big")
    other_mac = int.from_bytes(pod_object(victim).mac, "big")
    router = p.Packet(
        eth_type=p.ETH_IPV6, ip_proto=p.ICMPV6, source=p.link_local(mac), target=(0xFF02 << 112) + 1, icmp_type=134
    )
    return {
        "spoofed_mac": [
            replace(p.udp(own, 1, victim.address, 2), eth_src=other_mac), p.arp_request(other_mac, own, victim.address),
            p.Packet(eth_type=0x88CC, eth_src=other_mac, payload=bytes(60)),
        ],
        "spoofed_ip": [
            p.udp(victim.address, 1, SIP, 2), p.tcp(six + 1, 1, victim.address + IPV6, 2, p.SYN),
            replace(p.udp(own, 1, victim.address, 2), eth_dst=other_mac),
        ],
        "spoofed_arp": [
            replace(p.arp_request(mac, victim.address, SIP), eth_src=mac),
            replace(p.arp_request(mac, own, SIP), eth_src=mac, arp_op=2),
            replace(p.arp_request(other_mac, own, SIP), eth_src=mac),
            replace(p.arp_request(mac, victim.address, own), eth_src=mac),  # about itself, in another's name
        ],
        "spoofed_nd": [
            replace(p.solicitation(mac, six + 1, SIP + IPV6), eth_src=mac),
            replace(router, icmp_type=136, nd_target=six, nd_option=p.TARGET_OPTION, nd_mac=mac),
            replace(router, icmp_type=136, source=six, target=victim.address + IPV6, nd_target=six),
        ],
        "router": [router, replace(router, source=six, target=victim.address + IPV6), replace(router, icmp_type=137)],
        "dhcp": [replace(p.udp(0, 68, 0xFFFFFFFF, 67), eth_dst=p.BROADCAST)],
        "group_address": [
            replace(p.udp(own, 1, 0xE0000001, 2), eth_dst=0x01005E000001),
            replace(p.udp(own, 1, 0xFFFFFFFF, 2), eth_dst=p.BROADCAST),
        ],
        "not_ip": [p.Packet(eth_type=0x88CC, eth_src=mac, payload=bytes(60))],
    }  # fmt: skip


def test_each_reason_is_counted_for_its_pod_and_nothing_is_delivered(prober: Prober) -> None:
    pod = dual(prober)

    async def play() -> None:
        counting = Counting(prober)
        assert not await counting.more()
        asked = prober.fabric.asked()
        for reason, tries in packets(prober, pod).items():
            for packet in tries:
                assert not prober.fabric.send(pod_object(pod), packet), (reason, packet)
            assert await counting.more() == {(f"pod {pod.key}", reason): len(tries)}
        assert prober.fabric.asked() == asked
        events = counting.stop()
        assert f"pod {pod.key}: 3 packets dropped: source MAC address is not its own" in events

    asyncio.run(play())


def test_what_a_kernel_does_by_itself_is_no_abuse(prober: Prober) -> None:
    pod = dual(prober)
    mac, six = int.from_bytes(pod_object(pod).mac, "big"), pod.addresses[1]
    listens = p.Packet(
        eth_type=p.ETH_IPV6, ip_proto=p.ICMPV6, source=p.link_local(mac), target=(0xFF02 << 112) + 0x16, icmp_type=143
    )
    silent = [p.solicitation(mac, 0, six), p.solicitation(mac, 0, p.link_local(mac)), listens]
    silent.append(replace(listens, icmp_type=133, target=(0xFF02 << 112) + 2))

    async def play() -> None:
        counting = Counting(prober)
        for packet in silent:
            assert not prober.fabric.send(pod_object(pod), replace(packet, eth_src=mac))
        prober.fabric.resolve(pod_object(pod), pod.address, SIP)
        prober.fabric.resolve(pod_object(pod), six, SIP + IPV6)
        opened(prober, pod.key, prober.world.pods["c/w-1"].address)
        assert not await counting.more()
        counting.stop()

    asyncio.run(play())


@pytest.mark.parametrize("wrong", [{"tun_src": 0x01020304}, {"tun_id": 999}, {"tun_src": HOSTS["h2"][1]}])
def test_forged_vxlan_is_counted_for_its_sender(prober: Prober, wrong: dict[str, int]) -> None:
    node, pods = prober.fabric.nodes["h1"], prober.world.pods
    good = {"tun_id": 100, "tun_src": HOSTS["h3"][1], "tun_dst": HOSTS["h1"][1], **wrong}

    async def play() -> None:
        counting = Counting(prober)
        packet = p.tcp(pods["b/u-2"].address, 1, pods["a/s-1"].address, 80, p.SYN)
        for _ in range(5):
            assert not prober.fabric.inject(node, 1, packet.copy(), good)
        ((sender, reason), count), *others = (await counting.more()).items()
        assert not others
        assert sender.startswith("VTEP ")
        assert (reason, count) == ("forged_tunnel", 4)  # the first one has asked
        counting.stop()

    asyncio.run(play())


def test_reasons_have_a_part_of_the_cookie_of_their_own() -> None:
    reasons = {feature for feature in Feature if feature & m.DROP_REASONS}
    assert {one for one in Feature if m.cookie(one, "pod a/p", ()) & COOKIE_MASK == COOKIE} == reasons


def test_many_strangers_are_refused_as_one_and_hosts_are_not(prober: Prober) -> None:
    node, pods = prober.fabric.nodes["h1"], prober.world.pods
    packet = p.tcp(pods["b/u-2"].address, 1, pods["a/s-1"].address, 80, p.SYN)
    before = prober.fabric.asked()
    for number in range(200):
        forged = {"tun_id": 100, "tun_src": 0x01020300 + number, "tun_dst": HOSTS["h1"][1]}
        assert not prober.fabric.inject(node, 1, packet.copy(), forged)
    assert prober.fabric.asked() - before == MOST_ALIKE + 1
    prober.fabric.foretells = False
    for _ in range(8):
        opened(prober, "b/u-2", SIP)
    assert STRANGERS in node.program.demands
    roots = [InstalledFlow(flow.key, flow.cookie) for flow in node.switch.flows.values() if flow.hard_timeout]
    assert STRANGERS in map(recover, roots), "a new master does not know the refusal"
    stranger = prober.fabric.model.hosts["h2"]
    prober.fabric.apply([replace(stranger, name="h4", vteps=((0x01020300 + 7).to_bytes(4, "big"),), datapath_id=4)])
    asked = prober.fabric.asked()
    forged = {"tun_id": 100, "tun_src": 0x01020300 + 7, "tun_dst": HOSTS["h1"][1]}
    assert not prober.fabric.inject(node, 1, packet.copy(), forged)
    assert prober.fabric.asked() == asked + 1, "a host's own address is asked about, although strangers are refused"
    fabric = prober.fabric
    fabric.wait(fabric.settings.drop_timeout_seconds + 1)
    assert STRANGERS not in node.program.demands


def test_many_networks_in_a_hosts_name_are_refused_as_one(prober: Prober) -> None:
    node, fabric, packet = prober.fabric.nodes["h1"], prober.fabric, forged(prober)
    for vni in range(5000, 5100):
        assert not fabric.inject(node, 1, packet.copy(), from_host("h3", vni))
    assert fabric.asked() == MOST_ALIKE + 1
    fabric.foretells = False
    for _ in range(8):
        opened(prober, "b/u-2", SIP)
    assert Source(packed(HOSTS["h3"][1]), None, None) in node.program.demands
    fabric.apply([o.Network("late", 5050, (o.Subnet(packed(0x0A4D0000), 24),), ())])
    asked = fabric.asked()
    assert not fabric.inject(node, 1, packet.copy(), from_host("h3", 5050))
    assert fabric.asked() == asked + 1, "a network that is there now is asked about"


def test_many_pods_in_a_hosts_name_are_refused_as_one(prober: Prober) -> None:
    node, fabric, packet = prober.fabric.nodes["h1"], prober.fabric, forged(prober)
    for number in range(100):
        made_up = replace(packet.copy(), source=POD_BLOCK + 100 + number)
        assert not fabric.inject(node, 1, made_up, from_host("h3", 100))
    assert fabric.asked() == MOST_ALIKE + 1
    assert Source(packed(HOSTS["h3"][1]), 100, None) in node.program.demands
    fabric.foretells = False
    for _ in range(8):
        opened(prober, "b/u-2", SIP)
    # A pod that comes to the host meanwhile is asked about at once.
    late = prober.world.new_pod("b/u", "h3")
    fabric.apply([pod_object(late)])
    fabric.plug(pod_object(late), "h3")
    for _ in range(8):
        opened(prober, late.key, SIP)


def forged(prober: Prober) -> p.Packet:
    """A first packet that would be allowed."""
    pods = prober.world.pods
    return p.tcp(pods["b/u-2"].address, 1, pods["a/s-1"].address, 80, p.SYN)


def from_host(host: str, vni: int) -> dict[str, int]:
    """The outer packet, to h1."""
    return {"tun_id": vni, "tun_src": HOSTS[host][1], "tun_dst": HOSTS["h1"][1]}
