# SPDX-License-Identifier: Apache-2.0
"""Exactly the connections that a change ends are found, counted once, and forgotten in the zones of both ends."""

from __future__ import annotations

import pytest

from qnet_controller.model import objects as o
from qnet_controller.pipeline.connections import Ends
from simulator.conntrack import Datapath
from simulator.packets import packed

from .changes import Changer
from .probe import PROBES, Open, Prober
from .scene import SIP, SIP_OF_B, grant, opened, revoke
from .tenants import ICMP, SERVICE_BLOCK, TCP, UDP, ExportPlan, pod_object, service_ip_object
from .test_simulated import build

CALLERS = ("b/u-1", "b/u-2")  # on the host of a/s-1, and on a host of its own
WEB, TLS, DNS, PING = (TCP, 80), (TCP, 443), (UDP, 53), (ICMP, None)


def ends_of(prober: Prober, items: list[Open]) -> set[Ends]:
    """What the connections should be called."""
    found = set()
    for item in items:
        client, seen = prober.world.pods.get(item.client), item.session.at_server
        assert seen is not None
        network = client.network if client else "red"
        ports = (seen.icmp_id, seen.icmp_id) if item.protocol == ICMP else (seen.src_port, seen.dst_port)
        found.add(Ends(network, item.protocol, packed(seen.source), ports[0], packed(seen.target), ports[1]))
    return found


def tracked(prober: Prober) -> int:
    return sum(len(node.switch.conntrack) for node in prober.fabric.nodes.values())


def many(prober: Prober, *addresses: int, how: tuple[int, int | None] = WEB) -> list[Open]:
    return [opened(prober, client, address, *how) for client in CALLERS for address in addresses for _ in range(4)]


def assert_forgotten(prober: Prober, lost: list[Open], kept: list[Open]) -> None:
    before, cut = tracked(prober), prober.fabric.forget()
    assert cut == ends_of(prober, lost)
    assert len(cut) == len(lost)
    # One zone on the client's host and one on the server's.
    assert before - tracked(prober) == 2 * len(lost)
    assert prober.fabric.forget() == set()
    for item in kept:
        assert prober.check_open(item)


@pytest.mark.parametrize("how", [WEB, DNS, PING])
def test_a_revoked_export(prober: Prober, how: tuple[int, int | None]) -> None:
    grant(prober, ExportPlan("a/s", "b", direct=True))
    grant(prober, ExportPlan("b/u", "a"))
    grant(prober, ExportPlan("a/t", "b", direct=True))
    pods = [prober.world.pods[key].address for key in ("a/s-1", "a/s-2")]
    lost = many(prober, SIP, *pods, how=how)
    kept = many(prober, prober.world.pods["a/t-1"].address, how=how)
    kept += [opened(prober, key, SIP_OF_B, *how) for key in ("a/s-1", "a/s-2", "a/t-1")]
    kept += [opened(prober, "a/t-1", SIP, *how), opened(prober, "a/s-2", SIP, *how)]
    revoke(prober, "a/s", "b")
    assert_forgotten(prober, lost, kept)


@pytest.mark.parametrize("direct", [False, True])
def test_a_port_less(prober: Prober, direct: bool) -> None:
    grant(prober, ExportPlan("a/s", "b", frozenset({WEB, TLS, DNS}), direct))
    addresses = (SIP, *(prober.world.pods[key].address for key in ("a/s-1", "a/s-2"))) if direct else (SIP,)
    lost, kept = many(prober, *addresses), many(prober, *addresses, how=TLS) + many(prober, *addresses, how=DNS)
    grant(prober, ExportPlan("a/s", "b", frozenset({TLS, DNS}), direct))
    assert_forgotten(prober, lost, kept)
    grant(prober, ExportPlan("a/s", "b", frozenset({TLS, DNS, WEB}), direct))
    # What has been forgotten does not come back because the server goes on sending.
    for item in lost:
        assert not item.session.backward(pod_object(prober.world.pods[item.server]))


