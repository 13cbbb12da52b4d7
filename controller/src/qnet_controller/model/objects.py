# SPDX-License-Identifier: Apache-2.0
"""The objects of intent, as values. Keys are the names of docs/design/architecture.md; addresses are packed bytes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

Address = bytes
"""A packed address: 4 bytes for IPv4, 16 for IPv6."""
DEFAULT_SET = "default"
"""The set of controllers of a host that names none."""


@dataclass(frozen=True, slots=True)
class Subnet:
    """An address block: its first address and its prefix length."""

    address: Address
    prefix: int

    def __contains__(self, address: object) -> bool:
        """Whether `address` (packed bytes) lies in the block; another family never does."""
        if not isinstance(address, bytes) or len(address) != len(self.address):
            return False
        shift = len(address) * 8 - self.prefix
        return int.from_bytes(address, "big") >> shift == int.from_bytes(self.address, "big") >> shift


@dataclass(frozen=True, slots=True)
class Network:
    """An address space of its own, on the wire the VNI. Key: `name`."""

    name: str
    vni: int
    pod_subnets: tuple[Subnet, ...]
    service_subnets: tuple[Subnet, ...]

    @property
    def key(self) -> str:
        """`name`."""
        return self.name


@dataclass(frozen=True, slots=True)
class Guest:
    """Leave for the pods of a network to be served by pods of another one, its `home`, where exports say so.

    On the wire their calls have `vni` and the answers `vni + 1`. Whatever address a caller has in its own network, pods
    see it at one of `addresses`, which lie in `home` and are nobody else's. Key: `network>home`.
    """

    network: str
    home: str
    vni: int
    addresses: tuple[Address, ...]

    @property
    def key(self) -> str:
        """`network>home`."""
        return f"{self.network}>{self.home}"


@dataclass(frozen=True, slots=True)
class Host:
    """A machine that carries pods. Key: `name`; `datapath_id` as an integer; `vteps` packed, the first is used.

    `datapath_kind` is `system` (the kernel's) or `netdev` (userspace). `controller_set`: the controllers that can be
    master of its switch.
    """

    name: str
    vteps: tuple[Address, ...]
    datapath_id: int
    datapath_kind: str = "netdev"
    state: str = "active"
    controller_set: str = DEFAULT_SET

    @property
    def key(self) -> str:
        """`name`."""
        return self.name


@dataclass(frozen=True, slots=True)
class PortRule:
    """One entry of `ports`: an IP protocol number and, for TCP, UDP and SCTP, a port."""

    protocol: int
    port: int | None = None


@dataclass(frozen=True, slots=True)
class EgressRule:
    """Leave to reach the addresses `to` outside of the overlay. No `port`: every protocol and port."""

    to: Subnet
    port: PortRule | None = None


@dataclass(frozen=True, slots=True)
class SecurityGroup:
    """Services that reach each other freely. Key: `name`; `number` is what flows carry.

    `egress`: what its pods reach outside; nothing else of it. `broadcast`: what one of its pods sends to all comes to
    all of its pods in the same network, and to nobody else.
    """

    name: str
    tenant: str
    number: int
    egress: frozenset[EgressRule] = frozenset()
    broadcast: bool = False

    @property
    def key(self) -> str:
        """`name`."""
        return self.name


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """How the pods of a service are checked: `kind` is `tcp`, `http` or `icmp`; times in seconds.

    A pod enters the rotation after `healthy_threshold` checks in a row that went well and leaves it after
    `unhealthy_threshold` that failed.
    """

    kind: str
    port: int = 0
    path: str = "/"
    interval: float = 2.0
    timeout: float = 1.0
    healthy_threshold: int = 2
    unhealthy_threshold: int = 3


@dataclass(frozen=True, slots=True)
class Service:
    """Identical pods. Key: `group/name`. With `health` only pods that pass their check are in rotation."""

    name: str
    group: str
    network: str
    health: HealthCheck | None = None

    @property
    def key(self) -> str:
        """`group/name`."""
        return f"{self.group}/{self.name}"


@dataclass(frozen=True, slots=True)
class ServiceIP:
    """One address of a service. Key: `group/service:name`; `service` is the key of the service.

    `affinity_seconds`: how long a client keeps its pod after its last new connection; 0: for as long as the set of
    pods stays the same, with affinity `client`.
    """

    name: str
    service: str
    network: str
    address: Address
    affinity: str = "none"
    affinity_seconds: int = 0

    @property
    def key(self) -> str:
        """`group/service:name`."""
        return f"{self.service}:{self.name}"


@dataclass(frozen=True, slots=True)
class Pod:
    """Containers that share one network stack. Key: `group/name`; `service` is the key of its service; MAC packed.

    `drain_until`: when the connections that a draining pod still has are ended, in Unix seconds; None: never.
    """

    name: str
    service: str
    network: str
    mac: bytes
    port_name: str
    addresses: tuple[Address, ...] = field(default=())
    weight: int = 100
    state: str = "active"
    drain_until: int | None = None

    @property
    def group(self) -> str:
        """The security group: the first part of the service's key."""
        return self.service.partition("/")[0]

    @property
    def key(self) -> str:
        """`group/name`."""
        return f"{self.group}/{self.name}"


@dataclass(frozen=True, slots=True)
class Export:
    """Leave for `to_group` to reach `service`. No `ports`: every protocol and port. `expires`: Unix seconds."""

    service: str
    to_group: str
    ports: frozenset[PortRule] = frozenset()
    expires: int | None = None
    direct: bool = False

    @property
    def key(self) -> str:
        """`group/service->group`."""
        return f"{self.service}->{self.to_group}"

    def valid(self, now: float) -> bool:
        """Whether the export has not expired at `now` (Unix seconds)."""
        return self.expires is None or now < self.expires


Object = Network | Guest | Host | SecurityGroup | Service | ServiceIP | Pod | Export


def differ_in_egress_alone(old: Object | None, new: Object | None) -> bool:
    """Whether two objects are the same security group with other egress rules."""
    if not isinstance(old, SecurityGroup) or not isinstance(new, SecurityGroup):
        return False
    return replace(old, egress=new.egress) == new


@dataclass(frozen=True, slots=True)
class Removed:
    """An object of type `kind` with `key` is no longer intended."""

    kind: type[Object]
    key: str


Change = Object | Removed
"""What a change of intent is made of: an object as it is from now on, or its removal."""


@dataclass(frozen=True, slots=True)
class Location:
    """Where a pod's port is: the switch, its OpenFlow port, and whether packets can be delivered there now.

    `passing`: the master of the switch has found that the pod passes its health check.
    """

    datapath_id: int
    port: int
    live: bool
    passing: bool = False
