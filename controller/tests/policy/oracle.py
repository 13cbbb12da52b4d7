# SPDX-License-Identifier: Apache-2.0
"""The policy once more, from the table in docs/design/architecture.md, over plain data; no code of the controller."""

from __future__ import annotations

from dataclasses import dataclass

from .tenants import PodPlan, World


@dataclass(frozen=True, slots=True)
class Expected:
    """What a first packet should do: reach one of `receivers` (nobody if empty), at `seen_at`, if given."""

    receivers: frozenset[str]
    allowed: bool
    balanced: bool
    seen_at: int | None = None


def who_has(world: World, network: str, address: int) -> PodPlan | str | None:
    """The pod, or the key of the Service IP, that has an address in a network."""
    for pod in world.pods.values():
        if pod.network == network and address in pod.addresses:
            return pod
    for key, candidate in world.service_ips.items():
        if candidate == address and world.place(key) == network:
            return key
    return None


def granted(world: World, service: str, group: str, protocol: int, port: int | None, now: float, direct: bool) -> bool:
    """Whether a group may open connections to a service that is not its own."""
    export = world.exports.get((service, group))
    if export is None or (export.expires is not None and now >= export.expires):
        return False
    if direct and not export.direct:
        return False
    return not export.ports or (protocol, port) in export.ports or (protocol, None) in export.ports


def expected(world: World, client: PodPlan, address: int, protocol: int, port: int | None, now: float) -> Expected:
    """What should become of a new connection."""
    owner = who_has(world, client.network, address)
    if owner is None:
        return Expected(frozenset(), allowed=False, balanced=False)
    if isinstance(owner, PodPlan):
        allowed = owner.group == client.group or granted(
            world, owner.service, client.group, protocol, port, now, direct=True
        )
        there = {owner.key} if allowed and owner.host else set()
        return Expected(frozenset(there), allowed, balanced=False)
    service = owner.split(":")[0]
    at_home = owner not in world.elsewhere
    allowed = (at_home and service.split("/")[0] == client.group) or (
        service.split("/")[0] != client.group
        and granted(world, service, client.group, protocol, port, now, direct=False)
    )
    ready = {
        pod.key
        for pod in world.pods.values()
        if allowed
        and pod.service == service
        and pod.host
        and pod.state == "active"
        and pod.weight > 0
        and pod.own(address)
    }
    return Expected(frozenset(ready), allowed, balanced=True, seen_at=world.seen_at(owner))
