# SPDX-License-Identifier: Apache-2.0
"""The way out in the simulated switch, on both kinds of datapath: what leaves, what comes back, and what ends it."""

from __future__ import annotations

import pytest

from qnet_controller.decide.outside import link_address
from qnet_controller.model import objects as o
from simulator import packets as p
from simulator.fabric import OUTSIDE_PORT, VIRTUAL_MAC
from simulator.packets import packed

from .probe import Prober
from .scene import SIP
from .tenants import POD_BLOCK, TCP, UDP, EgressPlan, group_object, pod_object
from .test_simulated import check_programs

WEB, ELSEWHERE = 0xCB007109, 0xC6336409  # 203.0.113.9, 198.51.100.9
SEVERAL = 80  # blocks between the ends of rules, subnets, tunnels and what is reserved


def allow(prober: Prober, group: str, *rules: EgressPlan) -> None:
    """Let a group reach this outside, and nothing more."""
    prober.world.egress[group] = frozenset(rules)
    prober.fabric.apply([group_object(prober.world, group)])


def leaves(prober: Prober, key: str, packet: p.Packet) -> p.Packet | None:
    """A packet of a pod as it leaves its host; None when it does not."""
    found = prober.fabric.send(pod_object(prober.world.pods[key]), packet)
    assert [delivery.pod for delivery in found] in ([], [OUTSIDE_PORT])
    return found[0].packet if found else None


def out(prober: Prober, key: str, target: int, port: int = 443, flags: int = p.SYN) -> p.Packet | None:
    """The same for a segment of TCP."""
    return leaves(prober, key, p.tcp(prober.world.pods[key].address, 1000, target, port, flags))


def comes_back(prober: Prober, key: str, packet: p.Packet) -> list[p.Packet]:
    """What the pod gets of a packet from outside."""
    pod = pod_object(prober.world.pods[key])
    _, port = prober.fabric.port(pod)
    host = prober.world.pods[key].host
    assert host
    packet = packet.copy()
    packet.target = int.from_bytes(link_address(port, pod.addresses[0]), "big")
    packet.eth_dst = 0x0A0000000002
    found = prober.fabric.from_outside(host, packet)
    assert all(delivery.pod == pod.port_name for delivery in found)
    return [delivery.packet for delivery in found]


@pytest.fixture
def prober(prober: Prober) -> Prober:
    """The scene, with a group that goes outside."""
    allow(prober, "a", EgressPlan(WEB & ~0xFF, 24, TCP, 443), EgressPlan(ELSEWHERE, 32))
    return prober


def test_a_connection_goes_out_and_its_answers_come_in(prober: Prober) -> None:
    key = "a/s-1"
    pod, (_, port) = prober.world.pods[key], prober.fabric.port(pod_object(prober.world.pods[key]))
    sent = out(prober, key, WEB)
    assert sent is not None
    assert (sent.source, sent.src_port) == (0xC6130000 + port, 1000)
    assert (sent.target, sent.dst_port, sent.eth_src, sent.eth_dst) == (WEB, 443, VIRTUAL_MAC, 0x0A0000000002)
    (got,) = comes_back(prober, key, p.tcp(WEB, 443, 0, 1000, p.SYN | p.ACK))
    assert (got.source, got.target, got.dst_port) == (WEB, pod.address, 1000)
    assert (got.eth_src, got.eth_dst) == (VIRTUAL_MAC, int.from_bytes(pod_object(pod).mac, "big"))
    again = out(prober, key, WEB, flags=p.ACK)
    assert again is not None
    assert again.source == sent.source
    check_programs(prober.fabric)


def test_nothing_else_goes_out_or_comes_in(prober: Prober) -> None:
    assert out(prober, "a/s-1", WEB, port=80) is None
    assert out(prober, "a/s-1", WEB + 0x100) is None
    assert out(prober, "b/u-1", WEB) is None
    assert out(prober, "x/y-1", WEB) is None
    assert out(prober, "a/s-1", WEB, flags=p.ACK) is not None  # a segment of an unknown connection opens one, as inside
    for flags in (p.SYN, p.ACK, p.SYN | p.ACK, p.RST):
        assert not comes_back(prober, "a/s-2", p.tcp(WEB, 443, 0, 1000, flags))
        assert not comes_back(prober, "b/u-1", p.tcp(WEB, 443, 0, 1000, flags))
    assert out(prober, "a/s-1", ELSEWHERE, port=9)
    assert not comes_back(prober, "a/s-1", p.tcp(ELSEWHERE, 10, 0, 1000, p.SYN | p.ACK))


