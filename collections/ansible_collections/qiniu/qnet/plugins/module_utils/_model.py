# Copyright (c) qnet authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The intent as plain values: one frozen record per object, all references by name.

No I/O and no Ansible here: plans, checks and tests work on these records alone.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import typing as t

from ansible_collections.qiniu.qnet.plugins.module_utils import _l7_rules

VIRTUAL_MAC = "0a:00:00:00:00:01"
MAX_GROUP_NUMBER = 65535
MAX_VNI = 16777215


@dataclasses.dataclass(frozen=True)
class Network:
    """A tenant network: its VNI and the subnets its addresses come from (canonical CIDR text, sorted)."""

    name: str
    vni: int
    pod_subnets: tuple[str, ...]
    service_subnets: tuple[str, ...] = ()
    mtu: int | None = None

    key_fields: t.ClassVar[tuple[str, ...]] = ("name",)

    @property
    def key(self) -> str:
        """The name by which people and other records speak of it."""
        return self.name


@dataclasses.dataclass(frozen=True)
class Guest:
    """Leave for pods of ``network`` to be served by pods of ``home``.

    Calls have ``vni`` on the wire, answers the number after it; pods of ``home`` see the callers at ``addresses``.
    """

    network: str
    home: str
    vni: int
    addresses: tuple[str, ...]

    key_fields: t.ClassVar[tuple[str, ...]] = ("network", "home")

    @property
    def key(self) -> str:
        """``network>home``."""
        return f"{self.network}>{self.home}"


@dataclasses.dataclass(frozen=True)
class Host:
    """A host that carries pods. ``datapath_id`` None means: derive it from the name."""

    name: str
    vteps: tuple[str, ...]
    datapath_id: str
    datapath_kind: str = "system"
    controller_set: str = "default"
    draining: bool = False

    key_fields: t.ClassVar[tuple[str, ...]] = ("name",)

    @property
    def key(self) -> str:
        """The name by which people and other records speak of it."""
        return self.name


@dataclasses.dataclass(frozen=True)
class SecurityGroup:
    """A security group of a tenant. ``number`` is its stable identity in flow tables.

    ``egress``: what its pods reach outside, each ``203.0.113.0/24`` or ``203.0.113.0/24 tcp/443``. ``broadcast``:
    whether what a pod sends to all comes to the others.
    """

    name: str
    tenant: str
    number: int
    egress: tuple[str, ...] = ()
    broadcast: bool = False

    key_fields: t.ClassVar[tuple[str, ...]] = ("name",)

    @property
    def key(self) -> str:
        """The name by which people and other records speak of it."""
        return self.name


@dataclasses.dataclass(frozen=True)
class Service:
    """A service: identical pods of one group in one network.

    ``health_check``: its options as text; none: no check. ``l7``: how L7 balancers ask it, canonical JSON.
    """

    group: str
    name: str
    network: str
    health_check: tuple[tuple[str, str], ...] = ()
    drain_seconds: int | None = None
    l7: str = "{}"

    key_fields: t.ClassVar[tuple[str, ...]] = ("group", "name")

    @property
    def key(self) -> str:
        """``group/service``."""
        return f"{self.group}/{self.name}"


@dataclasses.dataclass(frozen=True)
class ServiceIP:
    """An address that stands for a service, in ``network``: that of the service, or one that has a guest there."""

    group: str
    service: str
    name: str
    network: str
    address: str
    affinity: str = "none"
    algorithm: str = "hash"
    affinity_seconds: int | None = None

    key_fields: t.ClassVar[tuple[str, ...]] = ("group", "service", "name")

    @property
    def service_key(self) -> str:
        """``group/service`` of the service it stands for."""
        return f"{self.group}/{self.service}"

    @property
    def key(self) -> str:
        """``group/service:name``."""
        return f"{self.group}/{self.service}:{self.name}"


@dataclasses.dataclass(frozen=True)
class Pod:
    """A pod: identity and addresses, never its location."""

    group: str
    service: str
    name: str
    network: str
    mac: str
    addresses: tuple[str, ...]
    port_name: str
    weight: int = 100
    state: str = "active"
    containers: tuple[str, ...] = ()
    drain_until: int | None = None

    key_fields: t.ClassVar[tuple[str, ...]] = ("group", "name")

    @property
    def service_key(self) -> str:
        """``group/service`` of the service it belongs to."""
        return f"{self.group}/{self.service}"

    @property
    def key(self) -> str:
        """``group/pod``."""
        return f"{self.group}/{self.name}"


@dataclasses.dataclass(frozen=True)
class Export:
    """A service opened to another group. No ports: all. ``expires``: seconds since the epoch, UTC."""

    service: str
    to: str
    ports: tuple[str, ...] = ()
    direct: bool = False
    expires: int | None = None

    key_fields: t.ClassVar[tuple[str, ...]] = ("service", "to")

    @property
    def key(self) -> str:
        """``group/service -> group``."""
        return f"{self.service} -> {self.to}"