def test_direct_no_longer(prober: Prober) -> None:
    grant(prober, ExportPlan("a/s", "b", direct=True))
    lost = many(prober, *(prober.world.pods[key].address for key in ("a/s-1", "a/s-2")))
    kept = many(prober, SIP)
    grant(prober, ExportPlan("a/s", "b"))
    assert_forgotten(prober, lost, kept)


def test_a_service_ip_less(prober: Prober) -> None:
    prober.world.service_ips["a/s:more"] = SERVICE_BLOCK + 20
    more = service_ip_object(prober.world, "a/s:more")
    prober.fabric.apply([more])
    lost, kept = many(prober, SERVICE_BLOCK + 20), many(prober, SIP)
    lost += [opened(prober, "a/t-1", SERVICE_BLOCK + 20) for _ in range(4)]
    del prober.world.service_ips["a/s:more"]
    prober.fabric.apply([o.Removed(o.ServiceIP, more.key)])
    assert_forgotten(prober, lost, kept)


def test_an_expired_export(prober: Prober) -> None:
    grant(prober, ExportPlan("a/t", "b", direct=True))
    grant(prober, ExportPlan("a/s", "b", expires=int(prober.fabric.clock.now) + 20))
    prober.fabric.forget()
    lost, kept = many(prober, SIP), many(prober, prober.world.pods["a/t-1"].address)
    prober.fabric.wait(21)
    assert_forgotten(prober, lost, kept)


@pytest.mark.parametrize("plugged", [True, False])
def test_a_removed_pod(prober: Prober, plugged: bool) -> None:
    found = many(prober, SIP) + [opened(prober, "a/t-1", SIP) for _ in range(6)]
    lost, kept = ([i for i in found if (i.server == "a/s-2") is gone] for gone in (True, False))
    pod = prober.world.pods.pop("a/s-2")
    if not plugged:
        prober.fabric.unplug(pod_object(pod), "h2")
    prober.fabric.apply([o.Removed(o.Pod, pod.key)])
    # Its own zone has been flushed as a whole; what is left is at the clients.
    assert prober.fabric.forget() == ends_of(prober, lost)
    assert lost
    assert all(prober.check_open(item) for item in kept)


def test_a_pod_of_another_service_from_now_on(prober: Prober) -> None:
    found = many(prober, SIP)
    lost, kept = ([i for i in found if (i.server == "a/s-2") is gone] for gone in (True, False))
    pod = prober.world.pods["a/s-2"]
    pod.service = "a/t"
    prober.fabric.apply([pod_object(pod)])
    assert_forgotten(prober, lost, kept)


def test_what_takes_nothing_away_looks_at_nothing(prober: Prober) -> None:
    many(prober, SIP)
    before = len(prober.fabric.commands)
    grant(prober, ExportPlan("a/t", "b", direct=True))
    prober.world.pods["a/s-1"].state = "draining"
    prober.fabric.apply([pod_object(prober.world.pods["a/s-1"])])
    assert not prober.fabric._concerned
    assert prober.fabric.forget() == set()
    assert not [c for _, c in prober.fabric.commands[before:] if type(c).__name__ == "FlushConnection"]


@pytest.mark.parametrize("datapath", ["netdev", "system"])
@pytest.mark.parametrize("seed", range(200, 208))
def test_no_connection_is_forgotten_that_may_stay(seed: int, datapath: Datapath) -> None:
    chooser, prober = build(seed, datapath)
    changer, history = Changer(prober, chooser), list[str]()
    for _ in range(12):
        found = prober.check_all((chooser.choice(PROBES),))
        changer.open += chooser.sample(found, min(len(found), 12))
        history.append(changer.step())
        if chooser.random() < 0.5:
            # Whatever a change concerned, looking at everything finds no more to end than that.
            prober.fabric.forget()
            prober.fabric._concerned |= set(prober.world.groups)
            assert not prober.fabric.forget(), history
        changer.open = [item for item in changer.open if prober.check_open(item)]