def test_it_ends_both_ways_with_its_rule_and_is_counted(prober: Prober) -> None:
    for target, port in ((WEB, 443), (ELSEWHERE, 9)):
        assert out(prober, "a/s-1", target, port) is not None
        assert comes_back(prober, "a/s-1", p.tcp(target, port, 0, 1000, p.SYN | p.ACK))
        assert out(prober, "a/s-1", target, port, flags=p.ACK) is not None
    allow(prober, "a", EgressPlan(ELSEWHERE, 32))
    assert not comes_back(prober, "a/s-1", p.tcp(WEB, 443, 0, 1000, p.ACK))
    assert out(prober, "a/s-1", WEB, flags=p.ACK) is None
    ended = prober.fabric.forget()
    assert [(item.server, item.server_port, item.client) for item in ended] == [
        (packed(WEB), 443, packed(prober.world.pods["a/s-1"].address))
    ]
    assert out(prober, "a/s-1", ELSEWHERE, 9, flags=p.ACK) is not None
    assert comes_back(prober, "a/s-1", p.tcp(ELSEWHERE, 9, 0, 1000, p.ACK))
    allow(prober, "a", EgressPlan(WEB & ~0xFF, 24, TCP, 443))
    assert not comes_back(prober, "a/s-1", p.tcp(WEB, 443, 0, 1000, p.ACK))  # it was forgotten, not only refused
    check_programs(prober.fabric)


def test_what_joins_the_overlay_is_outside_no_more(prober: Prober) -> None:
    assert out(prober, "a/s-1", WEB) is not None
    prober.fabric.apply([o.Network("new", 500, (o.Subnet(packed(WEB & ~0xFF), 24),), ())])
    assert out(prober, "a/s-1", WEB, flags=p.ACK) is None
    assert len(prober.fabric.forget()) == 1
    assert not comes_back(prober, "a/s-1", p.tcp(WEB, 443, 0, 1000, p.ACK))


def test_errors_about_what_was_sent_come_in(prober: Prober) -> None:
    sent = out(prober, "a/s-1", WEB)
    assert sent is not None
    router = p.unreachable(sent)
    router.source = 0xCB007201
    (got,) = comes_back(prober, "a/s-1", router)
    assert got.inner is not None
    assert (got.inner.source, got.inner.src_port) == (prober.world.pods["a/s-1"].address, 1000)
    stray = p.unreachable(p.tcp(sent.source, 7, WEB, 443, p.SYN))
    assert not comes_back(prober, "a/s-1", stray)


def test_a_scan_asks_once_for_each_block(prober: Prober) -> None:
    fabric, pod = prober.fabric, prober.world.pods["a/s-1"]
    before = fabric.asked()
    for number in range(1000):
        target = (number * 0x9E3779B1) & 0xFFFFFFFF
        if not POD_BLOCK <= target < POD_BLOCK + 0x20000:
            leaves(prober, pod.key, p.udp(pod.address, 5, target, 53))
    assert fabric.asked() - before < SEVERAL
    before = fabric.asked()
    for target in range(WEB & ~0xFF, (WEB & ~0xFF) + 256):
        assert out(prober, pod.key, target) is not None
    assert fabric.asked() - before <= 1
    # And who scans the overlay is refused it as a whole, but not what is open outside.
    for number in range(20):
        leaves(prober, pod.key, p.udp(pod.address, 5, POD_BLOCK + 200 + number, UDP))
    assert out(prober, pod.key, ELSEWHERE, 9) is not None
    assert prober.probe(pod, SIP, TCP, 80)
    check_programs(prober.fabric)


def test_without_a_port_to_the_kernel_nothing_leaves(prober: Prober) -> None:
    assert out(prober, "a/s-1", WEB) is not None
    for node in prober.fabric.nodes.values():
        number = next(number for number, name in node.switch.ports.items() if name == OUTSIDE_PORT)
        prober.fabric.pull(node, number)
    assert out(prober, "a/s-1", WEB, flags=p.ACK) is None
    check_programs(prober.fabric)
