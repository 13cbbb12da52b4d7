# SPDX-License-Identifier: Apache-2.0
"""A pod that has just come asks nobody for what its siblings use."""

from __future__ import annotations

from qnet_controller.controller import warm
from qnet_controller.decide.decide import Origin
from qnet_controller.pipeline.demands import Pair

from .probe import Prober
from .scene import SIP, opened
from .tenants import pod_object


def come(prober: Prober, service: str, host: str) -> str:
    """Attach a new pod as the controller does, warm; returns its key."""
    fabric, plan = prober.fabric, prober.world.new_pod(service, None)
    pod, node = pod_object(plan), prober.fabric.nodes[host]
    fabric.apply([pod])
    number, plan.host = node.next_port, host
    node.next_port += 1
    node.switch.ports[number] = pod.port_name
    touched = fabric.model.port_seen(node.switch.datapath_id, number, pod.port_name, True)
    fresh = warm.newcomers(fabric.model, node.switch.datapath_id, node.program, touched)
    assert [item.key for item in fresh] == [pod.key]
    fabric._refresh(touched)
    assert warm.newcomers(fabric.model, node.switch.datapath_id, node.program, touched) == []
    programs = {other.switch.datapath_id: other.program for other in fabric.nodes.values()}
    pairs = warm.pairs(fabric.model, fresh, programs)
    fabric._send(node, node.program.foresee(pairs, pod.addresses, fabric.clock.now))
    return pod.key


def test_a_new_pod_asks_nobody_for_what_its_siblings_use(prober: Prober) -> None:
    opened(prober, "b/u-1", SIP)
    node = prober.fabric.nodes["h3"]
    key = come(prober, "b/u", "h3")
    before = node.asked.total()
    for _ in range(4):
        opened(prober, key, SIP)
    assert node.asked.total() == before


def test_what_is_refused_is_not_foreseen(prober: Prober) -> None:
    client = prober.world.pods["b/u-1"]
    nobody = next(a for a in prober.addresses() if prober.probe(client, a, 6, 80) is None)
    node = prober.fabric.nodes["h3"]
    come(prober, "b/u", "h3")
    packed = nobody.to_bytes(4 if nobody < 1 << 32 else 16, "big")
    assert Pair(Origin.POD, 100, prober.world.groups["b"], packed) not in node.program.demands


def test_no_more_than_so_many_pairs_are_taken(prober: Prober) -> None:
    node = prober.fabric.port(pod_object(prober.world.pods["b/u-1"]))[0]
    group = prober.world.groups["b"]
    many = [Pair(Origin.POD, 100, group, number.to_bytes(4, "big")) for number in range(2 * warm.MOST_PAIRS)]
    node.program._demand(many, prober.fabric.clock.now)
    programs = {other.switch.datapath_id: other.program for other in prober.fabric.nodes.values()}
    newcomer = pod_object(prober.world.new_pod("b/u", None))
    prober.fabric.apply([newcomer])
    assert len(warm.pairs(prober.fabric.model, [newcomer], programs)) == warm.MOST_PAIRS
