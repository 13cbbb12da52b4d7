# SPDX-License-Identifier: Apache-2.0
"""Small tenants as plain data: made at random, changed at random, and turned into objects of the model."""

from __future__ import annotations

import hashlib
import ipaddress
import random
from dataclasses import dataclass, field
from typing import NamedTuple

from qnet_controller.model import objects as o
from simulator.packets import is_ipv6, packed

ICMP, TCP, UDP = 1, 6, 17
POD_BLOCK, SERVICE_BLOCK = 0x0A010000, 0x0A020000  # 10.1.0.0/24 and 10.2.0.0/24 in every network, on purpose
IPV6 = 0xFD00 << 112
"""Added to an IPv4 address for its IPv6 twin: fd00::a01:0/120 is the pods' block, fd00::a02:0/120 the services'."""
PORT_CHOICES = ((TCP, 80), (TCP, 81), (UDP, 53), (ICMP, None))
WEB = 0xCB007100
EGRESS_BLOCKS = ((0, 0), (0x0A000000, 8), (0xC0A80000, 16), (WEB, 24), (WEB + 128, 25), (WEB + 9, 32), (IPV6, 0),
                 (IPV6 + 0x99 * (1 << 64), 64), (IPV6 + 0x99 * (1 << 64) + 9, 128))  # fmt: skip
OUTSIDE_ADDRESSES = (WEB + 9, WEB + 130, 0xC0A80001, IPV6 + 0x99 * (1 << 64) + 9)
"""Addresses that nobody in the overlay has: in blocks of rules, beside them, and of a tunnel."""
Families = tuple[int, ...]
"""What is added to an IPv4 address for each of the families: 0 and IPV6."""
FAMILY_CHOICES: tuple[Families, ...] = ((0,), (0, IPV6), (0, IPV6), (IPV6,))
Ports = frozenset[tuple[int, int | None]]


@dataclass(slots=True)
class PodPlan:
    """A pod; `host` is where its port is, None for nowhere."""

    service: str
    name: str
    network: str
    addresses: tuple[int, ...]
    host: str | None
    weight: int = 100
    state: str = "active"

    @property
    def address(self) -> int:
        """The first of its addresses."""
        return self.addresses[0]

    def own(self, peer: int) -> int | None:
        """The address by which it talks to another one: its own of the same family, if it has one."""
        return next((address for address in self.addresses if is_ipv6(address) == is_ipv6(peer)), None)

    @property
    def group(self) -> str:
        """The security group."""
        return self.service.split("/")[0]

    @property
    def key(self) -> str:
        """`group/name`."""
        return f"{self.group}/{self.name}"


@dataclass(slots=True)
class ExportPlan:
    """An export; empty `ports` means all."""

    service: str
    to: str
    ports: Ports = frozenset()
    direct: bool = False
    expires: int | None = None


class EgressPlan(NamedTuple):
    """Leave for a group to reach a block outside: its first address, its prefix length, and the protocol and port."""

    block: int
    prefix: int
    protocol: int | None = None
    port: int | None = None

    @property
    def bits(self) -> int:
        """Of an address of its family."""
        return 128 if is_ipv6(self.block) else 32

    def opens(self, address: int, protocol: int, port: int | None) -> bool:
        """Whether a packet to an address is meant."""
        if is_ipv6(address) != is_ipv6(self.block) or (address ^ self.block) >> self.bits - self.prefix:
            return False
        return self.protocol in (None, protocol) and self.port in (None, port)

    def __str__(self) -> str:
        names = {1: "icmp", 6: "tcp", 17: "udp"}
        text = f"{ipaddress.ip_address(packed(self.block))}/{self.prefix}"
        if self.protocol is None:
            return text
        return f"{text} {names[self.protocol]}" + (f"/{self.port}" if self.port else "")


