# SPDX-License-Identifier: Apache-2.0
"""What the design promises to those who use it, one promise per test, played in the simulated fabric."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from qnet_controller.model import objects as o
from qnet_controller.pipeline.arrivals import Arrival
from qnet_controller.pipeline.program import Answer
from simulator import packets as p
from simulator.fabric import Session, open_session

from .probe import Prober
from .scene import SIP, SIP_OF_B, grant, opened, revoke
from .tenants import ICMP, POD_BLOCK, TCP, UDP, ExportPlan, PodPlan, pod_object

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
        fabric.wait(fabric.settings.drop_timeout_seconds + 1)


def test_questions_are_bounded_by_the_meter_of_the_pod(prober: Prober) -> None:
    fabric, client = prober.fabric, prober.world.pods["c/w-1"]
    for node in fabric.nodes.values():  # a controller that is slow: nobody answers
        node.program.packet_in = lambda *_: Answer()  # type: ignore[method-assign]
    for address in range(POD_BLOCK + 100, POD_BLOCK + 100 + 3 * fabric.settings.pod_burst):
        fabric.send(pod_object(client), p.tcp(client.address, 1, address, 80, p.SYN))
    assert fabric.asked() == fabric.settings.pod_burst


# -- revocation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("protocol", "port"), [(TCP, 80), (UDP, 53), (ICMP, None)])
@pytest.mark.parametrize("client", ["b/u-1", "b/u-2"])
def test_revoked_export_ends_open_connections_both_ways(
    prober: Prober, client: str, protocol: int, port: int | None
) -> None:
    items = [opened(prober, client, SIP, protocol, port) for _ in range(24)]
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
        assert (inner.source, inner.target) == (item.session.first.source, SIP)
        assert back[0].packet.source == SIP


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


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("target", ["h1", "h3"])
@pytest.mark.parametrize("replugged", [False, True])
def test_a_moved_pod_may_send_first(prober: Prober, protocol: int, target: str, replugged: bool) -> None:
    fabric, pod = prober.fabric, prober.world.pods["a/s-2"]
    grant(prober, ExportPlan("a/s", "b", frozenset({(protocol, 80)}), direct=True))
    prober.world.pods["a/s-1"].weight = 0
    fabric.apply([pod_object(prober.world.pods["a/s-1"])])
    items = [
        opened(prober, client, address, protocol) for client in ("b/u-1", "b/u-2") for address in (SIP, pod.address)
    ]
    if replugged:
        fabric.unplug(pod_object(pod), "h2")
        fabric.plug(pod_object(pod), target)
    else:
        fabric.move(pod_object(pod), "h2", target)
    pod.host = target
    for _ in range(3):
        for item in items:
            assert item.session.came_back(item.session.backward(pod_object(pod))), fabric.trace
    fabric.restart_controller(random.Random(1))
    for item in items:
        assert item.session.came_back(item.session.backward(pod_object(pod))), fabric.trace
        assert prober.check_open(item)
    # It opens nothing by that: what nobody has asked it for is refused where it arrives.
    client = prober.world.pods["b/u-1"]
    for sport, dport in ((80, 4), (81, items[0].session.first.src_port)):
        unasked = p.udp(pod.address, sport, client.address, dport)
        if protocol == TCP:
            unasked = p.tcp(pod.address, sport, client.address, dport, p.ACK)
        assert not fabric.send(pod_object(pod), unasked)
    # Nor does it go on with what has been taken back.
    revoke(prober, "a/s", "b")
    assert not [item for item in items if item.session.backward(pod_object(pod))]


@pytest.mark.parametrize("late", [False, True])
def test_a_moved_pod_does_not_get_past_a_service_ip_that_it_may_call(prober: Prober, late: bool) -> None:
    """b/u is exported to a for its Service IP only; a/s may answer b. Coming to a host opens no way to b's pods."""
    fabric, pod, other = prober.fabric, prober.world.pods["a/s-2"], prober.world.pods["b/u-2"]
    assert other.host == "h3"
    if not late:
        grant(prober, ExportPlan("b/u", "a"))
    fabric.move(pod_object(pod), "h2", "h1")
    pod.host = "h1"
    if late:
        grant(prober, ExportPlan("b/u", "a"))
    for protocol in (TCP, UDP, ICMP):
        assert prober.probe(pod, other.address, protocol, None if protocol == ICMP else 80) is None
    opened(prober, pod.key, SIP_OF_B)


def test_what_a_moved_pod_needs_ends_when_it_is_not_used(prober: Prober) -> None:
    pod = prober.world.pods["a/s-2"]
    prober.fabric.move(pod_object(pod), "h2", "h3")
    program = prober.fabric.nodes["h3"].program
    assert [demand for demand in program.demands if isinstance(demand, Arrival)]
    prober.fabric.wait(prober.fabric.settings.idle_timeout_seconds + 1)
    assert not [demand for demand in program.demands if isinstance(demand, Arrival)]


# -- fragments -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("client", ["b/u-1", "b/u-2"])
def test_fragments_pass_where_the_export_has_their_port_and_nowhere_else(
    prober: Prober, client: str, direct: bool
) -> None:
    grant(prober, ExportPlan("a/s", "b", frozenset({(UDP, 53)}), direct))
    prober.world.pods["a/s-1"].weight = 0
    prober.fabric.apply([pod_object(prober.world.pods["a/s-1"])])
    pod = prober.world.pods["a/s-2"]
    item = opened(prober, client, pod.address if direct else SIP, UDP, 53)
    seen = item.session.at_server
    assert seen is not None
    answer = p.reply_to(seen, 0, b"")
    for fragment in (1, 3):
        first = replace(item.session.first, fragment=fragment)
        assert [d.pod for d in prober.fabric.send(item.session.client, first)] == [item.session.server]
        back = prober.fabric.send(pod_object(pod), replace(answer, fragment=fragment))
        assert item.session.came_back(back), prober.fabric.trace
        for other in (replace(first, dst_port=54), replace(first, dst_port=54, src_port=7)):
            assert not prober.fabric.send(item.session.client, other), prober.fabric.trace
        new = replace(first, src_port=5353)
        assert [d.pod for d in prober.fabric.send(item.session.client, new)] == [item.session.server]
    # With the port, its fragments stop in both directions, though another port stays.
    grant(prober, ExportPlan("a/s", "b", frozenset({(UDP, 54)}), direct))
    for fragment in (1, 3):
        assert not prober.fabric.send(item.session.client, replace(first, fragment=fragment, payload=b"another"))
        more = replace(answer, fragment=fragment, payload=b"another")
        assert not prober.fabric.send(pod_object(pod), more), prober.fabric.trace


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
    heir = prober.world.new_pod(service, host, pod.addresses)
    prober.fabric.apply([pod_object(heir)])
    prober.fabric.plug(pod_object(heir), host)
    assert not item.session.forward()
