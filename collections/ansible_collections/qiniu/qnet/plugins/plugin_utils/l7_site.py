# SPDX-License-Identifier: GPL-3.0-or-later
"""Listeners and routes of one balancer, resolved: what is inherited, which host names share a server, addresses."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.qiniu.qnet.plugins.module_utils._l7_rules import inherited, method_of

Values = Mapping[str, Any]
STREAM = ("tcp", "udp")
UNKNOWN_ADDRESS = "0.0.0.1"  # stands for a Service IP that is not there yet (check mode)


@dataclass(frozen=True)
class Backend:
    """One backend of a route: the upstream that stands for it, and its service."""

    upstream: str
    service: str
    port: int
    address: str
    weight: int
    when: Values | None


@dataclass(frozen=True)
class Route:
    """A route with everything that it inherits. `number` is unique in the balancer."""

    number: int
    path: str
    listener: str
    name: str
    values: Values
    backends: tuple[Backend, ...]

    @property
    def key(self) -> str:
        """listener/route."""
        return f"{self.listener}/{self.name}"

    @property
    def method(self) -> str:
        """How a backend is chosen; service_ip when the network does it."""
        return method_of(self.values)

    @property
    def by_pods(self) -> bool:
        """Whether the balancer chooses among pods."""
        return self.method != "service_ip"

    @property
    def location(self) -> tuple[str, str]:
        """Kind of match and path."""
        return self.values.get("match", "prefix"), self.values.get("path", "/")

    def get(self, *keys: str, default: Any = None) -> Any:
        """A nested value."""
        value: Any = self.values
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return default if value is None else value


@dataclass(frozen=True)
class Server:
    """Host names of a listener that have the same routes and the same certificate; no names: the default server."""

    names: tuple[str, ...]
    routes: tuple[Route, ...]
    certificate: Values | None


@dataclass(frozen=True)
class Listener:
    """A listener with its routes."""

    number: int
    path: str
    name: str
    protocol: str
    port: int
    values: Values
    routes: tuple[Route, ...]
    ipv6: bool

    @property
    def binds(self) -> list[str]:
        """What it listens on."""
        return [str(self.port), *([f"[::]:{self.port}"] if self.ipv6 else [])]

    @property
    def is_stream(self) -> bool:
        """Whether it takes connections rather than requests."""
        return self.protocol in STREAM

    @property
    def tls(self) -> bool:
        """Whether clients speak TLS."""
        return self.protocol == "https" or (self.protocol == "tcp" and "certificates" in self.values)

    @property
    def servers(self) -> list[Server]:
        """Servers, the default one first."""
        certificates: Sequence[Values] = self.values.get("certificates", ())
        everywhere = tuple(route for route in self.routes if not route.values.get("hosts"))
        names = {name for route in self.routes for name in route.values.get("hosts", ())}
        names |= {name for certificate in certificates for name in certificate.get("names", ())}
        first = certificates[0] if certificates else None
        alike: dict[tuple[tuple[str, ...], int], list[str]] = {}
        for name in sorted(names):
            mine = [route.key for route in self.routes if name in route.values.get("hosts", ())]
            mine = mine or [route.key for route in everywhere]
            alike.setdefault((tuple(mine), _certificate(certificates, name)), []).append(name)
        by_key = {route.key: route for route in self.routes}
        servers = [Server((), everywhere, first)]
        for (keys, position), hosts in alike.items():
            certificate = certificates[position] if certificates else None
            servers.append(Server(tuple(hosts), tuple(by_key[key] for key in keys), certificate))
        return servers


@dataclass(frozen=True)
class Site:
    """Everything that one balancer does."""

    listeners: tuple[Listener, ...]
    tenants: Mapping[str, str] = field(default_factory=dict)

    @property
    def routes(self) -> list[Route]:
        """All routes."""
        return [route for listener in self.listeners for route in listener.routes]

    @property
    def names_itself(self) -> bool:
        """Whether a text of the inventory uses one of our variables, such as $qnet_route in a header."""
        texts = json.dumps([listener.values for listener in self.listeners] + [route.values for route in self.routes])
        return re.search(r"\$\{?qnet_", texts) is not None


def site(
    balancer: str,
    listeners: Sequence[Values],
    routes: Sequence[Values],
    addresses: Mapping[tuple[str, str], str],
    tenants: Mapping[str, str],
    services: Mapping[str, Values] | None = None,
    ipv6: bool = True,
    prefixes: tuple[str, str] = ("qnet_l7_listeners", "qnet_l7_routes"),
) -> Site:
    """The site of a balancer. `addresses`: (group/service, name of its Service IP) to address.

    `services`: group/service to what it says for l7; `ipv6`: whether it listens on IPv6 as well.
    """
    made = []
    number = 0
    for position, values in enumerate(listeners):
        if values["balancer"] != balancer:
            continue
        mine = []
        for route_position, route in enumerate(routes):
            if route["listener"] == values["name"]:
                number += 1
                whole = {**inherited(values, route, services or {}), **route}
                mine.append(_route(number, f"{prefixes[1]}[{route_position}]", whole, addresses))
        path = f"{prefixes[0]}[{position}]"
        made.append(
            Listener(position, path, values["name"], values["protocol"], values["port"], values, tuple(mine), ipv6)
        )
    return Site(tuple(made), tenants)


def _route(number: int, path: str, route: Values, addresses: Mapping[tuple[str, str], str]) -> Route:
    backends = [
        Backend(
            f"qnet.{route['listener']}.{route['name']}.{position}",
            entry["service"],
            entry["port"],
            address_of(entry, addresses),
            entry.get("weight", 1),
            entry.get("when"),
        )
        for position, entry in enumerate(route.get("backends", ()), 1)
    ]
    return Route(number, path, route["listener"], route["name"], route, tuple(backends))


def address_of(entry: Values, addresses: Mapping[tuple[str, str], str]) -> str:
    """The address of the Service IP that a backend names."""
    return addresses.get((entry["service"], entry.get("service_ip", "main")), UNKNOWN_ADDRESS)


def _certificate(certificates: Sequence[Values], name: str) -> int:
    """Which certificate a host name gets: the first with just this name, the first whose wildcard fits, the first."""
    for position, certificate in enumerate(certificates):
        if name in certificate.get("names", ()):
            return position
    for position, certificate in enumerate(certificates):
        for wanted in certificate.get("names", ()):
            if wanted.startswith("*.") and fnmatch.fnmatchcase(name, wanted):
                return position
    return 0
