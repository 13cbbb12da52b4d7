# SPDX-License-Identifier: Apache-2.0
"""What the design promises about senders and switches, one promise per test, played in the simulated fabric."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from qnet_controller.pipeline import messages as m
from qnet_controller.pipeline.tables import Table
from simulator import packets as p
from simulator.conntrack import Datapath
from simulator.fabric import VIRTUAL_MAC

from .probe import Prober
from .scene import SIP, SIP_OF_B, grant, opened, revoke
from .tenants import IPV6, POD_BLOCK, TCP, ExportPlan, pod_object
from .test_simulated import HOSTS

# -- only the right senders ------------------------------------------------------------------------------------


def test_spoofed_packets_reach_nobody(prober: Prober) -> None:
    fabric, pods = prober.fabric, prober.world.pods
    attacker, victim, neighbour = pods["c/w-1"], pods["a/s-1"], pods["a/t-1"]
    mac = int.from_bytes(pod_object(neighbour).mac, "big")
    own = int.from_bytes(pod_object(attacker).mac, "big")
    tries = [
        p.tcp(neighbour.address, 1, victim.address, 80, p.SYN),
        replace(p.udp(neighbour.address, 1, victim.address, 2), eth_src=mac),
        replace(p.udp(attacker.address, 1, victim.address, 2), eth_src=mac),
        p.Packet(eth_type=0x86DD, payload=bytes(60)),
        p.Packet(eth_type=0x88CC, eth_dst=p.BROADCAST, payload=bytes(60)),
        p.arp_request(own, neighbour.address, victim.address),
        p.arp_request(mac, neighbour.address, victim.address),
        replace(p.arp_request(own, neighbour.address, victim.address), arp_op=2),
    ]  # fmt: skip
    for packet in tries:
        assert not fabric.send(pod_object(attacker), packet), packet
    assert fabric.asked() == 0


def test_the_tunnel_brings_only_what_its_sender_may_send(prober: Prober) -> None:
    fabric, pods = prober.fabric, prober.world.pods
    node = fabric.nodes["h1"]
    sender, victim = pods["b/u-2"], pods["a/s-1"]  # sender is on h3
    packet = p.tcp(sender.address, 1, victim.address, 80, p.SYN)
    good = {"tun_id": 100, "tun_src": HOSTS["h3"][1], "tun_dst": HOSTS["h1"][1]}
    assert fabric.inject(node, 1, packet.copy(), good)
    for wrong in (
        {"tun_src": HOSTS["h2"][1]}, {"tun_src": 0x01020304}, {"tun_id": 200}, {"tun_id": 999}, {"tun_id": 0},
        {"tun_src": HOSTS["h1"][1]},
    ):  # fmt: skip
        for _ in range(3):
            assert not fabric.inject(node, 1, packet.copy(), {**good, **wrong}), wrong
    assert not fabric.inject(node, 1, p.tcp(pods["c/w-1"].address, 1, victim.address, 80, p.SYN), good)
    unowned = p.tcp(POD_BLOCK + 200, 1, victim.address, 80, p.SYN)
    assert not fabric.inject(node, 1, unowned, good)


def test_the_receiving_host_does_not_trust_the_sender(prober: Prober) -> None:
    fabric, pods = prober.fabric, prober.world.pods
    opened(prober, "b/u-1", SIP)  # the pair a -> b has answers to send now
    from_h2 = {"tun_id": 100, "tun_src": HOSTS["h2"][1], "tun_dst": HOSTS["h1"][1]}
    sender, answered, stranger = pods["a/s-2"], pods["b/u-1"], pods["c/w-1"]
    for target in (answered, stranger):
        for packet in (
            *(p.tcp(sender.address, 80, target.address, 9, flags) for flags in (p.SYN, p.ACK, p.SYN | p.ACK, p.RST)),
            p.udp(sender.address, 80, target.address, 9),
            p.echo(sender.address, target.address, 1),
            p.echo(sender.address, target.address, 1, p.ECHO_REPLY),
        ):
            packet.eth_src, packet.eth_dst = 0x020000000001, VIRTUAL_MAC
            assert not fabric.inject(fabric.nodes["h1"], 1, packet, from_h2), packet


def test_what_the_tunnel_brings_goes_to_no_other_tunnel(prober: Prober) -> None:
    fabric, pods = prober.fabric, prober.world.pods
    good = {"tun_id": 100, "tun_src": HOSTS["h3"][1], "tun_dst": HOSTS["h1"][1]}
    opened(prober, "b/u-1", SIP)
    packet = p.tcp(pods["b/u-2"].address, 1, pods["a/s-2"].address, 80, p.SYN)  # a/s-2 is on h2
    assert not fabric.inject(fabric.nodes["h1"], 1, packet, good)
    assert not fabric.inject(fabric.nodes["h1"], 1, p.tcp(pods["b/u-2"].address, 1, SIP, 80, p.SYN), good)


def test_arp_is_answered_on_the_spot_for_every_address_of_the_subnets(prober: Prober) -> None:
    pod = prober.world.pods["c/w-1"]
    for target in (prober.world.pods["a/s-2"].address, SIP, POD_BLOCK + 1, POD_BLOCK + 222):
        assert prober.fabric.resolve(pod_object(pod), pod.address, target) == VIRTUAL_MAC
    assert prober.fabric.resolve(pod_object(pod), pod.address, 0x08080808) is None
    assert prober.fabric.resolve(pod_object(pod), pod.address, pod.address) is None
    probe = p.arp_request(int.from_bytes(pod_object(pod).mac, "big"), 0, pod.address)
    assert not prober.fabric.send(pod_object(pod), probe)
    assert prober.fabric.asked() == 0


def test_neighbour_discovery_is_answered_on_the_spot(prober: Prober, datapath: Datapath) -> None:
    """But on the kernel's datapath, where nothing can answer: a pod there has been told the MAC address."""
    pod = prober.world.new_pod("c/w", "h2", families=(0, IPV6))
    own, mac = pod.addresses[1], int.from_bytes(pod_object(pod).mac, "big")
    prober.fabric.apply([pod_object(pod)])
    prober.fabric.plug(pod_object(pod), "h2")
    for target in (IPV6 + POD_BLOCK + 1, IPV6 + POD_BLOCK + 222, IPV6 + SIP):
        for sender in (own, p.link_local(mac)):
            answer = prober.fabric.resolve(pod_object(pod), sender, target)
            assert answer == (None if datapath == "system" else VIRTUAL_MAC)
    assert prober.fabric.resolve(pod_object(pod), own, 0x20010DB8 << 96) is None
    silent = [p.solicitation(mac, sender, own) for sender in (0, own)]
    silent += [p.solicitation(mac, 0, target) for target in (p.link_local(mac), IPV6 + SIP)]
    for probe in silent:
        assert not prober.fabric.send(pod_object(pod), probe)
    assert prober.fabric.asked() == 0


