# SPDX-License-Identifier: Apache-2.0
"""A connection ends, both ways, with the grant that it was opened by; every other connection goes on."""

from __future__ import annotations

import random

import pytest

from qnet_controller.model import objects as o
from simulator import packets as p

from .probe import Open, Prober
from .scene import SIP, SIP_OF_B, grant, opened, revoke
from .tenants import ICMP, SERVICE_BLOCK, TCP, UDP, ExportPlan, pod_object, service_ip_object
from .test_simulated import HOSTS, check_programs

SECOND_SIP = SERVICE_BLOCK + 20
PODS = ("a/s-1", "a/s-2")
CALLERS = ("b/u-1", "b/u-2")  # on the host of a/s-1, and on a host of its own
WEB, TLS, DNS, PING = (TCP, 80), (TCP, 443), (UDP, 53), (ICMP, None)


def everywhere(prober: Prober, *addresses: int, protocol: int = TCP, port: int | None = 80) -> list[Open]:
    """Connections on one host and between hosts; several to each address, until every backend is there."""
    found: list[Open] = []
    for turn in range(60):
        found += [opened(prober, client, address, protocol, port) for client in CALLERS for address in addresses]
        if turn >= 5 and ({item.server for item in found} == set(PODS) or protocol == ICMP):
            break
    assert {item.server for item in found} == set(PODS) or protocol == ICMP
    return found


def pods(prober: Prober) -> tuple[int, ...]:
    return tuple(prober.world.pods[key].address for key in PODS)


def assert_cut(prober: Prober, items: list[Open]) -> None:
    """The server gets nothing more, nor does the client, whatever the server sends."""
    check_programs(prober.fabric)
    for item in items:
        server = pod_object(prober.world.pods[item.server])
        assert not item.session.forward(), item
        assert not item.session.backward(server), item
        assert item.session.at_server
        if item.protocol == UDP:
            assert not prober.fabric.send(server, p.unreachable(item.session.at_server)), item


def assert_open(prober: Prober, items: list[Open]) -> None:
    check_programs(prober.fabric)
    assert all(prober.check_open(item) for item in items)


@pytest.mark.parametrize(("protocol", "port"), [WEB, DNS, PING])
@pytest.mark.parametrize("direct", [False, True])
def test_an_export_that_loses_a_port_cuts_its_connections_and_no_others(
    prober: Prober, protocol: int, port: int | None, direct: bool
) -> None:
    addresses = (SIP, *pods(prober)) if direct else (SIP,)
    grant(prober, ExportPlan("a/s", "b", frozenset({(protocol, port), TLS}), direct))
    lost = everywhere(prober, *addresses, protocol=protocol, port=port)
    kept = everywhere(prober, *addresses, port=443)
    grant(prober, ExportPlan("a/s", "b", frozenset({TLS}), direct))
    assert_cut(prober, lost)
    assert_open(prober, kept)
    grant(prober, ExportPlan("a/s", "b", frozenset({TLS, (protocol, port)}), direct))
    assert_open(prober, kept + lost)


@pytest.mark.parametrize(("before", "after"), [((), (WEB,)), ((WEB,), ()), ((WEB,), (WEB, TLS))])
def test_a_connection_whose_port_stays_allowed_notices_nothing(
    prober: Prober, before: tuple[tuple[int, int]], after: tuple[tuple[int, int]]
) -> None:
    grant(prober, ExportPlan("a/s", "b", frozenset(before), direct=True))
    kept = everywhere(prober, SIP, *pods(prober))
    lost: list[Open] = [] if before else everywhere(prober, SIP, *pods(prober), port=443)
    grant(prober, ExportPlan("a/s", "b", frozenset(after), direct=True))
    assert_open(prober, kept)
    assert_cut(prober, lost)


@pytest.mark.parametrize("opposite", [None, frozenset(), frozenset({WEB})])
def test_an_export_that_is_direct_no_longer_cuts_what_went_to_the_pods(
    prober: Prober, opposite: frozenset[tuple[int, int | None]] | None
) -> None:
    grant(prober, ExportPlan("a/s", "b", direct=True))
    if opposite is not None:
        # The server has leave to open connections to the client, but not to its own address.
        grant(prober, ExportPlan("b/u", "a", opposite))
    lost, kept = everywhere(prober, *pods(prober)), everywhere(prober, SIP)
    grant(prober, ExportPlan("a/s", "b"))
    assert_cut(prober, lost)
    assert_open(prober, kept)


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("opposite", [False, True])
def test_a_service_ip_that_goes_takes_its_connections_along(prober: Prober, direct: bool, opposite: bool) -> None:
    prober.world.service_ips["a/s:more"] = SECOND_SIP
    more = service_ip_object(prober.world, "a/s:more")
    prober.fabric.apply([more])
    grant(prober, ExportPlan("a/s", "b", direct=direct))
    if opposite:
        grant(prober, ExportPlan("b/u", "a"))
    lost, kept = everywhere(prober, SECOND_SIP), everywhere(prober, SIP, *(pods(prober) if direct else ()))
    del prober.world.service_ips["a/s:more"]
    prober.fabric.apply([o.Removed(o.ServiceIP, more.key)])
    assert_cut(prober, lost)
    assert_open(prober, kept)
    prober.world.service_ips["a/s:more"] = SECOND_SIP + 1
    prober.fabric.apply([service_ip_object(prober.world, "a/s:more")])
    assert_cut(prober, lost)


