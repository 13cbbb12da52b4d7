# SPDX-License-Identifier: GPL-3.0-or-later
"""What the inventory variables must be to each other and to the fleet; each rule is one function."""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ansible_collections.qiniu.qnet.plugins.plugin_utils.inventory_guests import guest_problems
from ansible_collections.qiniu.qnet.plugins.plugin_utils.inventory_index import (
    Index,
    Item,
    address_of,
    block_of,
    subnets,
)
from ansible_collections.qiniu.qnet.plugins.plugin_utils.inventory_l7 import l7_problems
from ansible_collections.qiniu.qnet.plugins.plugin_utils.inventory_shape import FormatError, parse_timestamp
from ansible_collections.qiniu.qnet.plugins.plugin_utils.problem import Path, Problem, render_path, suggest


@dataclass(frozen=True)
class Fleet:
    """What the checks know besides the variables.

    `now`: the time with its offset. `switches`: names of the hosts that carry pods; None when not known.
    `database`: names of the hosts of the intent database. `underlay_payload`: bytes that the underlay carries inside
    its tunnels, None when not known. `has_file`: whether a workload file exists on the control node. `controller_sets`
    and `switch_sets`: the set that each controller, and each host that carries pods, belongs to.
    """

    now: datetime
    switches: Collection[str] | None = None
    database: Collection[str] = ()
    underlay_payload: int | None = None
    has_file: Callable[[str], bool] = lambda _: True
    controller_sets: Mapping[str, str] = field(default_factory=dict)
    switch_sets: Mapping[str, str] = field(default_factory=dict)


def rule_problems(inventory: dict[str, Any], fleet: Fleet) -> list[Problem]:
    """Everything in `inventory` (variable name to value) that contradicts itself or the fleet."""
    index = Index.of(inventory)
    problems = [problem for rule in _RULES for problem in rule(index, fleet)]
    return [*problems, *guest_problems(index), *l7_problems(inventory, index, fleet.has_file)]


def _unique_names(index: Index, dummy: Fleet) -> Iterator[Problem]:
    for kind, items in (
        ("network", index.networks),
        ("tenant", index.tenants),
        ("security group", index.groups),
        ("service", index.services),
    ):
        for first, second in _twice((item.name, item) for item in items):
            yield _duplicate((*second.path, "name"), second.name, f"{kind} {second.name}", (*first.path, "name"))
    named = ((f"{service.name}:{entry.name}", entry) for service, entry in index.service_ips)
    for first, second in _twice(named):
        yield _duplicate((*second.path, "name"), second.name, f"Service IP {second.name}", (*first.path, "name"))


def _unique_vnis(index: Index, dummy: Fleet) -> Iterator[Problem]:
    for first, second in _twice((item.keys["vni"], item) for item in index.networks if "vni" in item.keys):
        what = f"VNI of network {first.name}"
        yield _duplicate((*second.path, "vni"), second.keys["vni"], what, (*first.path, "vni"))


def _subnets_apart(index: Index, dummy: Fleet) -> Iterator[Problem]:
    for network in index.networks:
        entries = subnets(network, "pod_subnets") + subnets(network, "service_subnets")
        for position, (path, subnet) in enumerate(entries):
            for other_path, other in entries[:position]:
                if subnet.overlaps(other):
                    rule = f"overlaps {other} ({render_path(other_path)}) of the same network"
                    yield Problem(path, str(subnet), rule, "Choose subnets that share no address.")


def _subnets_large_enough(index: Index, dummy: Fleet) -> Iterator[Problem]:
    for network in index.networks:
        for path, subnet in subnets(network, "pod_subnets"):
            most = subnet.max_prefixlen - 2
            if subnet.prefixlen > most:
                rule = "has no room for a gateway and a pod"
                yield Problem(path, str(subnet), rule, f"Use a prefix length of {most} or less.")


def _mtu_carried(index: Index, fleet: Fleet) -> Iterator[Problem]:
    for network in index.networks:
        mtu, most = network.keys.get("mtu"), fleet.underlay_payload
        if most is not None and isinstance(mtu, int) and mtu > most:
            hint = f"Set it to {most} or less, remove it, or raise the MTU of the underlay."
            yield Problem((*network.path, "mtu"), mtu, f"is more than the {most} bytes that the underlay carries", hint)


