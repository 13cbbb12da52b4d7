# SPDX-License-Identifier: Apache-2.0
"""What the answers to a pair will ask for: known with its first packet, so that they need not ask."""

from __future__ import annotations

from collections.abc import Iterator

from ..decide.decide import Origin, backends
from ..model.objects import Pod, ServiceIP
from ..model.passages import Passage
from .demands import Compiler, Demand, Pair, Target


def back(compiler: Compiler, pair: Pair, source: bytes) -> list[Demand]:
    """The demands of answers to packets of `pair` from the address `source`."""
    known = ("back", compiler.datapath_id, pair.vni, pair.address)
    ends, found = compiler.model.recall(known, lambda: (_ends(compiler, pair), compiler.passage(pair)))
    if found is None:
        return [Pair(origin, pair.vni, group, source) for origin, group in ends]
    return list(_through(compiler, found, ends, source))


def _through(
    compiler: Compiler, found: Passage, ends: tuple[tuple[Origin, int], ...], source: bytes
) -> Iterator[Demand]:
    """As a pod of another network answers: to where it sees its callers, and from there to the caller."""
    seen, home = found.address(source), compiler.model.networks.get(found.home)
    for origin, group in ends:
        if origin is Origin.TUNNEL:
            yield Pair(origin, found.answers.vni, group, source)
        elif seen is not None and home is not None:
            yield Pair(origin, home.vni, group, seen)
            yield Target(found.answers.vni, source)


def _ends(compiler: Compiler, pair: Pair) -> tuple[tuple[Origin, int], ...]:
    """From where, and from which groups, a pair is answered."""
    model = compiler.model
    network = model.network_by_vni[pair.vni]
    owner = model.owner.get((network.name, pair.address))
    pods: list[Pod] = []
    if isinstance(owner, ServiceIP):
        pods = backends(model, owner)
    elif isinstance(owner, Pod):
        pods = [owner]
    ends: set[tuple[Origin, int]] = set()
    for pod in pods:
        group = model.groups.get(pod.group)
        location = model.location(pod)
        if group is not None and location is not None:
            here = location.datapath_id == compiler.datapath_id
            ends.add((Origin.POD if here else Origin.TUNNEL, group.number))
    return tuple(sorted(ends))
