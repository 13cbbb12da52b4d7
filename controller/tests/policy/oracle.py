# SPDX-License-Identifier: Apache-2.0
"""The policy once more, from the table in docs/design/architecture.md, over plain data; no code of the controller."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.packets import is_ipv6

from .tenants import IPV6, POD_BLOCK, SERVICE_BLOCK, PodPlan, World

OUTSIDE = "outside"
VTEPS = (0xC0A80001, 0xC0A80002, 0xC0A80003)
NEVER_OUTSIDE = [
    (first, first, last)
    for first, last in (
        *((family + block, family + block + 255) for family in (0, IPV6) for block in (POD_BLOCK, SERVICE_BLOCK)),
        *((vtep, vtep) for vtep in VTEPS),
        (0, 0x00FFFFFF), (0x7F000000, 0x7FFFFFFF), (0xA9FE0000, 0xA9FEFFFF), (0xC6130000, 0xC613FFFF),
        (0xE0000000, 0xFFFFFFFF), (0xFE80 << 112, (0xFEC0 << 112) - 1),
    )
]  # fmt: skip
"""Addresses that no egress rule opens: those of the overlay, of tunnels, of this host, of its link, and of groups."""


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


def never_outside(address: int) -> bool:
    """Whether no egress rule opens an address."""
    return any(is_ipv6(address) == is_ipv6(block) and first <= address <= last for block, first, last in NEVER_OUTSIDE)


def goes_outside(world: World, group: str, address: int, protocol: int, port: int | None) -> bool:
    """Whether a group may open connections to an address that nobody in the overlay has."""
    if never_outside(address):
        return False
    return any(rule.opens(address, protocol, port) for rule in world.egress.get(group, ()))


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
        allowed = goes_outside(world, client.group, address, protocol, port)
        return Expected(frozenset({OUTSIDE} if allowed else ()), allowed, balanced=False)
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


def hear(world: World, sender: PodPlan) -> frozenset[str]:
    """Who gets what a pod sends to all: the others of its group in its network, if the group may do that."""
    if sender.group not in world.broadcast:
        return frozenset()
    pods = (pod for pod in world.pods.values() if pod.group == sender.group and pod.network == sender.network)
    return frozenset(pod.key for pod in pods if pod.host and pod.key != sender.key)