@dataclasses.dataclass(frozen=True)
class L7Listener:
    """A port on which the pods of a service run nginx. ``settings``: its other options, canonical JSON."""

    name: str
    balancer: str
    protocol: str
    port: int
    settings: str = "{}"

    key_fields: t.ClassVar[tuple[str, ...]] = ("name",)

    @property
    def key(self) -> str:
        """The name by which people and other records speak of it."""
        return self.name

    @property
    def values(self) -> dict[str, t.Any]:
        """All options together, as in the inventory."""
        columns = {"name": self.name, "balancer": self.balancer, "protocol": self.protocol, "port": self.port}
        return {**columns, **json.loads(self.settings)}


@dataclasses.dataclass(frozen=True)
class L7Route:
    """What a listener does with some of its requests. ``settings``: its options, canonical JSON."""

    listener: str
    name: str
    settings: str = "{}"

    key_fields: t.ClassVar[tuple[str, ...]] = ("listener", "name")

    @property
    def key(self) -> str:
        """``listener/route``."""
        return f"{self.listener}/{self.name}"

    @property
    def values(self) -> dict[str, t.Any]:
        """All options together, as in the inventory."""
        return {"listener": self.listener, "name": self.name, **json.loads(self.settings)}

    @property
    def services(self) -> tuple[str, ...]:
        """Every service that it asks, as ``group/service``."""
        return tuple(_l7_rules.services_of(json.loads(self.settings)))


# In the order in which they refer to each other: what comes later names what comes earlier.
KINDS: dict[str, type[t.Any]] = {
    "network": Network,
    "guest": Guest,
    "host": Host,
    "security_group": SecurityGroup,
    "service": Service,
    "service_ip": ServiceIP,
    "pod": Pod,
    "export": Export,
    "l7_listener": L7Listener,
    "l7_route": L7Route,
}

TITLES: dict[str, str] = {
    "network": "network",
    "guest": "guest",
    "host": "host",
    "security_group": "security group",
    "service": "service",
    "service_ip": "Service IP",
    "pod": "pod",
    "export": "export",
    "l7_listener": "L7 listener",
    "l7_route": "L7 route",
}


def plural(kind: str) -> str:
    """Name of the list of objects of a kind, as used for options, return values and diffs."""
    return f"{kind}s"


class State(dict[str, dict[str, t.Any]]):
    """The whole intent: kind → key → record. Records are shared between copies, they never change."""

    def __init__(self) -> None:
        super().__init__({kind: {} for kind in KINDS})

    def copy(self) -> State:
        """A copy whose objects can be added and removed without touching this one."""
        twin = State()
        for kind, records in self.items():
            twin[kind] = dict(records)
        return twin

    def add(self, kind: str, record: t.Any) -> None:
        """Put a record under its own key."""
        self[kind][record.key] = record


class IntentRefused(Exception):
    """The wish cannot be carried out. ``problems`` has one sentence for each reason."""

    def __init__(self, problems: t.Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class AddressPoolExhausted(ValueError):
    """No free address is left in any of the subnets asked for."""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def port_name_of(pod: str) -> str:
    """OVS port of the pod ``group/pod``: 14 characters, so that it fits an interface name."""
    return "qn" + _digest(pod)[:12]


def mac_of(pod: str) -> str:
    """MAC address of the pod ``group/pod`` when none is given: locally administered, unicast."""
    digits = _digest(pod)[12:22]
    return ":".join(["02", *(digits[index : index + 2] for index in range(0, 10, 2))])


def namespace_of(pod: str) -> str:
    """Network namespace of the pod ``group/pod`` on its host."""
    return pod.replace("/", ".")


def datapath_id_of(host: str) -> str:
    """Datapath id of a host when none is given: 16 hexadecimal digits."""
    return _digest(host)[:16]


def shown_check(options: t.Iterable[tuple[str, str]]) -> dict[str, t.Any]:
    """The options of a health check as people write them: numbers as numbers."""
    numbers: dict[str, t.Callable[[str], t.Any]] = {
        "port": int,
        "interval_seconds": float,
        "timeout_seconds": float,
        "healthy_threshold": int,
        "unhealthy_threshold": int,
    }
    return {name: numbers.get(name, str)(value) for name, value in options}


def shown_egress(lines: t.Iterable[str]) -> list[dict[str, t.Any]]:
    """Egress rules as people write them: the ports of each block together; no ports: all."""
    shown: dict[str, list[str]] = {}
    for line in lines:
        to, dummy, port = line.partition(" ")
        shown.setdefault(to, []).extend([port] if port else [])
    return [{"to": to, "ports": ports} for to, ports in shown.items()]


def render(record: t.Any) -> dict[str, t.Any]:
    """A record as people write it: plain lists, times in ISO 8601, nothing internal."""
    shown: dict[str, t.Any] = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        shown[field.name] = list(value) if isinstance(value, tuple) else value
    if isinstance(record, Service):
        shown["health_check"] = shown_check(record.health_check)
        shown["l7"] = json.loads(record.l7)
    if isinstance(record, SecurityGroup):
        shown["egress"] = shown_egress(record.egress)
    if isinstance(record, (L7Listener, L7Route)):
        shown["settings"] = json.loads(record.settings)
    if isinstance(record, Export) and record.expires is not None:
        shown["expires"] = datetime.datetime.fromtimestamp(record.expires, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return shown