def test_the_last_service_ip_takes_all_balanced_connections_along(prober: Prober) -> None:
    grant(prober, ExportPlan("a/t", "b", direct=True))
    lost, kept = everywhere(prober, SIP), [opened(prober, key, prober.world.pods["a/t-1"].address) for key in CALLERS]
    key = service_ip_object(prober.world, "a/s:main").key
    del prober.world.service_ips["a/s:main"]
    prober.fabric.apply([o.Removed(o.ServiceIP, key)])
    assert_cut(prober, lost)
    assert_open(prober, kept)


@pytest.mark.parametrize("expires", [False, True])
def test_one_of_two_exports_between_the_same_groups_ends(prober: Prober, expires: bool) -> None:
    grant(prober, ExportPlan("a/t", "b", direct=True))
    if expires:
        grant(prober, ExportPlan("a/s", "b", expires=int(prober.fabric.clock.now) + 60))
    lost, kept = everywhere(prober, SIP), [opened(prober, key, prober.world.pods["a/t-1"].address) for key in CALLERS]
    if expires:
        prober.fabric.wait(59)
        assert_open(prober, lost + kept)
        prober.fabric.wait(2)
    else:
        revoke(prober, "a/s", "b")
    assert_cut(prober, lost)
    assert_open(prober, kept)


def test_an_open_connection_keeps_an_export_of_the_answering_side_apart(prober: Prober) -> None:
    grant(prober, ExportPlan("b/u", "a", frozenset({WEB}), direct=True))
    lost = everywhere(prober, SIP)
    others = [
        opened(prober, key, address) for key in PODS
        for address in (SIP_OF_B, *(prober.world.pods[caller].address for caller in CALLERS))
    ]  # fmt: skip
    revoke(prober, "a/s", "b")
    assert_cut(prober, lost)
    assert_open(prober, others)
    # Leave to open a connection to the client's port is leave to send there.
    client, server = prober.world.pods["b/u-1"], prober.world.pods["a/s-1"]
    packet = p.tcp(server.address, 80, client.address, 80, p.SYN)
    assert prober.fabric.send(pod_object(server), packet)


@pytest.mark.parametrize("target", ["h1", "h3"])
@pytest.mark.parametrize("moved", ["a/s-2", "b/u-2"])
def test_a_connection_remembers_its_grant_anew_where_its_pod_moves(prober: Prober, moved: str, target: str) -> None:
    grant(prober, ExportPlan("a/s", "b", direct=True))
    items = everywhere(prober, *pods(prober))
    pod = prober.world.pods[moved]
    source, target = pod.host or "", target if target != pod.host else "h2"
    prober.fabric.move(pod_object(pod), source, target)
    pod.host = target
    assert_open(prober, items)
    grant(prober, ExportPlan("a/s", "b"))
    assert_cut(prober, items)


def test_a_controller_that_starts_again_knows_the_grants(prober: Prober) -> None:
    items = everywhere(prober, SIP)
    prober.fabric.restart_controller(random.Random(1))
    assert_open(prober, items)
    grant(prober, ExportPlan("a/s", "b", frozenset({TLS})))
    prober.fabric.restart_controller(random.Random(2))
    assert_cut(prober, items)


def test_what_a_silent_pair_answers_later_still_passes(prober: Prober) -> None:
    items = everywhere(prober, SIP)
    prober.fabric.wait(3 * prober.fabric.settings.idle_timeout_seconds)
    for item in items:
        assert item.session.came_back(item.session.backward(pod_object(prober.world.pods[item.server])))


def test_nobody_answers_in_the_name_of_another_group(prober: Prober) -> None:
    grant(prober, ExportPlan("a/s", "b", direct=True))
    grant(prober, ExportPlan("c/w", "b", direct=True))
    pod, client = prober.world.pods["a/s-2"], prober.world.pods["b/u-1"]
    item = opened(prober, client.key, pod.address)
    answer = p.tcp(pod.address, 80, client.address, item.session.first.src_port, p.ACK)
    tunnel = {"tun_id": 100, "tun_src": HOSTS["h2"][1], "tun_dst": HOSTS["h1"][1]}
    assert prober.fabric.inject(prober.fabric.nodes["h1"], 1, answer.copy(), tunnel)
    del prober.world.pods[pod.key]
    prober.fabric.unplug(pod_object(pod), "h2")
    prober.fabric.apply([o.Removed(o.Pod, pod.key)])
    heir = prober.world.new_pod("c/w", "h2", pod.addresses)
    prober.fabric.apply([pod_object(heir)])
    prober.fabric.plug(pod_object(heir), "h2")
    # Its host sends what the heir's own zone would never let out.
    assert not prober.fabric.inject(prober.fabric.nodes["h1"], 1, answer.copy(), tunnel)
    opened(prober, client.key, pod.address)