@dataclass(slots=True)
class World:
    """All tenants. `service_ips`: `group/service:name` → address. `services`: `group/service` → network.

    `guests`: (network of the callers, network of the pods) → (VNI, addresses at which the pods see callers).
    `egress`: group → its rules. `broadcast`: the groups whose pods may speak to all of their own.
    `kept`: `group/service:name` → the seconds for which its clients keep their pods.
    `elsewhere`: `group/service:name` → the network of a Service IP that is not in its service's.
    """

    networks: dict[str, int] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    services: dict[str, str] = field(default_factory=dict)
    service_ips: dict[str, int] = field(default_factory=dict)
    pods: dict[str, PodPlan] = field(default_factory=dict)
    exports: dict[tuple[str, str], ExportPlan] = field(default_factory=dict)
    guests: dict[tuple[str, str], tuple[int, tuple[int, ...]]] = field(default_factory=dict)
    elsewhere: dict[str, str] = field(default_factory=dict)
    egress: dict[str, frozenset[EgressPlan]] = field(default_factory=dict)
    broadcast: set[str] = field(default_factory=set)
    kept: dict[str, int] = field(default_factory=dict)

    def place(self, key: str) -> str:
        """The network that a Service IP is in."""
        return self.elsewhere.get(key) or self.services[key.split(":")[0]]

    def seen_at(self, key: str) -> int | None:
        """The address at which pods see those who call a Service IP of another network; None for one of their own."""
        if key not in self.elsewhere:
            return None
        _, addresses = self.guests[self.place(key), self.services[key.split(":")[0]]]
        return next(a for a in addresses if is_ipv6(a) == is_ipv6(self.service_ips[key]))

    def free_address(self, network: str) -> int:
        """The lowest IPv4 pod address that nobody has, and whose twin nobody has."""
        taken = {address for pod in self.pods.values() if pod.network == network for address in pod.addresses}
        return next(a for a in range(POD_BLOCK + 2, POD_BLOCK + 250) if not taken & {a, IPV6 + a})

    def new_pod(
        self, service: str, host: str | None, addresses: tuple[int, ...] = (), families: Families = (0,)
    ) -> PodPlan:
        """Add a pod to a service, by default with a free address of each of the families."""
        group, _, name = service.partition("/")
        number = next(n for n in range(1, 1000) if f"{group}/{name}-{n}" not in self.pods)
        network = self.services[service]
        free = self.free_address(network)
        pod = PodPlan(service, f"{name}-{number}", network, addresses or tuple(f + free for f in families), host)
        self.pods[pod.key] = pod
        return pod


def digest(key: str) -> str:
    """The hash that names ports and MAC addresses (docs/design/architecture.md)."""
    return hashlib.sha256(key.encode()).hexdigest()


def pod_object(pod: PodPlan) -> o.Pod:
    """The model's view of a pod."""
    mark = digest(pod.key)
    return o.Pod(
        pod.name,
        pod.service,
        pod.network,
        bytes.fromhex("02" + mark[12:22]),
        "qn" + mark[:12],
        tuple(map(packed, pod.addresses)),
        pod.weight,
        pod.state,
    )


def export_object(export: ExportPlan) -> o.Export:
    """The model's view of an export."""
    ports = frozenset(o.PortRule(protocol, port) for protocol, port in export.ports)
    return o.Export(export.service, export.to, ports, export.expires, export.direct)


def group_object(world: World, name: str) -> o.SecurityGroup:
    """The model's view of a group."""
    rules = (
        o.EgressRule(
            o.Subnet(packed(rule.block), rule.prefix),
            None if rule.protocol is None else o.PortRule(rule.protocol, rule.port),
        )
        for rule in world.egress.get(name, ())
    )
    return o.SecurityGroup(name, f"tenant-{name}", world.groups[name], frozenset(rules), name in world.broadcast)


def service_ip_object(world: World, key: str) -> o.ServiceIP:
    """The model's view of a Service IP."""
    service, _, name = key.partition(":")
    seconds = world.kept.get(key, 0)
    affinity = "client" if seconds else "none"
    return o.ServiceIP(name, service, world.place(key), packed(world.service_ips[key]), affinity, seconds)


