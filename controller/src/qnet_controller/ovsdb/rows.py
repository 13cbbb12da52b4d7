# SPDX-License-Identifier: Apache-2.0
"""Rows of the database QNet as objects of the model; references become names, addresses packed bytes."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..model.objects import (
    DEFAULT_SET,
    Address,
    EgressRule,
    Export,
    Guest,
    HealthCheck,
    Host,
    Network,
    Object,
    Pod,
    PortRule,
    SecurityGroup,
    Service,
    ServiceIP,
    Subnet,
)

STRING_MAP: dict[str, Any] = {"key": "string", "value": "string", "min": 0, "max": "unlimited"}
STRINGS: dict[str, Any] = {"key": "string", "min": 0, "max": "unlimited"}


def _reference(table: str) -> dict[str, Any]:
    return {"type": {"key": {"type": "uuid", "refTable": table, "refType": "strong"}}}


def _column(kind: Any) -> dict[str, Any]:
    return {"type": kind}


_STRING = _column("string")
_INTEGER = _column("integer")
_BOOLEAN = _column("boolean")
_OPTIONAL_INTEGER = _column({"key": "integer", "min": 0, "max": 1})
COLUMNS: dict[str, dict[str, dict[str, Any]]] = {
    "QNet_Global": {"generation": _INTEGER, "options": _column(STRING_MAP)},
    "Network": {
        "name": _STRING,
        "vni": _INTEGER,
        "pod_subnets": _column(STRINGS),
        "service_subnets": _column(STRINGS),
    },
    "Guest": {
        "network": _reference("Network"),
        "home": _reference("Network"),
        "vni": _INTEGER,
        "addresses": _column(STRINGS),
    },
    "Host": {
        "name": _STRING,
        "vteps": _column(STRINGS),
        "datapath_id": _STRING,
        "datapath_kind": _STRING,
        "controller_set": _STRING,
        "state": _STRING,
    },
    "Security_Group": {
        "name": _STRING,
        "tenant": _STRING,
        "number": _INTEGER,
        "egress": _column(STRINGS),
        "broadcast": _BOOLEAN,
    },
    "Service": {
        "name": _STRING,
        "group": _reference("Security_Group"),
        "network": _reference("Network"),
        "health_check": _column({"key": "string", "value": "string", "min": 0, "max": "unlimited"}),
    },
    "Service_IP": {
        "name": _STRING,
        "service": _reference("Service"),
        "network": _reference("Network"),
        "address": _STRING,
        "affinity": _STRING,
        "affinity_seconds": _OPTIONAL_INTEGER,
    },
    "Pod": {
        "name": _STRING,
        "service": _reference("Service"),
        "network": _reference("Network"),
        "mac": _STRING,
        "port_name": _STRING,
        "weight": _INTEGER,
        "state": _STRING,
        "drain_until": _OPTIONAL_INTEGER,
    },
    "Pod_Address": {"pod": _reference("Pod"), "address": _STRING},
    "Export": {
        "service": _reference("Service"),
        "to_group": _reference("Security_Group"),
        "ports": _column(STRINGS),
        "expires": _OPTIONAL_INTEGER,
        "direct": _BOOLEAN,
    },
}
"""What the controller reads, in the types of RFC 7047; limits on values are the database's own business."""

SCHEMA: dict[str, Any] = {
    "name": "QNet",
    "version": "1.0.0",
    "tables": {name: {"columns": columns} for name, columns in COLUMNS.items()},
}

PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "sctp": 132}


class MalformedRow(ValueError):
    """A row that cannot be an object of the model; the text says what is wrong with which value."""


def address(text: str) -> Address:
    """A packed address."""
    try:
        return ipaddress.ip_address(text).packed
    except ValueError:
        raise MalformedRow(f"{text!r} is not an address") from None


def subnet(text: str) -> Subnet:
    """An address block such as 10.10.0.0/16."""
    try:
        block = ipaddress.ip_network(text)
    except ValueError as error:
        raise MalformedRow(f"{text!r} is not a subnet: {error}") from None
    return Subnet(block.network_address.packed, block.prefixlen)


def mac(text: str) -> bytes:
    """A packed MAC address."""
    parts = text.split(":")
    try:
        packed = bytes(int(part, 16) for part in parts)
    except ValueError:
        packed = b""
    if len(packed) != 6 or any(len(part) != 2 for part in parts):
        raise MalformedRow(f"{text!r} is not a MAC address")
    return packed


def datapath_id(text: str) -> int:
    """16 hex digits as an integer."""
    try:
        number = int(text, 16)
    except ValueError:
        number = -1
    if len(text) != 16 or number < 0:
        raise MalformedRow(f"datapath id {text!r} is not 16 hex digits")
    return number


