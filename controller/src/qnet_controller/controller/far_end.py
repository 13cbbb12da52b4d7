# SPDX-License-Identifier: Apache-2.0
"""The other end of a call is told before the first packet comes there, so that it need not ask as well.

Only where this controller is master of both ends, and only when the packet can go to few pods: with more, most would
be told in vain. Whoever has not been told asks, as for any other packet, and gets the same answer.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..decide.decide import Origin, addresses, backends, home_of
from ..model.model import Model
from ..model.objects import Address, Pod, ServiceIP
from ..pipeline.demands import Pair

MOST_PODS = 4

End = tuple[int, Pair]
"""The datapath id of the switch, and what will be asked for there."""


def ends(model: Model, pair: Pair) -> tuple[End, ...]:
    """Where the first packet of an allowed pair may come out of a tunnel."""
    return model.recall(("far end", pair), lambda: tuple(_ends(model, pair)))


def _ends(model: Model, pair: Pair) -> Iterator[End]:
    for pod, address in _reached(model, pair):
        location = model.location(pod)
        if location is not None:
            yield location.datapath_id, Pair(Origin.TUNNEL, pair.vni, pair.group, address)


def _reached(model: Model, pair: Pair) -> list[tuple[Pod, Address]]:
    """The pods behind an address of their own network; calls between networks are not foretold."""
    network = model.network_by_vni.get(pair.vni)
    owner = model.owner.get((network.name, pair.address)) if network else None
    if network is None or owner is None:
        return []
    if isinstance(owner, Pod):
        return [(owner, pair.address)] if owner.network == network.name else []
    if not isinstance(owner, ServiceIP) or home_of(model, owner) != network.name:
        return []
    pods = backends(model, owner)
    return [(pod, one) for pod in pods for one in addresses(pod, owner.address)] if len(pods) <= MOST_PODS else []