def test_nobody_but_the_switch_speaks_of_neighbours_and_routers(prober: Prober) -> None:
    fabric, world = prober.fabric, prober.world
    attacker, friend, victim = (
        world.new_pod(service, host, families=(0, IPV6))
        for service, host in (("c/w", "h1"), ("c/w", "h1"), ("c/w", "h2"))
    )
    for pod in (attacker, friend, victim):
        fabric.apply([pod_object(pod)])
        fabric.plug(pod_object(pod), pod.host or "")
    mac, own = int.from_bytes(pod_object(attacker).mac, "big"), attacker.addresses[1]
    opened(prober, attacker.key, friend.addresses[1])
    asked = fabric.asked()
    for target in (friend.addresses[1], victim.addresses[1], (0xFF02 << 112) + 1):
        for source in (own, p.link_local(mac), friend.addresses[1]):
            for kind in (133, 134, 135, 136, 137):
                packet = p.Packet(
                    eth_type=p.ETH_IPV6, ip_proto=p.ICMPV6, source=source, target=target, icmp_type=kind,
                    nd_target=friend.addresses[1], nd_option=p.TARGET_OPTION, nd_mac=mac,
                )  # fmt: skip
                assert not fabric.send(pod_object(attacker), packet), packet
                tunnel = {"tun_id": 100, "tun_src": HOSTS["h1"][1], "tun_dst": HOSTS["h2"][1]}
                packet.eth_src, packet.eth_dst = mac, VIRTUAL_MAC
                opened(prober, attacker.key, victim.addresses[1])
                assert not fabric.inject(fabric.nodes["h2"], 1, packet, tunnel), packet
    spoofed = [p.solicitation(mac, friend.addresses[1], victim.addresses[1]), p.solicitation(mac ^ 1, own, SIP + IPV6)]
    spoofed.append(replace(p.solicitation(mac, own, SIP + IPV6), nd_mac=mac ^ 1))
    spoofed.append(p.tcp(p.link_local(mac), 1, victim.addresses[1], 80, p.SYN))
    for packet in spoofed:
        assert not fabric.send(pod_object(attacker), packet), packet
    assert fabric.asked() - asked <= 4  # the pair with the victim, at both of its ends


def test_one_network_knows_nothing_of_another_with_the_same_addresses(prober: Prober) -> None:
    pods = prober.world.pods
    assert pods["x/y-2"].address == pods["a/s-2"].address
    assert opened(prober, "x/y-1", pods["x/y-2"].address).server == "x/y-2"
    assert opened(prober, "a/t-1", pods["a/s-2"].address).server == "a/s-2"
    assert prober.probe(pods["x/y-1"], SIP, TCP, 80) is None


# -- what a switch holds ---------------------------------------------------------------------------------------


