# SPDX-License-Identifier: Apache-2.0
"""Random tenants and random changes in the simulated fabric: packets always reach exactly whom they should."""

from __future__ import annotations

import random

import pytest

from qnet_controller.model import objects as o
from qnet_controller.pipeline.demands import Settings
from qnet_controller.pipeline.messages import Installed
from qnet_controller.pipeline.program import SwitchProgram
from simulator.check import Refused
from simulator.conntrack import Datapath
from simulator.fabric import Fabric
from simulator.packets import packed

from .changes import Changer
from .probe import PROBES, Prober
from .tenants import digest, objects, pod_object, random_world

HOSTS = {name: (int(digest(name)[:16], 16), 0xC0A80001 + i) for i, name in enumerate(("h1", "h2", "h3"))}

STEPS = 12


def build(seed: int, datapath: Datapath, hosts: int = 3) -> tuple[random.Random, Prober]:
    """A random world, running."""
    chooser = random.Random(seed)
    used = dict(list(HOSTS.items())[:hosts])
    # No meter runs dry: what a meter drops is no matter of policy.
    fabric = Fabric(used, Settings(pod_rate=10**6, pod_burst=10**6, tunnel_rate=10**6, tunnel_burst=10**6), datapath)
    fabric.foretells = seed % 2 == 0
    world = random_world(chooser, list(used), fabric.clock.now)
    fabric.apply([o.Host(name, (packed(vtep),), dpid, datapath) for name, (dpid, vtep) in used.items()])
    fabric.apply(objects(world))
    fabric.open_outside()
    for pod in world.pods.values():
        if pod.host:
            fabric.plug(pod_object(pod), pod.host)
    return chooser, Prober(world, fabric)


@pytest.mark.parametrize("datapath", ["netdev", "system"])
@pytest.mark.parametrize("seed", range(6))
def test_every_pair_of_a_random_world_is_as_the_policy_says(seed: int, datapath: Datapath) -> None:
    _, prober = build(seed, datapath)
    assert prober.check_all(PROBES)


@pytest.mark.parametrize("datapath", ["netdev", "system"])
@pytest.mark.parametrize("seed", range(100, 108))
def test_packets_follow_every_change(seed: int, datapath: Datapath) -> None:
    chooser, prober = build(seed, datapath)
    changer = Changer(prober, chooser)
    history: list[str] = []
    try:
        for _ in range(STEPS):
            how = chooser.sample(PROBES, 2)
            found = prober.check_all(tuple(how))
            changer.open += chooser.sample(found, min(len(found), 8))
            history.append(changer.step())
            changer.open = [item for item in changer.open if prober.check_open(item)]
            check_programs(prober.fabric)
        prober.check_all()
    except (AssertionError, Refused) as error:
        raise AssertionError(f"seed {seed} ({datapath}), after: " + "; ".join(history) + f"\n{error}") from error


def check_programs(fabric: Fabric) -> None:
    """Every program believes what its switch holds, and a fresh one with the same demands wants the same."""
    for node in fabric.nodes.values():
        assert node.program.flows == node.switch.flows
        assert node.program.groups == node.switch.groups
        fresh = SwitchProgram(fabric.model, node.switch.datapath_id, fabric.settings)
        fresh.adopt(Installed((), frozenset(), {}), fabric.clock.now)
        fresh._demand(node.program.demands, fabric.clock.now)
        assert fresh.flows == node.program.flows
        assert fresh.groups == node.program.groups