def _networks_exist(index: Index, dummy: Fleet) -> Iterator[Problem]:
    names = [network.name for network in index.networks]
    for service in index.services:
        wanted = service.keys.get("network")
        if isinstance(wanted, str) and wanted not in names:
            hint = suggest(wanted, names, "Add it to qnet_networks")
            yield Problem((*service.path, "network"), wanted, "is no network of qnet_networks", hint)


def _service_addresses(index: Index, dummy: Fleet) -> Iterator[Problem]:
    taken: dict[tuple[str, object], Path] = {}
    for service, entry in index.service_ips:
        network = index.network_of(service, entry)
        if network is None:
            continue
        pools = subnets(network, "service_subnets")
        if not network.keys.get("service_subnets"):
            hint = f"Add service_subnets to {render_path(network.path)}, or remove the Service IP."
            yield Problem(entry.path, entry.name, f"network {network.name} has no service_subnets", hint)
        address = address_of(entry.keys.get("address"))
        if address is None:
            continue
        path = (*entry.path, "address")
        inside = next((subnet for dummy, subnet in pools if address in subnet), None)
        if inside is None and pools:
            yield _outside(path, address, "service_subnets", network)
        elif inside is not None and inside.prefixlen < inside.max_prefixlen - 1 and address in (inside[0], inside[-1]):
            yield Problem(path, str(address), f"is the first or last address of {inside}", "Use one between them.")
        if (other := taken.setdefault((network.name, address), path)) != path:
            yield _duplicate(path, str(address), f"address in network {network.name}", other)


def _pod_addresses(index: Index, dummy: Fleet) -> Iterator[Problem]:
    taken: dict[tuple[str, object], Path] = {}
    for service in index.services:
        network = index.network_of(service)
        for pod, addresses in service.of_pods("addresses").items():
            for position, text in enumerate(addresses if isinstance(addresses, list) else []):
                path = (*service.path, "addresses", pod, position)
                if network is None or (address := address_of(text)) is None:
                    continue
                pools = subnets(network, "pod_subnets")
                inside = next((subnet for dummy, subnet in pools if address in subnet), None)
                if inside is None and pools:
                    yield _outside(path, address, "pod_subnets", network)
                elif inside is not None and address == inside[1]:
                    yield Problem(path, text, f"is the gateway of {inside}", f"Use {inside[2]} or a later one.")
                elif inside is not None and address in (inside[0], inside[-1]):
                    yield Problem(path, text, f"is the first or last address of {inside}", "Use one between them.")
                if (other := taken.setdefault((network.name, address), path)) != path:
                    yield _duplicate(path, text, f"address in network {network.name}", other)


def _enough_addresses(index: Index, dummy: Fleet) -> Iterator[Problem]:
    for network in index.networks:
        services = [service for service in index.services if service.keys.get("network") == network.name]
        wanted = {
            "pod_subnets": sum(service.replicas() or 0 for service in services),
            "service_subnets": sum(index.network_of(*pair) is network for pair in index.service_ips)
            + sum(guest.keys.get("home") == network.name for guest in index.guests),
        }
        for key, number in wanted.items():
            rooms = _rooms(network, key)
            # A pod has an address of each IP version, a Service IP has one of either.
            there = min(rooms.values(), default=0) if key == "pod_subnets" else sum(rooms.values())
            if rooms and number > there:
                what = "pods" if key == "pod_subnets" else "Service IPs and guests"
                rule = f"has {there} addresses for {number} {what}"
                hint = "Add a subnet, use a larger one, or lower the number."
                yield Problem((*network.path, key), network.keys[key], rule, hint)


def _rooms(network: Item, key: str) -> dict[int, int]:
    """How many addresses the subnets of a network have to give, by IP version."""
    rooms: dict[int, int] = {}
    for dummy, subnet in subnets(network, key):
        kept = 0 if subnet.prefixlen >= subnet.max_prefixlen - 1 else 3 if key == "pod_subnets" else 2
        rooms[subnet.version] = rooms.get(subnet.version, 0) + max(subnet.num_addresses - kept, 0)
    return rooms


