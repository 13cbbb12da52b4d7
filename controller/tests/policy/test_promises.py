# SPDX-License-Identifier: Apache-2.0
"""What the design promises, one promise per test, played with packets in the simulated fabric."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from qnet_controller.model import objects as o
from qnet_controller.pipeline import messages as m
from qnet_controller.pipeline.demands import Settings
from qnet_controller.pipeline.tables import Table
from simulator import packets as p
from simulator.conntrack import Datapath
from simulator.fabric import VIRTUAL_MAC, Fabric, Session, open_session

from .probe import Open, Prober
from .tenants import (
    ICMP,
    POD_BLOCK,
    SERVICE_BLOCK,
    TCP,
    UDP,
    ExportPlan,
    PodPlan,
    World,
    export_object,
    objects,
    packed,
    pod_object,
)
from .test_simulated import HOSTS

SIP = SERVICE_BLOCK + 10
SIP_OF_B = SERVICE_BLOCK + 11


@pytest.fixture(params=["netdev", "system"])
def datapath(request: pytest.FixtureRequest) -> Datapath:
    kind: Datapath = request.param
    return kind


@pytest.fixture
def prober(datapath: Datapath) -> Prober:
    """Group a: service s (two pods, Service IP), t (one pod). Group b: service u (Service IP) and v. c: one pod.

    a/s is exported to b for every protocol. Another network has pods at the same addresses.
    """
    world = World({"red": 100, "blue": 200}, {"a": 1, "b": 2, "c": 3, "x": 4})
    world.services = {"a/s": "red", "a/t": "red", "b/u": "red", "b/v": "red", "c/w": "red", "x/y": "blue"}
    world.service_ips = {"a/s:main": SIP, "b/u:main": SIP_OF_B}
    for service, host in (
        ("a/s", "h1"), ("a/s", "h2"), ("a/t", "h1"), ("b/u", "h1"), ("b/u", "h3"), ("b/v", "h3"), ("c/w", "h1"),
        ("x/y", "h1"), ("x/y", "h2"),
    ):  # fmt: skip
        world.new_pod(service, host)
    world.exports["a/s", "b"] = ExportPlan("a/s", "b")
    fabric = Fabric(HOSTS, Settings(), datapath)
    fabric.apply([o.Host(name, (packed(vtep),), dpid, datapath) for name, (dpid, vtep) in HOSTS.items()])
    fabric.apply(objects(world))
    for pod in world.pods.values():
        assert pod.host
        fabric.plug(pod_object(pod), pod.host)
    return Prober(world, fabric)


def opened(prober: Prober, client: str, address: int, protocol: int = TCP, port: int | None = 80) -> Open:
    """A connection that must open."""
    found = prober.probe(prober.world.pods[client], address, protocol, port)
    assert found is not None
    return found


def revoke(prober: Prober, service: str, group: str) -> None:
    """Remove an export."""
    export = prober.world.exports.pop((service, group))
    prober.fabric.apply([o.Removed(o.Export, export_object(export).key)])


def grant(prober: Prober, export: ExportPlan) -> None:
    """Add or change an export."""
    prober.world.exports[export.service, export.to] = export
    prober.fabric.apply([export_object(export)])


# -- asking ----------------------------------------------------------------------------------------------------


def test_second_connection_of_a_pair_asks_nobody(prober: Prober) -> None:
    pairs = [("b/u-1", SIP), ("b/u-2", SIP), ("a/t-1", prober.world.pods["a/s-2"].address), ("a/s-1", SIP)]
    for client, address in pairs:
        for _ in range(8):
            opened(prober, client, address)
        before = prober.fabric.asked()
        for protocol, port in ((TCP, 80), (TCP, 8443), (UDP, 53), (ICMP, None)):
            opened(prober, client, address, protocol, port)
        assert prober.fabric.asked() == before


def test_second_pod_of_a_group_on_the_host_asks_nobody(prober: Prober) -> None:
    pod = prober.world.new_pod("b/u", "h1")
    prober.fabric.apply([pod_object(pod)])
    prober.fabric.plug(pod_object(pod), "h1")
    opened(prober, "b/u-1", SIP)
    opened(prober, pod.key, SIP)
    node, port = prober.fabric.port(pod_object(pod))
    assert node.asked[port] == 0


def test_denied_pair_asks_once_per_window(prober: Prober) -> None:
    fabric, client = prober.fabric, prober.world.pods["c/w-1"]
    for address in (SIP, prober.world.pods["a/s-1"].address, prober.world.pods["a/s-2"].address, POD_BLOCK + 200):
        before = fabric.asked()
        for _ in range(20):
            assert prober.probe(client, address, TCP, 80) is None
        assert fabric.asked() - before == 1
        fabric.wait(fabric.settings.drop_timeout_seconds + 1)
        assert prober.probe(client, address, UDP, 53) is None
        assert fabric.asked() - before == 2


def test_a_scan_asks_no_more_than_the_meter_lets_through(prober: Prober) -> None:
    fabric, client = prober.fabric, prober.world.pods["c/w-1"]
    for address in range(POD_BLOCK + 100, POD_BLOCK + 100 + 3 * fabric.settings.pod_burst):
        fabric.send(pod_object(client), p.tcp(client.address, 1, address, 80, p.SYN))
    assert fabric.asked() == fabric.settings.pod_burst
    opened(prober, "b/u-1", SIP)


# -- revocation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("protocol", "port"), [(TCP, 80), (UDP, 53), (ICMP, None)])
@pytest.mark.parametrize("client", ["b/u-1", "b/u-2"])
def test_revoked_export_ends_open_connections_both_ways(
    prober: Prober, client: str, protocol: int, port: int | None
) -> None:
    items = [opened(prober, client, SIP, protocol, port) for _ in range(6)]
    assert {item.server for item in items} == {"a/s-1", "a/s-2"} or protocol == ICMP
    revoke(prober, "a/s", "b")
    for item in items:
        assert not prober.goes_on(item)
        assert not prober.check_open(item)


def test_revoking_one_of_two_opposite_exports_ends_what_it_opened(prober: Prober) -> None:
    grant(prober, ExportPlan("b/u", "a"))
    grant(prober, ExportPlan("a/s", "b", direct=True))
    pod = prober.world.pods["a/s-2"].address
    items = [opened(prober, client, address) for client in ("b/u-1", "b/u-2") for address in (SIP, pod)]
    others = [opened(prober, "a/s-1", SIP_OF_B), opened(prober, "a/s-2", SIP_OF_B)]
    revoke(prober, "a/s", "b")
    for item in items:
        assert not prober.check_open(item)
    for item in others:
        assert prober.check_open(item)


def test_expired_export_ends_open_connections(prober: Prober) -> None:
    grant(prober, ExportPlan("a/s", "b", expires=int(prober.fabric.clock.now) + 60))
    item = opened(prober, "b/u-1", SIP)
    prober.fabric.wait(59)
    assert prober.check_open(item)
    prober.fabric.wait(2)
    assert not prober.check_open(item)
    assert prober.probe(prober.world.pods["b/u-1"], SIP, TCP, 80) is None


def _server_still_talks(prober: Prober, item: Open) -> bool:
    return bool(item.session.backward(pod_object(prober.world.pods[item.server])))


@pytest.mark.xfail(reason="replies are judged by the pair of groups, not by the connection's own grant")
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_narrowed_export_stops_answers_too(prober: Prober, protocol: int) -> None:
    item = opened(prober, "b/u-1", SIP, protocol, 80)
    grant(prober, ExportPlan("a/s", "b", frozenset({(TCP, 443)})))
    assert not item.session.forward()
    assert not _server_still_talks(prober, item)


@pytest.mark.xfail(reason="replies are judged by the pair of groups, not by the connection's own grant")
def test_revoking_one_of_two_exports_stops_answers_too(prober: Prober) -> None:
    grant(prober, ExportPlan("a/t", "b", direct=True))
    item = opened(prober, "b/u-1", SIP)
    revoke(prober, "a/s", "b")
    assert not item.session.forward()
    assert not _server_still_talks(prober, item)


# -- Service IPs -----------------------------------------------------------------------------------------------


def test_balancing_follows_weights_and_rotation(prober: Prober) -> None:
    def spread() -> Counter[str]:
        return Counter(opened(prober, "b/u-1", SIP).server for _ in range(200))

    assert all(count > 60 for count in spread().values())
    heavy, light = prober.world.pods["a/s-1"], prober.world.pods["a/s-2"]
    heavy.weight = 900
    prober.fabric.apply([pod_object(heavy)])
    assert spread()[heavy.key] > 150
    items = [opened(prober, "b/u-1", SIP) for _ in range(30)]
    heavy.state = "draining"
    prober.fabric.apply([pod_object(heavy)])
    assert set(spread()) == {light.key}
    assert all(prober.check_open(item) for item in items)


def test_a_repeated_first_packet_goes_to_the_same_backend(prober: Prober) -> None:
    fabric, client = prober.fabric, prober.world.pods["b/u-1"]
    sessions = [
        open_session(fabric, pod_object(client), client.address, SIP, TCP, sport, 80) for sport in range(100, 130)
    ]
    for number in range(3):
        pod = prober.world.new_pod("a/s", ("h1", "h2", "h3")[number])
        assert pod.host
        fabric.apply([pod_object(pod)])
        fabric.plug(pod_object(pod), pod.host)
    for session in sessions:
        again = session.forward(p.SYN)
        assert [d.pod for d in again] == [session.server]
        server = prober.by_port(session.server or "")
        assert session.came_back(session.backward(pod_object(server), p.SYN | p.ACK))


def test_a_pod_reaches_itself_through_its_service_ip(prober: Prober) -> None:
    items = [
        opened(prober, "a/s-1", SIP, protocol, port) for protocol, port in ((TCP, 80), (UDP, 53)) for _ in range(20)
    ]
    assert {item.server for item in items} == {"a/s-1", "a/s-2"}
    assert all(prober.check_open(item) for item in items)
    servers = {opened(prober, "a/s-1", SIP, ICMP, None).server for _ in range(20)}
    assert servers <= {"a/s-1", "a/s-2"}


def _same_tuple(prober: Prober, client: PodPlan, first: int, second: int, protocol: int, sport: int) -> list[Session]:
    port = 0 if protocol == ICMP else 80
    found = []
    for address in (first, second):
        session = open_session(prober.fabric, pod_object(client), client.address, address, protocol, sport, port)
        assert session.server is not None
        server = prober.by_port(session.server)
        for flags in (p.SYN | p.ACK, p.ACK):
            assert session.came_back(session.backward(pod_object(server), flags)), prober.fabric.trace
        found.append(session)
    return found


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("client", ["b/u-1", "b/u-2", "a/t-1"])
def test_the_same_port_goes_straight_to_a_pod_after_its_service_ip(prober: Prober, client: str, protocol: int) -> None:
    grant(prober, ExportPlan("a/s", "b", direct=True))
    pod = prober.world.pods["a/s-2"]
    prober.world.pods["a/s-1"].weight = 0
    prober.fabric.apply([pod_object(prober.world.pods["a/s-1"])])
    via, direct = _same_tuple(prober, prober.world.pods[client], SIP, pod.address, protocol, 5000)
    assert via.server == direct.server == pod_object(pod).port_name


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("client", ["b/u-1", "b/u-2", "a/t-1"])
def test_the_same_port_goes_to_a_service_ip_after_its_pod(prober: Prober, client: str, protocol: int) -> None:
    grant(prober, ExportPlan("a/s", "b", direct=True))
    pod = prober.world.pods["a/s-2"]
    prober.world.pods["a/s-1"].weight = 0
    prober.fabric.apply([pod_object(prober.world.pods["a/s-1"])])
    direct, via = _same_tuple(prober, prober.world.pods[client], pod.address, SIP, protocol, 5000)
    assert via.at_server is not None
    assert via.at_server.src_port != 5000 or protocol == ICMP
    assert direct.came_back(direct.backward(pod_object(pod)))


def test_an_icmp_error_about_a_balanced_packet_reaches_the_client(prober: Prober) -> None:
    for client in ("b/u-1", "b/u-2", "a/t-1"):
        item = opened(prober, client, SIP, UDP, 9)
        assert item.session.at_server
        back = prober.fabric.send(pod_object(prober.world.pods[item.server]), p.unreachable(item.session.at_server))
        assert [d.pod for d in back] == [item.session.client.port_name], prober.fabric.trace
        inner = back[0].packet.inner
        assert inner is not None
        assert (inner.ipv4_src, inner.ipv4_dst) == (item.session.first.ipv4_src, SIP)
        assert back[0].packet.ipv4_src == SIP


def test_a_service_without_backends_reaches_nobody_until_one_comes(prober: Prober) -> None:
    for key in ("a/s-1", "a/s-2"):
        prober.fabric.unplug(pod_object(prober.world.pods[key]), prober.world.pods[key].host or "")
        prober.world.pods[key].host = None
    assert prober.probe(prober.world.pods["b/u-1"], SIP, TCP, 80) is None
    prober.world.pods["a/s-2"].host = "h3"
    prober.fabric.plug(pod_object(prober.world.pods["a/s-2"]), "h3")
    opened(prober, "b/u-1", SIP)


# -- mobility and reuse ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", ["b/u-1", "b/u-2", "a/t-1"])
@pytest.mark.parametrize("target", ["h1", "h3"])
def test_open_connections_to_a_moved_pod_resume(prober: Prober, client: str, target: str) -> None:
    grant(prober, ExportPlan("a/s", "b", direct=True))
    pod = prober.world.pods["a/s-2"]
    prober.world.pods["a/s-1"].weight = 0
    prober.fabric.apply([pod_object(prober.world.pods["a/s-1"])])
    items = [opened(prober, client, address) for address in (SIP, pod.address)]
    prober.fabric.move(pod_object(pod), "h2", target)
    pod.host = target
    assert all(prober.check_open(item) for item in items)


@pytest.mark.xfail(
    reason="the zone of the pod is empty on its new host: what it sends first counts as a new connection"
)
def test_a_moved_pod_may_send_first(prober: Prober) -> None:
    pod = prober.world.pods["a/s-2"]
    prober.world.pods["a/s-1"].weight = 0
    prober.fabric.apply([pod_object(prober.world.pods["a/s-1"])])
    item = opened(prober, "b/u-1", SIP)
    prober.fabric.move(pod_object(pod), "h2", "h3")
    pod.host = "h3"
    assert item.session.came_back(item.session.backward(pod_object(pod)))


@pytest.mark.parametrize("host", ["h1", "h3"])
@pytest.mark.parametrize("service", ["c/w", "a/t"])
def test_the_next_owner_of_an_address_gets_nothing_of_old_connections(prober: Prober, host: str, service: str) -> None:
    pod = prober.world.pods["a/s-2"]
    prober.world.pods["a/s-1"].weight = 0
    prober.fabric.apply([pod_object(prober.world.pods["a/s-1"])])
    item = opened(prober, "b/u-1", SIP)
    del prober.world.pods[pod.key]
    prober.fabric.unplug(pod_object(pod), "h2")
    prober.fabric.apply([o.Removed(o.Pod, pod.key)])
    heir = prober.world.new_pod(service, host, pod.address)
    prober.fabric.apply([pod_object(heir)])
    prober.fabric.plug(pod_object(heir), host)
    assert not item.session.forward()


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


def test_a_removed_pod_leaves_nothing_behind(prober: Prober) -> None:
    fabric, node = prober.fabric, prober.fabric.nodes["h1"]
    pod = prober.world.pods["c/w-1"]
    _, port = fabric.port(pod_object(pod))
    prober.check_all(((TCP, 80),))
    fabric.unplug(pod_object(pod), "h1")
    assert port not in node.switch.meters
    assert not any(("in_port", port, 0xFFFFFFFF) in key[2] for key in node.switch.flows)
    assert not any(("reg3", port, 0xFFFF) in key[2] for key in node.switch.flows)
    assert not node.switch.conntrack.connections(port)
