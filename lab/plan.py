# SPDX-License-Identifier: Apache-2.0
"""What a lab consists of: its hosts, the networks they are on, and where that is written down."""

from __future__ import annotations

import dataclasses
import hashlib
import ipaddress
import json
import os
import pathlib

from host import ROOT, LabError, os_release, podman, run

POOL = ipaddress.IPv4Network("172.20.0.0/14")  # networks of the labs come from here: a /22 each
FIRST_CONTROLLER, FIRST_SWITCH, FIRST_VIRTUAL = 11, 101, 201  # last octet of c1, h1 and v1
ROUTER, ROUTER_OCTET = "r1", 2  # between the underlays, where there is more than one


@dataclasses.dataclass(frozen=True)
class Host:
    """One host: its inventory name, its group, its last octet in all networks, and what it is made of.

    `underlay` is the number of its underlay network, from 0. A `virtual` one is a virtual machine with a kernel of its
    own, any other a container.
    """

    name: str
    group: str
    octet: int
    release: str
    underlay: int = 0
    virtual: bool = False


@dataclasses.dataclass(frozen=True)
class Lab:
    """One lab: what tells it from another on the same machine."""

    name: str
    controllers: int
    switches: int
    block: str  # a /22: the first /24 is the management network, the others are the underlays
    virtual: int = 0
    underlays: int = 1
    releases: tuple[str, ...] = ()  # of the switches in turn; none: the release of this machine

    @property
    def directory(self) -> pathlib.Path:
        """Where this lab keeps its key, known hosts, inventory and CA."""
        return state_directory(self.name)

    @property
    def networks(self) -> dict[str, ipaddress.IPv4Network]:
        """Podman network name -> subnet: the management network, then the underlays."""
        subnets = list(ipaddress.IPv4Network(self.block).subnets(new_prefix=24))
        names = ["management", "underlay", *(f"underlay{number}" for number in range(2, self.underlays + 1))]
        return {f"{self.name}-{name}": subnet for name, subnet in zip(names, subnets, strict=False)}

    @property
    def hosts(self) -> list[Host]:
        """The hosts that should exist. Switches take releases and underlays in turn."""
        own = os_release()["VERSION_CODENAME"]
        releases = self.releases or (own,)
        controllers = [Host(f"c{i + 1}", "controllers", FIRST_CONTROLLER + i, own) for i in range(self.controllers)]
        switches = [
            Host(f"h{i + 1}", "switches", FIRST_SWITCH + i, releases[i % len(releases)], i % self.underlays)
            for i in range(self.switches)
        ]
        virtual = [
            Host(f"v{i + 1}", "switches", FIRST_VIRTUAL + i, own, (self.switches + i) % self.underlays, virtual=True)
            for i in range(self.virtual)
        ]
        return controllers + switches + virtual

    def networks_of(self, host: Host) -> dict[str, ipaddress.IPv4Network]:
        """The two networks of a host: management, and its underlay."""
        networks = list(self.networks.items())
        return dict([networks[0], networks[1 + host.underlay]])

    def address(self, host: Host, network: int = 0) -> str:
        """The address of `host` in the management (0) or its underlay (1) network."""
        return str(list(self.networks_of(host).values())[network][host.octet])

    def mac(self, host: Host, network: int) -> str:
        """A MAC that stays when the host restarts, like that of a real card."""
        return "06:00:" + ":".join(f"{int(part):02x}" for part in self.address(host, network).split("."))

    def routes(self, host: Host) -> dict[str, str]:
        """The other underlays -> the router that leads there."""
        underlays = list(self.networks.values())[1:]
        own = underlays.pop(host.underlay)
        return {str(other): str(own[ROUTER_OCTET]) for other in underlays}

    def container(self, host: str) -> str:
        """The container of the host named `host`; the one of a virtual machine runs its emulator."""
        return f"{self.name}-{host}"


def state_directory(name: str) -> pathlib.Path:
    """The state directory of the lab called `name`."""
    return ROOT / ".lab" / name


def choose_block(name: str) -> str:
    """A /22 of the pool that no route and no podman network of this machine uses.

    The search begins at a place given by the name, so the same lab gets the same addresses again where it can.
    """
    routes = [row["dst"] for row in json.loads(run("ip", "-json", "-4", "route", "show", "table", "all"))]
    known = [network for row in json.loads(podman("network", "ls", "--format", "json")) for network in row["subnets"]]
    used = [ipaddress.ip_network(dst, strict=False) for dst in routes if dst not in ("default", "0.0.0.0/0")]
    used += [ipaddress.ip_network(row["subnet"]) for row in known]
    blocks = list(POOL.subnets(new_prefix=22))
    start = int(hashlib.sha256(name.encode()).hexdigest(), 16) % len(blocks)
    for block in blocks[start:] + blocks[:start]:
        if not any(net.version == 4 and net.prefixlen > 0 and net.overlaps(block) for net in used):
            return str(block)
    raise LabError(f"every /22 of {POOL} is in use by a route of this machine: take another lab down first")


def load(name: str) -> Lab | None:
    """The lab as `up` last left it, or None."""
    try:
        fields = json.loads((state_directory(name) / "lab.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Lab(**{**fields, "releases": tuple(fields.get("releases", ()))})


def number_from(variable: str, default: int, least: int, most: int) -> int:
    """A number from the environment."""
    text = os.environ.get(variable, str(default))
    if not text.isdigit() or not least <= int(text) <= most:
        raise LabError(f"{variable}={text}: must be a number from {least} to {most}")
    return int(text)


def wanted(name: str) -> Lab:
    """The lab that should exist: as the environment says, else as it is, else three controllers and three switches."""
    have = load(name) or Lab(name, controllers=3, switches=3, block=choose_block(name))
    releases = os.environ.get("QNET_LAB_RELEASES")
    return Lab(
        name=name,
        controllers=number_from("QNET_LAB_CONTROLLERS", have.controllers, 1, 9),
        switches=number_from("QNET_LAB_SWITCHES", have.switches, 0, 100),
        block=have.block,
        virtual=number_from("QNET_LAB_VIRTUAL", have.virtual, 0, 4),
        underlays=number_from("QNET_LAB_UNDERLAYS", have.underlays, 1, 3),
        releases=have.releases if releases is None else tuple(releases.split()),
    )
