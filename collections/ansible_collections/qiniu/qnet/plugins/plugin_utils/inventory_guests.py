# SPDX-License-Identifier: GPL-3.0-or-later
"""What guests, and Service IPs outside of the network of their service, must be to the rest of an inventory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeGuard

from ansible_collections.qiniu.qnet.plugins.plugin_utils.inventory_index import (
    Address,
    Index,
    Item,
    address_of,
    subnets,
)
from ansible_collections.qiniu.qnet.plugins.plugin_utils.problem import Path, Problem, render_path, suggest

_OUTSIDE = "Use one outside of that, from another service subnet if need be."


def guest_problems(index: Index) -> Iterator[Problem]:
    """Everything that is wrong about calls between networks."""
    networks = {network.name: network for network in index.networks}
    seen: dict[tuple[str, str], Item] = {}
    for guest in index.guests:
        ends = guest.keys.get("network"), guest.keys.get("home")
        yield from _ends_exist(guest, networks)
        if not (isinstance(ends[0], str) and isinstance(ends[1], str)):
            continue
        if ends[0] == ends[1]:
            yield Problem((*guest.path, "home"), ends[1], "is the calling network itself", "Name another network.")
        elif (first := seen.setdefault((ends[0], ends[1]), guest)) is not guest:
            rule = f"is there twice: pods of {ends[0]} may call {ends[1]} by {render_path(first.path)} already"
            yield Problem(guest.path, f"{ends[0]}>{ends[1]}", rule, "Remove one of them.")
        elif ends[0] in networks and ends[1] in networks:
            yield from _addresses(guest, networks[ends[0]], networks[ends[1]])
    yield from _vnis(index)
    for service, entry in index.service_ips:
        yield from _elsewhere(index, service, entry, networks, set(seen))


def _ends_exist(guest: Item, networks: dict[str, Item]) -> Iterator[Problem]:
    for key in ("network", "home"):
        name = guest.keys.get(key)
        if isinstance(name, str) and name not in networks:
            hint = suggest(name, networks, "Add it to qnet_networks")
            yield Problem((*guest.path, key), name, "is no network of qnet_networks", hint)


def _addresses(guest: Item, callers: Item, home: Item) -> Iterator[Problem]:
    pools = [subnet for dummy, subnet in subnets(home, "service_subnets")]
    if not pools:
        hint = f"Add service_subnets to {render_path(home.path)}."
        yield Problem((*guest.path, "home"), home.name, "has no service_subnets to see callers at", hint)
    versions = set()
    for path, text in guest.texts("addresses"):
        address = address_of(text)
        if address is None:
            continue
        if address.version in versions:
            yield Problem(path, text, f"is a second address of IPv{address.version}", "Keep one of each IP version.")
        versions.add(address.version)
        if pools and not any(address in subnet for subnet in pools):
            rule = f"is outside of the service_subnets of network {home.name}"
            yield Problem(path, text, rule, f"Use an address of {', '.join(map(str, pools))}.")
        yield from _could_be_a_pod(path, address, callers)


def _could_be_a_pod(path: Path, address: Address, network: Item) -> Iterator[Problem]:
    for dummy, subnet in subnets(network, "pod_subnets"):
        if address in subnet:
            rule = f"could be that of a pod of network {network.name} ({subnet})"
            yield Problem(path, str(address), rule, _OUTSIDE)


def _vnis(index: Index) -> Iterator[Problem]:
    taken: dict[int, str] = {}
    for network in index.networks:
        if _number(vni := network.keys.get("vni")):
            taken.setdefault(vni, f"network {network.name}")
    for guest in index.guests:
        first = guest.keys.get("vni")
        if not _number(first):
            continue
        for vni in (first, first + 1):
            if (owner := taken.setdefault(vni, render_path(guest.path))) != render_path(guest.path):
                rule = f"{vni} is a VNI of {owner} already; calls have {first} and answers {first + 1}"
                yield Problem((*guest.path, "vni"), first, rule, "Use another number, or remove it.")


def _number(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _elsewhere(
    index: Index, service: Item, entry: Item, networks: dict[str, Item], guests: set[tuple[str, str]]
) -> Iterator[Problem]:
    there, home = entry.keys.get("network"), service.keys.get("network")
    path = (*entry.path, "network")
    if not isinstance(there, str) or there == home:
        return
    if there not in networks:
        yield Problem(path, there, "is no network of qnet_networks", suggest(there, networks, "Add it"))
    elif isinstance(home, str) and (there, home) not in guests:
        rule = f"is no guest of network {home}, where {service.name} is"
        yield Problem(path, there, rule, f"Add {{network: {there}, home: {home}}} to qnet_guests.")
    address, at_home = address_of(entry.keys.get("address")), index.network_of(service)
    if address is not None and at_home is not None:
        yield from _could_be_a_pod((*entry.path, "address"), address, at_home)
