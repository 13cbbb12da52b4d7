# SPDX-License-Identifier: GPL-3.0-or-later
"""Which pods there are and which host each is on, from the inventory alone."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

POD_KEYS = ("replicas", "hosts", "placement", "weights", "addresses", "draining", "workload")
"""Keys of a service in the inventory that are about its pods."""

UNSAID_OF_GROUPS = {"egress": [], "broadcast": False}
UNSAID_OF_SERVICES = {"health_check": {}, "drain_seconds": -1}
UNSAID_OF_ADDRESSES = {"affinity": "none", "affinity_seconds": 0}
"""What an option that the inventory leaves out stands for."""

DEFAULT_WEIGHT = 100


class PlacementError(ValueError):
    """A pod has no host that it could be on."""


def service_offset(service: str) -> int:
    """Where a service (group/service) begins in its list of hosts, so that services of one pod spread."""
    return int(hashlib.sha256(service.encode()).hexdigest()[:8], 16)


def host_of(service: str, number: int, hosts: Sequence[str]) -> str:
    """The default host of pod `number` (from 1) of `service` (group/service). PlacementError when `hosts` is empty."""
    if not hosts:
        raise PlacementError(f"{service}: no host to place its pods on; add hosts to group switches or to the service")
    return hosts[(number - 1 + service_offset(service)) % len(hosts)]


def services(tenants: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every service of qnet_tenants with its full name, group/service."""
    for tenant in tenants:
        for group in tenant.get("security_groups") or []:
            for service in group.get("services") or []:
                yield f"{group['name']}/{service['name']}", service


def place(tenants: Sequence[Mapping[str, Any]], hosts: Sequence[str]) -> list[dict[str, Any]]:
    """All pods of qnet_tenants, in inventory order, each with its host.

    `hosts`: the hosts of a service that names none. Each pod has name (group/pod), service (group/service), network,
    host, weight, draining, and addresses and workload when the inventory gives them. Raises PlacementError.
    """
    return [pod for name, service in services(tenants) for pod in _pods(name, service, hosts)]


def intent(tenants: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`tenants` without what is about pods: what the database is to hold of tenants, groups and services.

    What is not said is not so: an option that is taken out of the inventory ends.
    """
    return [
        {**tenant, "security_groups": [_group(group) for group in tenant.get("security_groups") or []]}
        for tenant in tenants
    ]


def _group(group: Mapping[str, Any]) -> dict[str, Any]:
    return {**UNSAID_OF_GROUPS, **group, "services": [_service(service) for service in group.get("services") or []]}


def _service(service: Mapping[str, Any]) -> dict[str, Any]:
    said = {key: value for key, value in service.items() if key not in POD_KEYS}
    addresses = [{**UNSAID_OF_ADDRESSES, **address} for address in service.get("service_ips") or []]
    return {**UNSAID_OF_SERVICES, **said, **({"service_ips": addresses} if "service_ips" in service else {})}


def pod_names(service: Mapping[str, Any]) -> list[str]:
    """The names of the pods of a service, without their group."""
    return [f"{service['name']}-{number}" for number in range(1, service.get("replicas", 1) + 1)]


def _pods(name: str, service: Mapping[str, Any], hosts: Sequence[str]) -> Iterator[dict[str, Any]]:
    group = name.split("/")[0]
    pins = service.get("placement") or {}
    addresses = service.get("addresses") or {}
    for number, pod in enumerate(pod_names(service), 1):
        placed: dict[str, Any] = {
            "name": f"{group}/{pod}",
            "service": name,
            "network": service["network"],
            "host": pins.get(pod) or host_of(name, number, service.get("hosts") or hosts),
            "weight": (service.get("weights") or {}).get(pod, DEFAULT_WEIGHT),
            "draining": pod in (service.get("draining") or []),
        }
        if pod in addresses:
            placed["addresses"] = list(addresses[pod])
        if service.get("workload"):
            placed["workload"] = service["workload"]
        yield placed


def declarations(pods: Sequence[Mapping[str, Any]], hold: bool = False, bare: bool = False) -> list[dict[str, Any]]:
    """`pods` (from place) as the module qnet_pod takes them: without where they are and what runs in them.

    With `hold`, a pod with a workload takes no connections unless it does already: nothing may answer there yet.
    With `bare`, names only, for pods that are declared.
    """
    if bare:
        return [{"name": pod["name"], "service": pod["service"]} for pod in pods]
    return [
        {
            **{key: pod[key] for key in ("name", "service", "addresses", "weight", "draining") if key in pod},
            **({"hold": True} if hold and "workload" in pod else {}),
        }
        for pod in pods
    ]


def workloads(pods: Sequence[Mapping[str, Any]], directory: str) -> list[dict[str, Any]]:
    """The workloads of `pods` (from place) as the module qnet_workload takes them; their files are in `directory`."""
    return [
        {
            "pod": pod["name"],
            "command": pod["workload"]["command"],
            "environment": {
                **pod["workload"].get("environment", {}),
                "QNET_POD": pod["name"],
                "QNET_SERVICE": pod["service"],
                "QNET_HOST": pod["host"],
            },
            "files": [posixpath.join(directory, posixpath.basename(file)) for file in pod["workload"].get("files", [])],
        }
        for pod in pods
        if "workload" in pod
    ]


def by_host(pods: Sequence[Mapping[str, Any]], directory: str) -> dict[str, dict[str, list[Any]]]:
    """Host to what it needs of `pods`: pods, workloads, packages, files. Hosts without pods are not in it."""
    shares: dict[str, list[Mapping[str, Any]]] = {}
    for pod in pods:
        shares.setdefault(pod["host"], []).append(pod)
    return {
        host: {
            "pods": declarations(share, bare=True),
            "workloads": workloads(share, directory),
            "packages": _named(share, "packages"),
            "files": _named(share, "files"),
        }
        for host, share in shares.items()
    }


def _named(pods: Sequence[Mapping[str, Any]], what: str) -> list[str]:
    """Packages or files of the workloads of some pods, each once."""
    return list(dict.fromkeys(item for pod in pods for item in (pod.get("workload") or {}).get(what) or ()))