def _pods_exist(index: Index, dummy: Fleet) -> Iterator[Problem]:
    for service in index.services:
        if service.replicas() is None:
            continue
        pods = service.pod_names()
        named: list[tuple[Path, str]] = list(service.texts("draining"))
        for key in ("placement", "weights", "addresses"):
            named += [((*service.path, key, pod), pod) for pod in service.of_pods(key)]
        for path, pod in named:
            if pod not in pods:
                rule = f"is no pod of {service.name}, which has {len(pods)} replicas"
                yield Problem(path, pod, rule, suggest(pod, pods, "Name one of its pods"))


def _pod_names_fit(index: Index, dummy: Fleet) -> Iterator[Problem]:
    for service in index.services:
        pods = service.pod_names()
        if pods and len(pods[-1]) > 63 >= len(service.keys["name"]):
            rule = f"makes the pod name {pods[-1]} longer than 63 characters"
            yield Problem((*service.path, "name"), service.keys["name"], rule, "Shorten it.")


def _hosts_exist(index: Index, fleet: Fleet) -> Iterator[Problem]:
    if fleet.switches is None:
        return
    for service in index.services:
        named = list(service.texts("hosts"))
        named += [
            ((*service.path, "placement", pod), host)
            for pod, host in service.of_pods("placement").items()
            if isinstance(host, str)
        ]
        for path, host in named:
            if host not in fleet.switches:
                hint = suggest(host, fleet.switches, "Add it to group switches, or name another host")
                yield Problem(path, host, "is no host of group switches", hint)


def _exports_join(index: Index, dummy: Fleet) -> Iterator[Problem]:
    services = {service.name: service for service in index.services}
    groups = {group.name for group in index.groups}
    for export in index.exports:
        service, group = export.keys.get("service"), export.keys.get("to")
        if isinstance(service, str) and service.count("/") == 1 and service not in services:
            hint = suggest(service, services, "Add it")
            yield Problem((*export.path, "service"), service, "is no service of qnet_tenants", hint)
        if isinstance(group, str) and group not in groups:
            hint = suggest(group, groups, "Add it")
            yield Problem((*export.path, "to"), group, "is no security group of qnet_tenants", hint)
        if isinstance(service, str) and isinstance(group, str) and service.split("/")[0] == group:
            rule = f"is the own group of {service}, which reaches it without an export"
            yield Problem((*export.path, "to"), group, rule, "Remove the export, or name another group.")
        known = services.get(service) if isinstance(service, str) else None
        if known is not None and not known.keys.get("service_ips") and export.keys.get("direct") is not True:
            rule = "has no Service IP, so that this export lets nothing pass"
            hint = f"Add service_ips to {render_path(known.path)}, or direct: true here."
            yield Problem((*export.path, "service"), service, rule, hint)
    pairs = (((item.keys.get("service"), item.keys.get("to")), item) for item in index.exports)
    for first, second in _twice((pair, item) for pair, item in pairs if all(isinstance(part, str) for part in pair)):
        what = f"export {second.keys['service']} -> {second.keys['to']}"
        yield _duplicate(second.path, f"{second.keys['service']} -> {second.keys['to']}", what, first.path)


def _egress_leads_outside(index: Index, dummy: Fleet) -> Iterator[Problem]:
    """Addresses of the overlay are reached by exports alone; a rule within a network opens nothing."""
    for group in index.groups:
        rules = group.keys.get("egress")
        for position, rule in enumerate(rules if isinstance(rules, list) else ()):
            to = rule.get("to") if isinstance(rule, Mapping) else None
            block = block_of(to)
            within = (
                (subnet, network)
                for network in index.networks
                for dummy, subnet in subnets(network, "pod_subnets") + subnets(network, "service_subnets")
                if block is not None and block.version == subnet.version and block.subnet_of(subnet)  # type: ignore[arg-type]
            )
            for subnet, network in itertools.islice(within, 1):
                text = f"opens nothing: it lies within {subnet} of network {network.name}"
                hint = "Export a service to the group instead, or remove the rule."
                yield Problem((*group.path, "egress", position, "to"), to, text, hint)