def test_silence_frees_everything_that_traffic_brought(prober: Prober) -> None:
    fabric = prober.fabric
    before = {name: (node.switch.flows, node.switch.groups) for name, node in fabric.nodes.items()}
    prober.check_all()
    assert {name: (node.switch.flows, node.switch.groups) for name, node in fabric.nodes.items()} != before
    fabric.wait(3 * fabric.settings.idle_timeout_seconds)
    for name, node in fabric.nodes.items():
        assert node.program.status()["demands"] == 0
        assert (node.switch.flows, node.switch.groups) == before[name]


def test_a_pair_in_use_stays_while_others_go(prober: Prober) -> None:
    fabric = prober.fabric
    item, idle = opened(prober, "b/u-1", SIP), opened(prober, "b/u-2", SIP)
    before = fabric.asked()
    for _ in range(10):
        fabric.wait(fabric.settings.idle_timeout_seconds / 3)
        assert prober.check_open(item)
    assert fabric.asked() == before
    assert prober.check_open(idle)


def test_adoption_removes_what_is_wrong_and_leaves_the_rest(prober: Prober) -> None:
    fabric = prober.fabric
    items = [opened(prober, "b/u-1", SIP), opened(prober, "a/t-1", prober.world.pods["a/s-2"].address)]
    node = fabric.nodes["h1"]
    counters = node.switch.counters()
    good = node.switch.flows
    changed = next(flow for key, flow in good.items() if key[0] == Table.PLAN and flow.priority == 100)
    foreign = m.Flow(Table.PLAN, 4711, m.match(), (), 0)
    wrong = m.flow(Table.PLAN, 100, changed.match, (), m.Feature.REFUSED, "somebody", hard=30, notify=True)
    missing = next(key for key in good if key[0] == Table.DELIVERY)
    node.switch.execute([
        m.AddFlow(foreign), m.AddFlow(wrong), m.DeleteFlow(missing),
        m.PutGroup(m.Group(77, ()), exists=False), m.AddMeter(m.Meter(77, 1, 1)),
    ])  # fmt: skip
    node.switch.take_removed()
    fabric.restart_controller(random.Random(1))
    assert node.switch.flows == good
    assert 77 not in node.switch.groups
    assert 77 not in node.switch.meters
    untouched = [key for key in good if key not in (changed.key, missing)]
    assert all(node.switch.counters()[key] == counters[key] for key in untouched)
    assert all(prober.check_open(item) for item in items)


def test_a_change_says_nothing_about_what_it_does_not_affect(prober: Prober) -> None:
    fabric = prober.fabric
    for _ in range(10):
        opened(prober, "b/u-1", SIP)
        opened(prober, "a/t-1", SIP)
        opened(prober, "b/v-1", SIP_OF_B)
    counters = {name: node.switch.counters() for name, node in fabric.nodes.items()}
    del fabric.commands[:]
    grant(prober, ExportPlan("b/u", "c"))
    pod = prober.world.new_pod("b/u", "h3")
    fabric.apply([pod_object(pod)])
    fabric.plug(pod_object(pod), "h3")
    revoke(prober, "b/u", "c")
    written = {command.flow.key for _, command in fabric.commands if isinstance(command, m.AddFlow)}
    gone = {command.key for _, command in fabric.commands if isinstance(command, m.DeleteFlow)}
    for name, before in counters.items():
        kept = {key: count for key, count in before.items() if key not in written}
        now = fabric.nodes[name].switch.counters()
        assert {key: now[key] for key in kept} == kept
    addresses = {prober.world.pods[key].address for key in ("a/s-1", "a/s-2", "a/t-1")} | {SIP}
    for _, _, matching in written | gone:
        assert not any(field == "ipv4_dst" and value in addresses for field, value, _ in matching)


@pytest.mark.parametrize("key", ["b/u-1", "a/s-1"])
def test_a_removed_pod_leaves_nothing_behind(prober: Prober, key: str) -> None:
    fabric, node, pod = prober.fabric, prober.fabric.nodes["h1"], prober.world.pods[key]
    _, port = fabric.port(pod_object(pod))
    prober.check_all(((TCP, 80),))
    for _ in range(20):
        opened(prober, key, SIP)
    others = len(node.switch.conntrack)
    mine = {zone: len(node.switch.conntrack.connections(zone)) for zone in (port, 0x8000 | port)}
    assert mine[port]
    assert mine[0x8000 | port] or key != "a/s-1"
    fabric.unplug(pod_object(pod), "h1")
    assert port not in node.switch.meters
    assert not any(("in_port", port, 0xFFFFFFFF) in flow_key[2] for flow_key in node.switch.flows)
    assert not any(("reg3", port, 0xFFFF) in flow_key[2] for flow_key in node.switch.flows)
    assert not any(node.switch.conntrack.connections(zone) for zone in mine)
    assert len(node.switch.conntrack) == others - sum(mine.values())
