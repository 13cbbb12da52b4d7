# SPDX-License-Identifier: Apache-2.0
"""Backends that leave: drained ones with time for their connections, others at once; who notices, and what moves on."""

from __future__ import annotations

import dataclasses

import pytest

from .probe import Open, Prober
from .scene import SIP, opened
from .tenants import pod_object
from .test_connections import DNS, WEB, ends_of, many

LEAVES, STAYS = "a/s-2", "a/s-1"


def split(items: list[Open]) -> tuple[list[Open], list[Open]]:
    """Those of the pod that leaves, and the others."""
    lost, kept = ([item for item in items if (item.server == LEAVES) is gone] for gone in (True, False))
    assert lost
    assert kept
    return lost, kept


def drain(prober: Prober, seconds: int | None) -> None:
    pod = prober.world.pods[LEAVES]
    pod.state = "draining"
    until = None if seconds is None else int(prober.fabric.clock.now) + seconds
    prober.fabric.apply([dataclasses.replace(pod_object(pod), drain_until=until)])


@pytest.mark.parametrize("how", [WEB, DNS])
def test_a_draining_pod_keeps_its_connections_until_its_time_is_over(prober: Prober, how: tuple[int, int]) -> None:
    found = [*many(prober, SIP, how=how), *many(prober, SIP, how=how)]
    lost, kept = split(found)
    drain(prober, 20)
    assert prober.fabric.forget() == set()
    assert all(prober.check_open(item) for item in found)
    assert {opened(prober, "b/u-1", SIP, *how).server for _ in range(20)} == {STAYS}
    prober.fabric.wait(19)
    assert all(prober.check_open(item) for item in found)
    prober.fabric.wait(2)
    assert not any(item.session.forward() for item in lost)
    assert prober.fabric.forget() == ends_of(prober, lost)
    assert all(prober.check_open(item) for item in kept)
    server = pod_object(prober.world.pods[LEAVES])
    assert not any(item.session.backward(server) for item in lost)


def test_without_an_end_a_draining_pod_keeps_them_for_good(prober: Prober) -> None:
    found = many(prober, SIP)
    drain(prober, None)
    for _ in range(4):
        prober.fabric.wait(200)
        assert all(prober.check_open(item) for item in found)
    assert prober.fabric.forget() == set()


def test_a_pod_that_drains_no_more_has_no_end(prober: Prober) -> None:
    found = many(prober, SIP)
    drain(prober, 60)
    prober.world.pods[LEAVES].state = "active"
    prober.fabric.apply([pod_object(prober.world.pods[LEAVES])])
    prober.fabric.wait(61)
    assert all(prober.check_open(item) for item in found)


def test_udp_moves_on_when_its_backend_goes_and_tcp_is_left_alone(prober: Prober) -> None:
    tcp, udp = split(many(prober, SIP)), split([*many(prober, SIP, how=DNS), *many(prober, SIP, how=DNS)])
    prober.fabric.forget()
    prober.fabric.set_link(pod_object(prober.world.pods[LEAVES]), live=False)
    assert {opened(prober, "b/u-1", SIP).server for _ in range(20)} == {STAYS}
    assert prober.fabric.forget() == ends_of(prober, udp[0])
    for item in udp[0]:
        (arrived,) = item.session.forward()
        assert prober.by_port(arrived.pod).key == STAYS
    assert all(prober.check_open(item) for item in (*tcp[1], *udp[1]))
    prober.fabric.set_link(pod_object(prober.world.pods[LEAVES]), live=True)
    assert all(prober.check_open(item) for item in tcp[0]), "the link is back before TCP has given up"


def test_the_last_backends_are_kept_with_their_connections(prober: Prober) -> None:
    items = many(prober, SIP, how=DNS)
    prober.fabric.forget()
    for key in (STAYS, LEAVES):
        prober.fabric.set_link(pod_object(prober.world.pods[key]), live=False)
    assert prober.fabric.model.backends("a/s").kept
    lost = [item for item in items if item.server == STAYS]  # while only this one was down
    assert prober.fabric.forget() <= ends_of(prober, lost)
    assert {opened(prober, "b/u-1", SIP, *how).server for how in (WEB, DNS) for _ in range(10)} == {STAYS, LEAVES}