def objects(world: World) -> list[o.Object]:
    """Everything as objects of the model (hosts excepted)."""
    blocks = tuple(
        (o.Subnet(packed(block), 24), o.Subnet(packed(IPV6 + block), 120)) for block in (POD_BLOCK, SERVICE_BLOCK)
    )
    found: list[o.Object] = [o.Network(name, vni, blocks[0], blocks[1]) for name, vni in world.networks.items()]
    found += [
        o.Guest(guest, home, vni, tuple(map(packed, addresses)))
        for (guest, home), (vni, addresses) in world.guests.items()
    ]
    found += [group_object(world, name) for name in world.groups]
    for key, network in world.services.items():
        group, _, name = key.partition("/")
        found.append(o.Service(name, group, network))
    found += [service_ip_object(world, key) for key in world.service_ips]
    found += [pod_object(pod) for pod in world.pods.values()]
    found += [export_object(export) for export in world.exports.values()]
    return found


def random_ports(chooser: random.Random) -> Ports:
    """All ports, or a few."""
    if chooser.random() < 0.4:
        return frozenset()
    return frozenset(chooser.sample(PORT_CHOICES, chooser.randint(1, 2)))


def random_export(world: World, chooser: random.Random, now: float) -> ExportPlan | None:
    """An export that does not exist yet, if there is room for one."""
    free = [
        (service, group)
        for service in world.services
        for group in world.groups
        if service.split("/")[0] != group and (service, group) not in world.exports
    ]
    if not free:
        return None
    service, group = chooser.choice(free)
    expires = int(now) + chooser.randint(60, 600) if chooser.random() < 0.2 else None
    return ExportPlan(service, group, random_ports(chooser), chooser.random() < 0.4, expires)


def random_egress(chooser: random.Random) -> frozenset[EgressPlan]:
    """No rules, or a few; some cover the overlay, tunnels and one another."""
    found = set()
    for _ in range(chooser.choice((0, 1, 1, 3))):
        block, prefix = chooser.choice(EGRESS_BLOCKS)
        protocol, port = chooser.choice(((None, None), *PORT_CHOICES))
        found.add(EgressPlan(block, prefix, protocol, port))
    return frozenset(found)


def random_world(chooser: random.Random, hosts: list[str], now: float) -> World:
    """Two networks with the same addresses of both families, a few groups with services, pods and exports."""
    world = World({"red": 100, "blue": 200}, {name: 10 + i for i, name in enumerate(("a", "b", "c"))})
    world.guests = {
        ends: (number, (SERVICE_BLOCK + 250, IPV6 + SERVICE_BLOCK + 250))
        for ends, number in ((("red", "blue"), 300), (("blue", "red"), 400))
    }
    world.egress = {group: random_egress(chooser) for group in world.groups}
    world.broadcast = {group for group in world.groups if chooser.random() < 0.4}
    used: dict[str, int] = {"red": 10, "blue": 10}
    for group in world.groups:
        for name in ("s", "t")[: chooser.randint(1, 2)]:
            network = chooser.choice(("red", "red", "blue"))
            service = f"{group}/{name}"
            world.services[service] = network
            for ip in ("main", "more")[: chooser.choice((0, 1, 1, 2))]:
                where = network if chooser.random() < 0.7 else {"red": "blue", "blue": "red"}[network]
                used[where] += 1
                world.service_ips[f"{service}:{ip}"] = SERVICE_BLOCK + used[where] + chooser.choice((0, IPV6))
                if chooser.random() < 0.3:
                    world.kept[f"{service}:{ip}"] = chooser.choice((10, 600))
                if where != network:
                    world.elsewhere[f"{service}:{ip}"] = where
            for _ in range(chooser.randint(1, 2)):
                world.new_pod(service, chooser.choice(hosts), families=chooser.choice(FAMILY_CHOICES))
    for _ in range(chooser.randint(1, 4)):
        export = random_export(world, chooser, now)
        if export:
            world.exports[export.service, export.to] = export
    return world
