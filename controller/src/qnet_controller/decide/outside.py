# SPDX-License-Identifier: Apache-2.0
"""Addresses outside of the overlay: which there are, what a group may reach there, and what is decided alike.

The answer for an address depends on the blocks that it lies in: those of the group's rules, those of networks, the
addresses of tunnels, and what is no address of a host outside. Between two neighbouring ends of such blocks all
addresses have the same answer, so one flow can stand for as many of them as one prefix holds.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from collections.abc import Iterator

from ..model.model import Model
from ..model.objects import Address, EgressRule, SecurityGroup, Subnet

LINK_PREFIX = {4: 16, 16: 112}
_LINKS = {4: ipaddress.ip_address("198.19.0.0").packed, 16: ipaddress.ip_address("fd71:6e65:7400::").packed}
LINKS = tuple(Subnet(address, LINK_PREFIX[size]) for size, address in _LINKS.items())
"""By an address of these a pod is known to the kernel of its own host, and to nobody else."""

NEVER = (*LINKS, *(
    Subnet(block.network_address.packed, block.prefixlen) for block in map(ipaddress.ip_network, (
        "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3",
        "::/96", "::ffff:0:0/96", "fe80::/10", "fec0::/10", "ff00::/8", "fd00:ec2::254/128",
    ))
))  # fmt: skip
"""This host, its link with the metadata of clouds, groups, and what is reserved: nothing of it is a host outside."""


def link_address(port: int, like: Address) -> Address:
    """By which address the kernel of its host knows the pod at an OpenFlow port, of the same family as another one."""
    return (int.from_bytes(_LINKS[len(like)], "big") | port).to_bytes(len(like), "big")


def on_link(address: Address) -> bool:
    """Whether an address is one by which the kernel of a host knows a pod."""
    return any(address in link for link in LINKS)


def refused(model: Model, address: Address) -> str:
    """What an address belongs to that no rule opens, in words; empty for an address outside."""
    host = model.host_by_vtep.get(address)
    if host is not None:
        return f"host {host.name}"
    for network in model.networks.values():
        if any(address in subnet for subnet in (*network.pod_subnets, *network.service_subnets)):
            return f"network {network.name}"
    return "addresses that are no host's" if any(address in block for block in NEVER) else ""


def rules(model: Model, group: SecurityGroup, address: Address) -> list[EgressRule]:
    """The rules of a group that open an address."""
    found = [rule for rule in group.egress if address in rule.to]
    return [] if found and refused(model, address) else found


def block(model: Model, group: SecurityGroup, address: Address) -> Subnet:
    """The largest block around an address that is treated alike, in every network and for every packet of the group."""
    bits, value = len(address) * 8, int.from_bytes(address, "big")
    ends: list[int] = model.recall(("ends", group, bits), lambda: sorted(_ends(model, group, bits)))
    position = bisect_right(ends, value)
    beyond = [ends[position - 1] - 1] if position and ends[position - 1] else []
    beyond += ends[position : position + 1]
    prefix = max((bits - (value ^ other).bit_length() + 1 for other in beyond if other < 1 << bits), default=0)
    shift = bits - prefix
    return Subnet((value >> shift << shift).to_bytes(len(address), "big"), prefix)


def _ends(model: Model, group: SecurityGroup, bits: int) -> set[int]:
    """Where blocks begin, and where what follows them does."""
    found: set[int] = set()
    for subnet in _blocks(model, group):
        if len(subnet.address) * 8 == bits:
            shift = bits - subnet.prefix
            first = int.from_bytes(subnet.address, "big") >> shift << shift
            found |= {first, first + (1 << shift)}
    return found


def _blocks(model: Model, group: SecurityGroup) -> Iterator[Subnet]:
    yield from NEVER
    yield from (rule.to for rule in group.egress)
    yield from (Subnet(vtep, len(vtep) * 8) for vtep in model.host_by_vtep)
    for network in model.networks.values():
        yield from (*network.pod_subnets, *network.service_subnets)
