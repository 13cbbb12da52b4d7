# SPDX-License-Identifier: GPL-3.0-or-later
"""The objects of an inventory with their paths; what has a wrong shape is left out, so that all other checks run."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.qiniu.qnet.plugins.plugin_utils.problem import Path

Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Item:
    """One object of the inventory: its path, its keys and values, and its full name (group/service for a service)."""

    path: Path
    keys: Mapping[str, Any]
    name: str

    def texts(self, key: str) -> Iterator[tuple[Path, str]]:
        """The texts of a list value with their paths."""
        yield from _texts((*self.path, key), self.keys.get(key))

    def of_pods(self, key: str) -> Mapping[str, Any]:
        """A value that maps pod names to something, empty when it is of another kind."""
        value = self.keys.get(key)
        return {str(k): v for k, v in value.items()} if isinstance(value, Mapping) else {}

    def replicas(self) -> int | None:
        """The number of pods of a service; None when it is not a valid number."""
        value = self.keys.get("replicas", 1)
        return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 65535 else None

    def pod_names(self) -> list[str]:
        """The names of the pods of a service, without its group."""
        return [f"{self.keys['name']}-{number}" for number in range(1, (self.replicas() or 0) + 1)]


@dataclass
class Index:
    """All objects of one inventory. A service is preceded by its group in `services`; names may occur twice."""

    networks: list[Item] = field(default_factory=list)
    guests: list[Item] = field(default_factory=list)
    tenants: list[Item] = field(default_factory=list)
    groups: list[Item] = field(default_factory=list)
    services: list[Item] = field(default_factory=list)
    service_ips: list[tuple[Item, Item]] = field(default_factory=list)
    exports: list[Item] = field(default_factory=list)

    @classmethod
    def of(cls, inventory: Mapping[str, Any]) -> Index:
        """The objects in `inventory` (variable name to value)."""
        index = cls()
        index.networks = list(_items(("qnet_networks",), inventory.get("qnet_networks")))
        index.guests = list(_items(("qnet_guests",), inventory.get("qnet_guests"), default=""))
        index.tenants = list(_items(("qnet_tenants",), inventory.get("qnet_tenants")))
        for tenant in index.tenants:
            for group in _items((*tenant.path, "security_groups"), tenant.keys.get("security_groups")):
                index.groups.append(group)
                for service in _items((*group.path, "services"), group.keys.get("services"), f"{group.name}/"):
                    index.services.append(service)
                    entries = _items((*service.path, "service_ips"), service.keys.get("service_ips"), default="main")
                    index.service_ips += [(service, entry) for entry in entries]
        index.exports = list(_items(("qnet_exports",), inventory.get("qnet_exports"), default=""))
        return index

    def network_of(self, service: Item, entry: Item | None = None) -> Item | None:
        """The network that a service, or one of its Service IPs, names; None when there is none of that name."""
        wanted = service.keys.get("network")
        if entry is not None:
            wanted = entry.keys.get("network", wanted)
        return next((network for network in self.networks if network.name == wanted), None)


def subnets(network: Item, key: str) -> list[tuple[Path, Subnet]]:
    """The well-formed subnets in a network's `pod_subnets` or `service_subnets`, with their paths."""
    found = []
    for path, text in network.texts(key):
        with contextlib.suppress(ValueError):
            if "/" in text:
                found.append((path, ipaddress.ip_network(text)))
    return found


def address_of(value: Any) -> Address | None:
    """The address that `value` says, or None."""
    try:
        return ipaddress.ip_address(value) if isinstance(value, str) else None
    except ValueError:
        return None


def block_of(value: Any) -> Subnet | None:
    """The block of addresses that `value` says, or None."""
    try:
        return ipaddress.ip_network(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _items(path: Path, value: Any, prefix: str = "", default: str | None = None) -> Iterator[Item]:
    if not isinstance(value, list):
        return
    for position, keys in enumerate(value):
        name = keys.get("name", default) if isinstance(keys, Mapping) else None
        if isinstance(name, str):
            yield Item((*path, position), {**keys, "name": name}, prefix + name)


def _texts(path: Path, value: Any) -> Iterator[tuple[Path, str]]:
    if isinstance(value, list):
        yield from (((*path, position), text) for position, text in enumerate(value) if isinstance(text, str))
