# SPDX-License-Identifier: GPL-3.0-or-later
"""What the policy lets every pod reach: the table of docs/design/architecture.md, said a second time.

This is the oracle that measurements are compared with. It shares nothing with the controller, on purpose.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

ALL = ("all",)
NOTHING: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """Something that can be reached: a pod (kind pod) or a Service IP (kind service_ip), at one address.

    `foreign`: it lies in another network than the pods behind it, and is for exports alone.
    """

    name: str
    kind: str
    group: str
    service: str
    network: str
    address: str
    answers: bool = True
    foreign: bool = False


@dataclass(frozen=True)
class Pair:
    """A source pod, a target, and what may pass: ("all",), some of tcp/80, udp/53 and icmp, or nothing."""

    source: Target
    target: Target
    allowed: tuple[str, ...]

    def permits(self, protocol: str) -> bool:
        """Whether a packet of `protocol` (tcp/80, udp/53, icmp) passes."""
        return self.allowed == ALL or protocol in self.allowed


def targets(pods: Sequence[Mapping[str, Any]], service_ips: Sequence[Mapping[str, Any]]) -> list[Target]:
    """Every address of every pod and every Service IP, from what qnet_pod_info and qnet_service_ip_info return."""
    taking = {
        (pod["group"], pod["service"], ":" in address)
        for pod in pods
        if pod["state"] == "active" and pod["weight"] > 0
        for address in pod["addresses"]
    }
    found = [
        Target(f"{pod['group']}/{pod['name']}", "pod", pod["group"], pod["service"], pod["network"], address)
        for pod in pods
        for address in pod["addresses"]
    ]
    homes = {(pod["group"], pod["service"]): pod["network"] for pod in pods}
    for entry in service_ips:
        name = f"{entry['group']}/{entry['service']}" + ("" if entry["name"] == "main" else f":{entry['name']}")
        answers = (entry["group"], entry["service"], ":" in entry["address"]) in taking
        place = (entry["group"], entry["service"], entry["network"], entry["address"])
        foreign = homes.get((entry["group"], entry["service"]), entry["network"]) != entry["network"]
        found.append(Target(name, "service_ip", *place, answers, foreign))
    return found


def pairs(known: Sequence[Target], exports: Sequence[Mapping[str, Any]], now: datetime) -> Iterator[Pair]:
    """Every ordered pair of a pod and another target with what may pass at `now` (with its offset).

    A pod in another network is denied; it is left out when the source's own network uses the same address. Left out too
    are targets whose IP version the source has no address of.
    """
    opened = _opened(exports, now)
    addresses = {(target.network, target.address) for target in known}
    for source in known:
        if source.kind != "pod":
            continue
        for target in known:
            if target.name == source.name and target.kind == "pod":
                continue
            if (":" in target.address) != (":" in source.address):
                continue
            if target.network != source.network and (source.network, target.address) in addresses:
                continue
            yield Pair(source, target, _allowed(source, target, opened))


def _allowed(source: Target, target: Target, opened: Mapping[tuple[str, str], Mapping[str, Any]]) -> tuple[str, ...]:
    if source.network != target.network or not target.answers:
        return NOTHING
    if source.group == target.group:
        return NOTHING if target.foreign else ALL
    export = opened.get((f"{target.group}/{target.service}", source.group))
    if export is None or (target.kind == "pod" and not export.get("direct", False)):
        return NOTHING
    return tuple(export.get("ports") or ALL)


def _opened(exports: Sequence[Mapping[str, Any]], now: datetime) -> dict[tuple[str, str], Mapping[str, Any]]:
    return {
        (export["service"], export["to"]): export
        for export in exports
        if not export.get("expires") or datetime.fromisoformat(export["expires"]) > now
    }