def _affinity_lasts(index: Index, dummy: Fleet) -> Iterator[Problem]:
    """Only what a client keeps has an end."""
    for dummy_service, entry in index.service_ips:
        seconds = entry.keys.get("affinity_seconds")
        if seconds is not None and entry.keys.get("affinity", "none") == "none":
            rule = "is for affinity client alone"
            yield Problem((*entry.path, "affinity_seconds"), seconds, rule, "Add affinity: client, or remove it.")


def _exports_last(index: Index, fleet: Fleet) -> Iterator[Problem]:
    for export in index.exports:
        text = export.keys.get("expires")
        try:
            ended = isinstance(text, str) and parse_timestamp(text) <= fleet.now
        except FormatError:
            continue
        if ended:
            rule = f"is in the past (it is {fleet.now:%Y-%m-%dT%H:%M:%SZ})"
            yield Problem((*export.path, "expires"), text, rule, "Remove the export, or set a later time.")


def _files_exist(index: Index, fleet: Fleet) -> Iterator[Problem]:
    targets: dict[str, tuple[str, Path]] = {}
    for service in index.services:
        workload = service.keys.get("workload")
        if not isinstance(workload, dict):
            continue
        for path, file in Item((*service.path, "workload"), workload, "").texts("files"):
            if not fleet.has_file(file):
                yield Problem(path, file, "is no file on the control node", "Give its path relative to the inventory.")
            other, other_path = targets.setdefault(posixpath.basename(file), (file, path))
            if other != file:
                rule = f"is copied to the same name as {other} ({render_path(other_path)})"
                yield Problem(path, file, rule, "Rename one of the two files.")


def _database_odd(dummy: Index, fleet: Fleet) -> Iterator[Problem]:
    members = list(fleet.database)
    if members and len(members) % 2 == 0:
        rule = f"has {len(members)} hosts; a Raft cluster of an even number survives no more failures than one fewer"
        yield Problem(("groups", "database"), members, rule, f"Use {len(members) - 1} or {len(members) + 1} hosts.")


def _twice(keyed: Iterator[tuple[Any, Item]]) -> Iterator[tuple[Item, Item]]:
    seen: list[tuple[Any, Item]] = []
    first: dict[Any, Item] = {}
    for key, item in keyed:
        try:
            known = first.setdefault(key, item)
        except TypeError:  # a value of a wrong shape, such as a list: the schema has said so
            continue
        if known is not item:
            seen.append((known, item))
    yield from seen


def _duplicate(path: Path, value: Any, what: str, first: Path) -> Problem:
    rule = f"is there twice: {what} is already at {render_path(first)}"
    return Problem(path, value, rule, "Rename or remove one of them.")


def _outside(path: Path, address: object, key: str, network: Item) -> Problem:
    hint = f"Use an address of {', '.join(map(str, network.keys[key]))}."
    return Problem(path, str(address), f"is outside of the {key} of network {network.name}", hint)


def _sets_have_controllers(dummy: Index, fleet: Fleet) -> Iterator[Problem]:
    known = sorted(set(fleet.controller_sets.values()))
    for host, wanted in fleet.switch_sets.items():
        if known and wanted not in known:
            hint = suggest(wanted, known, "Give a host of the group controllers this qnet_controller_set")
            yield Problem(("hostvars", host, "qnet_controller_set"), wanted, "is the set of no controller", hint)


_RULES: tuple[Callable[[Index, Fleet], Iterator[Problem]], ...] = (
    _unique_names,
    _unique_vnis,
    _subnets_apart,
    _subnets_large_enough,
    _mtu_carried,
    _networks_exist,
    _service_addresses,
    _pod_addresses,
    _enough_addresses,
    _pods_exist,
    _pod_names_fit,
    _hosts_exist,
    _exports_join,
    _exports_last,
    _egress_leads_outside,
    _affinity_lasts,
    _files_exist,
    _database_odd,
    _sets_have_controllers,
)
