# SPDX-License-Identifier: Apache-2.0
"""A pod that asks for more destinations than a switch holds for one gives up its oldest; nothing is refused by it."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from qnet_controller.pipeline import messages as m
from simulator.fabric import Fabric

from .probe import Prober
from .scene import SIP, opened
from .tenants import PodPlan, pod_object
from .test_simulated import check_programs

MOST, MANY = 20, 60


@pytest.fixture
def few(prober: Prober) -> Prober:
    """Switches that hold few demands of a pod, and many pods that one may talk to, on all hosts."""
    fabric = prober.fabric
    fabric.settings = replace(fabric.settings, pod_demands=MOST)
    for number in range(MANY):
        pod = prober.world.new_pod("a/t", f"h{1 + number % 3}")
        fabric.apply([pod_object(pod)])
        fabric.plug(pod_object(pod), str(pod.host))
    fabric.restart_controller(random.Random(1))
    return prober


def others(prober: Prober) -> list[PodPlan]:
    """Whom a/s-1 may call."""
    return [pod for pod in prober.world.pods.values() if pod.group == "a" and pod.key != "a/s-1"]


def flows(fabric: Fabric) -> int:
    """How many flows h1 has that packets have asked for."""
    return sum(bool(flow.idle_timeout) for flow in fabric.nodes["h1"].switch.flows.values())


def test_a_pod_that_asks_for_everybody_fills_no_more_than_its_share(few: Prober) -> None:
    before, most = flows(few.fabric), 0
    for pod in others(few):
        opened(few, "a/s-1", pod.address)
        most = max(most, flows(few.fabric) - before)
    assert len(few.fabric.nodes["h1"].program.demands) <= 2 * MOST
    assert most < 5 * MOST < 2 * MANY
    check_programs(few.fabric)


def test_what_was_given_up_is_asked_for_again(few: Prober) -> None:
    held = [opened(few, "a/s-1", pod.address) for pod in others(few)]
    assert all(map(few.check_open, held))
    check_programs(few.fabric)


def test_others_keep_what_they_have(few: Prober) -> None:
    held = [opened(few, "b/u-1", SIP)]
    for pod in others(few):
        opened(few, "a/s-1", pod.address)
    asked = few.fabric.asked()
    for _ in range(3):
        assert all(map(few.check_open, held))
        opened(few, "b/u-1", SIP)
    assert few.fabric.asked() == asked


def test_it_is_told_once(few: Prober) -> None:
    program, told = few.fabric.nodes["h1"].program, []
    plain = program.packet_in

    def listening(packet: m.PacketIn, now: float) -> object:
        answer = plain(packet, now)
        told.append(answer.crowded)
        return answer

    program.packet_in = listening  # type: ignore[method-assign, assignment]
    for _ in range(2):
        for pod in others(few):
            opened(few, "a/s-1", pod.address)
    port = few.fabric.port(pod_object(few.world.pods["a/s-1"]))[1]
    assert [one for one in told if one is not None] == [port]


def test_what_ends_by_itself_counts_no_more(few: Prober) -> None:
    for pod in others(few):
        opened(few, "a/s-1", pod.address)
    few.fabric.wait(few.fabric.settings.idle_timeout_seconds + 1)
    program, port = few.fabric.nodes["h1"].program, few.fabric.port(pod_object(few.world.pods["a/s-1"]))[1]
    assert not program.demands
    assert program.share(port) == 0
