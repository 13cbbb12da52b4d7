# SPDX-License-Identifier: Apache-2.0
"""The other end of a call is told what it will be asked for, and nothing that is refused."""

from __future__ import annotations

from qnet_controller.controller import far_end
from qnet_controller.decide.decide import Origin
from qnet_controller.pipeline.demands import Pair
from simulator.packets import packed

from .probe import Prober
from .scene import SIP, opened
from .tenants import TCP, pod_object


def elsewhere(prober: Prober, client: str) -> int:
    """How often the hosts have asked that this client is not on."""
    mine = prober.fabric.port(pod_object(prober.world.pods[client]))[0]
    return sum(node.asked.total() for node in prober.fabric.nodes.values() if node is not mine)


def test_the_backends_of_a_call_are_told_before_it_comes(prober: Prober) -> None:
    before = elsewhere(prober, "b/u-2")
    for _ in range(8):
        opened(prober, "b/u-2", SIP)
    assert elsewhere(prober, "b/u-2") == before
    asked = prober.fabric.asked()
    opened(prober, "a/t-1", prober.world.pods["a/s-2"].address)
    assert prober.fabric.asked() == asked + 1


def test_a_controller_that_is_not_master_there_tells_nobody(prober: Prober) -> None:
    prober.fabric.foretells = False
    asked = prober.fabric.asked()
    opened(prober, "a/t-1", prober.world.pods["a/s-2"].address)
    assert prober.fabric.asked() == asked + 2


def test_of_many_backends_none_is_told(prober: Prober) -> None:
    pair = Pair(Origin.POD, 100, prober.world.groups["b"], packed(SIP))
    assert len(far_end.ends(prober.fabric.model, pair)) == 2
    for _ in range(far_end.MOST_PODS - 1):
        pod = prober.world.new_pod("a/s", "h1")
        prober.fabric.apply([pod_object(pod)])
        prober.fabric.plug(pod_object(pod), "h1")
    assert far_end.ends(prober.fabric.model, pair) == ()


def test_what_is_refused_is_not_told(prober: Prober) -> None:
    target = prober.world.pods["a/t-1"].address
    before = elsewhere(prober, "b/v-1")
    assert prober.probe(prober.world.pods["b/v-1"], target, TCP, 80) is None
    node = prober.fabric.port(pod_object(prober.world.pods["a/t-1"]))[0]
    told = Pair(Origin.TUNNEL, 100, prober.world.groups["b"], packed(target))
    assert told not in node.program.demands
    assert node.program.foresee([told], [packed(prober.world.pods["b/v-1"].address)], prober.fabric.clock.now) == ()
    assert elsewhere(prober, "b/v-1") == before
