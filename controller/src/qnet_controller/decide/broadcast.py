# SPDX-License-Identifier: Apache-2.0
"""Broadcast and multicast: who gets what a pod sends to all.

Nobody, unless the group of the pod declares it. Then all pods of the group that are in the same network, whatever group
address it was sent to: nobody has to say what it listens to, and nobody outside of the group ever hears of it.
"""

from __future__ import annotations

from ..model.model import Model, Touch
from ..model.objects import Address, Network, Pod, SecurityGroup, Subnet

GROUPS = (Subnet(bytes([224, 0, 0, 0]), 4), Subnet(b"\xff" * 4, 32), Subnet(b"\xff" + bytes(15), 8))
"""The multicast addresses of IPv4, its limited broadcast address, and the multicast addresses of IPv6."""
_HAS_BROADCAST = 30  # a subnet of IPv4 with a longer prefix has no address for all (RFC 3021)


def blocks(network: Network) -> tuple[Subnet, ...]:
    """The addresses by which pods of a network speak to all: groups, and the last address of each of their subnets."""
    subnets = (one for one in network.pod_subnets if len(one.address) == 4 and one.prefix <= _HAS_BROADCAST)
    return (*GROUPS, *(Subnet(_last(subnet), 32) for subnet in subnets))


def to_all(network: Network, address: Address) -> bool:
    """Whether an address of a network is for all."""
    return any(address in block for block in blocks(network))


def members(model: Model, network: str, group: SecurityGroup) -> list[Pod] | None:
    """Who gets what pods of a group send to all in a network, in a stable order; None: they may not do that."""
    if not group.broadcast or network not in model.networks:
        return None
    keys = sorted(key for service in model.services_of.get(group.name, ()) for key in model.pods_of.get(service, ()))
    return [pod for pod in map(model.pods.__getitem__, keys) if pod.network == network]


def depends(model: Model, network: str, group: SecurityGroup) -> set[Touch]:
    """What of the model that follows from."""
    services: set[Touch] = {("backends", service) for service in model.services_of.get(group.name, ())}
    return {("network", network), ("group", group.name), ("source", group.number)} | services


def _last(subnet: Subnet) -> Address:
    host = (1 << 32 - subnet.prefix) - 1
    return (int.from_bytes(subnet.address, "big") | host).to_bytes(4, "big")
