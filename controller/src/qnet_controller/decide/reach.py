# SPDX-License-Identifier: Apache-2.0
"""Where a group may get an answer at all: what lies outside can be refused as a whole, without asking for each address.

This is no decision: an address that is listed may still be refused. One that is not listed is refused by `decide`,
whatever the origin; a property test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..model.model import Model, Touch
from ..model.objects import Address


@dataclass(frozen=True, slots=True)
class Reach:
    """The addresses, and what of the model they follow from."""

    addresses: frozenset[Address]
    depends: frozenset[Touch]


def reach(model: Model, network: str, group: int) -> Reach | None:
    """What a group, by its number, may reach or answer in a network; None where that is no question of addresses."""
    if model.passages.of_space(network) is not None:
        return None  # between networks a pair is the whole scope
    found = model.group_by_number.get(group)
    depends: set[Touch] = {("network", network), ("source", group)}
    if found is None:
        return Reach(frozenset(), frozenset(depends))
    own = model.services_of.get(found.name, set())
    imported = {model.exports[key].service for key in model.exports_to.get(found.name, ())}
    importers = {model.exports[key].to_group for name in own for key in model.exports_of.get(name, ())}
    answered = {name for other in importers for name in model.services_of.get(other, ())}
    depends |= {("imports", found.name), ("group", found.name)}
    depends |= {("group", other) for other in importers}
    depends |= {("exports", name) for name in own | imported}
    depends |= {("backends", name) for name in own | imported | answered}
    pods = (model.pods[key] for name in own | imported | answered for key in model.pods_of.get(name, ()))
    ips = (model.service_ips[key] for name in own | imported for key in model.service_ips_of.get(name, ()))
    addresses = {address for pod in pods if pod.network == network for address in pod.addresses}
    addresses |= {item.address for item in ips if item.network == network}
    addresses |= {address for passage in model.passages.into(network) for address in passage.addresses}
    return Reach(frozenset(addresses), frozenset(depends))
