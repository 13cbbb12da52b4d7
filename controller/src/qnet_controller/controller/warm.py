# SPDX-License-Identifier: Apache-2.0
"""Warm start: a pod that has just come to a host gets the pairs there that its siblings use elsewhere.

Only what the switches that this controller is master of are using is known, and at most `MOST_PAIRS` are taken. A pair
that nobody uses ends like any other when it has been idle.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from ..decide.decide import Origin
from ..model.model import Model, Touches
from ..model.objects import Pod
from ..model.placed import placed
from ..pipeline.demands import Pair
from ..pipeline.program import SwitchProgram

MOST_PAIRS = 512


def newcomers(model: Model, datapath_id: int, program: SwitchProgram, touched: Touches) -> list[Pod]:
    """The pods among those touched that are on the switch now, and that its program does not have yet."""
    return [pod for pod in placed(model, touched).here.get(datapath_id, ()) if not program.has(pod.key)]


def pairs(model: Model, pods: Iterable[Pod], programs: Mapping[int, SwitchProgram]) -> list[Pair]:
    """The pairs that siblings of these pods use on the switches of `programs` (by datapath id), in a stable order."""
    # What is wanted of a switch is gathered first: its demands are looked through once, however many pods have come.
    wanted: dict[int, set[tuple[int, int]]] = defaultdict(set)
    for pod in pods:
        group, network = model.groups.get(pod.group), model.networks.get(pod.network)
        if group is None or network is None:
            continue
        siblings = (model.location(model.pods[key]) for key in model.pods_of.get(pod.service, ()) if key != pod.key)
        for location in siblings:
            if location is not None and location.datapath_id in programs:
                wanted[location.datapath_id].add((network.vni, group.number))
    found: set[Pair] = set()
    for datapath_id, askers in wanted.items():
        found.update(
            item
            for item in programs[datapath_id].demands
            if isinstance(item, Pair) and item.origin is Origin.POD and (item.vni, item.group) in askers
        )
    return sorted(found)[:MOST_PAIRS]