def port_rule(text: str) -> PortRule:
    """`tcp/80`, `udp/53`, `icmp`."""
    name, _, port = text.partition("/")
    protocol = PROTOCOLS.get(name)
    if protocol is None:
        raise MalformedRow(f"port {text!r}: the protocol is one of {', '.join(PROTOCOLS)}")
    if name == "icmp":
        if port:
            raise MalformedRow(f"port {text!r}: icmp has no ports")
        return PortRule(protocol)
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise MalformedRow(f"port {text!r}: the port is a number from 1 to 65535")
    return PortRule(protocol, int(port))


def egress_rule(text: str) -> EgressRule:
    """`203.0.113.0/24`, which is every protocol and port, or `203.0.113.0/24 tcp/443`."""
    block, _, port = text.partition(" ")
    return EgressRule(subnet(block), port_rule(port) if port else None)


def _named(row: Any, column: str) -> str:
    target = getattr(row, column)
    if target is None or isinstance(target, list):
        raise MalformedRow(f"{column} refers to nothing")
    return str(target.name)


def service_key(row: Any) -> str:
    """`group/service` of a row of Service."""
    return f"{_named(row, 'group')}/{row.name}"


def _service_of(row: Any) -> str:
    target = row.service
    if target is None or isinstance(target, list):
        raise MalformedRow("service refers to nothing")
    return service_key(target)


def health_check(options: Mapping[str, str]) -> HealthCheck | None:
    """What a service's column says; an empty one is no check."""
    if not options:
        return None
    try:
        return HealthCheck(
            options["type"],
            int(options.get("port", 0)),
            options.get("path", "/"),
            float(options["interval_seconds"]),
            float(options["timeout_seconds"]),
            int(options["healthy_threshold"]),
            int(options["unhealthy_threshold"]),
        )
    except (KeyError, ValueError) as error:
        raise MalformedRow(f"health_check {dict(options)!r}: {error!r}") from None


def _service(row: Any) -> Service:
    return Service(row.name, _named(row, "group"), _named(row, "network"), health_check(row.health_check))


def _network(row: Any) -> Network:
    return Network(row.name, row.vni, _subnets(row.pod_subnets), _subnets(row.service_subnets))


def _subnets(texts: Iterable[str]) -> tuple[Subnet, ...]:
    return tuple(sorted(map(subnet, texts), key=_subnet_order))


def _subnet_order(block: Subnet) -> tuple[int, bytes, int]:
    return (len(block.address), block.address, block.prefix)


def _host(row: Any) -> Host:
    vteps = tuple(sorted(map(address, row.vteps), key=address_order))
    controller_set = row.controller_set or DEFAULT_SET
    return Host(row.name, vteps, datapath_id(row.datapath_id), row.datapath_kind, row.state, controller_set)


def _pod(row: Any, addresses: Iterable[Address]) -> Pod:
    return Pod(
        row.name,
        _service_of(row),
        _named(row, "network"),
        mac(row.mac),
        row.port_name,
        tuple(sorted(addresses, key=address_order)),
        row.weight,
        row.state,
        _optional(row.drain_until),
    )


def address_order(packed: Address) -> tuple[int, bytes]:
    """IPv4 before IPv6, then by number."""
    return (len(packed), packed)


def _optional(value: Any) -> int | None:
    """An optional integer: the library gives a number, or a list of one or none."""
    if isinstance(value, list):
        return int(value[0]) if value else None
    return int(value)


def _export(row: Any) -> Export:
    return Export(
        _service_of(row),
        _named(row, "to_group"),
        frozenset(map(port_rule, row.ports)),
        _optional(row.expires),
        row.direct,
    )


def _guest(row: Any) -> Guest:
    addresses = tuple(sorted(map(address, row.addresses), key=address_order))
    return Guest(_named(row, "network"), _named(row, "home"), row.vni, addresses)


CONVERTERS: dict[str, tuple[type[Object], Callable[..., Object]]] = {
    "Network": (Network, _network),
    "Guest": (Guest, _guest),
    "Host": (Host, _host),
    "Security_Group": (
        SecurityGroup,
        lambda row: SecurityGroup(
            row.name, row.tenant, row.number, frozenset(map(egress_rule, row.egress)), row.broadcast
        ),
    ),
    "Service": (Service, _service),
    "Service_IP": (
        ServiceIP,
        lambda row: ServiceIP(
            row.name,
            _service_of(row),
            _named(row, "network"),
            address(row.address),
            row.affinity,
            _optional(row.affinity_seconds) or 0,
        ),
    ),
    "Pod": (Pod, _pod),
    "Export": (Export, _export),
}
"""Table: the kind of object, and how a row (for Pod: with its addresses) becomes one."""
