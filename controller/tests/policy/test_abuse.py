# SPDX-License-Identifier: Apache-2.0
"""What one pod that misbehaves costs: so many questions, so many flows, and nothing that others notice."""

from __future__ import annotations

import random

import pytest

from qnet_controller.model import objects as o
from qnet_controller.pipeline import messages as m
from qnet_controller.pipeline.scopes import MOST_BLOCKS, Scope
from qnet_controller.pipeline.tables import Table
from simulator import packets as p

from .probe import Prober
from .scene import SIP, grant, opened, revoke
from .tenants import IPV6, POD_BLOCK, TCP, ExportPlan, pod_object

PROBES = 1000


def refusals(prober: Prober, host: str) -> list[m.Flow]:
    """The flows of the plan that refuse, on a host."""
    flows = prober.fabric.nodes[host].switch.flows.values()
    return [flow for flow in flows if flow.table is Table.PLAN and flow.hard_timeout]


def scan(prober: Prober, client: str, family: int = 0) -> int:
    """Probe illegal destinations and ports as a pod; returns how many questions that made."""
    pod = prober.world.pods[client]
    before, chance = prober.fabric.asked(), random.Random(client)
    source = pod.own(IPV6 if family else 0)
    assert source is not None
    for _ in range(PROBES):
        target = family + chance.choice([0x0A000000, 0x0A030000, 0xC0A80000, 0x08080000]) + chance.randrange(1 << 16)
        packet = p.tcp(source, chance.randrange(1, 65535), target, chance.randrange(1, 65535), p.SYN)
        assert not prober.fabric.send(pod_object(pod), packet)
    return prober.fabric.asked() - before


@pytest.mark.parametrize("client", ["c/w-1", "b/u-1", "a/s-1"])
def test_a_scan_asks_twice_and_leaves_two_refusals(prober: Prober, client: str) -> None:
    assert scan(prober, client) == 2
    assert len(refusals(prober, "h1")) == 2


def test_a_scan_over_ipv6_is_no_different(prober: Prober) -> None:
    pod = prober.world.new_pod("c/w", "h1", families=(0, IPV6))
    prober.fabric.apply([pod_object(pod)])
    prober.fabric.plug(pod_object(pod), "h1")
    assert scan(prober, pod.key, IPV6) <= 3
    assert scan(prober, pod.key) <= 3
    assert len(refusals(prober, "h1")) <= 6


def test_what_its_group_may_do_goes_on_after_a_scan(prober: Prober) -> None:
    for client in ("b/u-1", "a/s-1", "a/t-1"):
        scan(prober, client)
    opened(prober, "b/u-1", SIP)
    opened(prober, "a/s-1", prober.world.pods["a/s-2"].address)
    prober.check_all(((TCP, 80),))


def test_what_becomes_allowed_is_allowed_at_once_and_no_longer_than_that(prober: Prober) -> None:
    scan(prober, "c/w-1")
    client = prober.world.pods["c/w-1"]
    assert prober.probe(client, SIP, TCP, 80) is None
    scopes = len(refusals(prober, "h1"))
    grant(prober, ExportPlan("a/s", "c", direct=True))
    opened(prober, "c/w-1", SIP)
    opened(prober, "c/w-1", prober.world.pods["a/s-2"].address)
    revoke(prober, "a/s", "c")
    assert prober.probe(client, SIP, TCP, 80) is None
    sibling = prober.world.new_pod("c/w", "h2")
    prober.fabric.apply([pod_object(sibling)])
    prober.fabric.plug(pod_object(sibling), "h2")
    opened(prober, "c/w-1", sibling.address)
    grant(prober, ExportPlan("c/w", "b", direct=True))
    opened(prober, "b/u-1", client.address)
    # Besides the scope only what was allowed meanwhile, and is used, is refused pair by pair, with its answers.
    assert len(refusals(prober, "h1")) <= scopes + 4
    assert scan(prober, "c/w-1") == 0


def test_a_new_controller_takes_a_wide_refusal_over(prober: Prober) -> None:
    scan(prober, "c/w-1")
    flows = prober.fabric.nodes["h1"].switch.flows
    prober.fabric.restart_controller(random.Random(1))
    assert prober.fabric.nodes["h1"].switch.flows == flows
    assert [demand for demand in prober.fabric.nodes["h1"].program.demands if isinstance(demand, Scope)]
    grant(prober, ExportPlan("a/s", "c"))
    opened(prober, "c/w-1", SIP)


def test_a_wide_refusal_ends_with_its_time(prober: Prober) -> None:
    before = prober.fabric.nodes["h1"].switch.flows
    scan(prober, "c/w-1")
    prober.fabric.wait(prober.fabric.settings.drop_timeout_seconds + 1)
    assert prober.fabric.nodes["h1"].switch.flows == before


def test_a_large_group_is_refused_in_few_blocks(prober: Prober) -> None:
    fabric, world = prober.fabric, prober.world
    used = {pod.address for pod in world.pods.values()} | {SIP}
    free = [POD_BLOCK + (n << 8) + n % 251 for n in range(1, 240) if POD_BLOCK + (n << 8) + n % 251 not in used]
    pods = [world.new_pod("c/w", "h2", addresses=(address,)) for address in free[: 2 * MOST_BLOCKS]]
    fabric.apply([pod_object(pod) for pod in pods])
    for pod in pods:
        fabric.plug(pod_object(pod), "h2")
    scan(prober, "c/w-1")
    scope = next(demand for demand in fabric.nodes["h1"].program.demands if isinstance(demand, Scope))
    asks = [f for f in fabric.nodes["h1"].switch.flows.values() if f.cookie >> 48 & 0xFF == m.Feature.ASKS]
    assert scope.level == 0
    assert 0 < len(asks) <= MOST_BLOCKS
    for pod in pods:
        opened(prober, "c/w-1", pod.address)
    gone = pods.pop()
    fabric.unplug(pod_object(gone), "h2")
    del world.pods[gone.key]
    fabric.apply([o.Removed(o.Pod, gone.key)])
    assert prober.probe(world.pods["c/w-1"], gone.address, TCP, 80) is None
