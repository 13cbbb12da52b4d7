# SPDX-License-Identifier: Apache-2.0
"""The policy of qnet, in one pure function.

The unit of a question is (origin, network, source group, destination address): all pods of a group have the same
rights, so a second pod or connection of the pair never asks again. The policy table is in
docs/design/architecture.md; both ends of a connection ask, and neither trusts the other's answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from ..model.model import Model
from ..model.objects import Address, Export, Pod, PortRule, SecurityGroup, ServiceIP


class Origin(IntEnum):
    """Where the packet entered the switch that asks."""

    POD = 0
    TUNNEL = 1


class Kind(IntEnum):
    """How packets of a pair are treated. The values are carried in a register and appear in traces.

    DROP: nothing passes. DIRECT: everything passes, without conntrack. OPEN: everything passes; conntrack only undoes
    the translation of Service IPs. ALLOW: new connections and their answers. SERVICE: the destination is a Service IP;
    new connections are balanced. REPLIES: only answers to connections that the other side opened.
    """

    DROP = 0
    DIRECT = 1
    OPEN = 2
    ALLOW = 3
    SERVICE = 4
    REPLIES = 5


class Question(NamedTuple):
    """What is asked: `network` by name, `group` by number, `address` packed."""

    origin: Origin
    network: str
    group: int
    address: Address


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer: `kind` for the pair, and `ports`, which are treated as `ports_kind` instead.

    `because` names the object that decides, as in a cookie: `export a/b->c`, `service a/b`, `pod a/p`, `group a`.
    """

    kind: Kind
    because: str
    ports: frozenset[PortRule] = frozenset()
    ports_kind: Kind = Kind.DROP

    @property
    def refused(self) -> bool:
        """Whether nothing at all passes."""
        return self.kind is Kind.DROP and not self.ports


def decide(model: Model, question: Question, now: float) -> Verdict:
    """Answer `question` from the model at `now` (Unix seconds; only exports with an expiry depend on it)."""
    group = model.group_by_number.get(question.group)
    owner = model.owner.get((question.network, question.address))
    if group is None or owner is None:
        return Verdict(Kind.DROP, f"group {group.name}" if group else "nobody")
    if isinstance(owner, ServiceIP):
        return _to_service_ip(model, question.origin, group, owner, now)
    return _to_pod(model, question.origin, group, owner, now)


def _to_service_ip(model: Model, origin: Origin, group: SecurityGroup, target: ServiceIP, now: float) -> Verdict:
    # Balancing happens on the caller's host; what comes through a tunnel has been balanced.
    if origin is Origin.TUNNEL:
        return Verdict(Kind.DROP, f"service_ip {target.key}")
    if target.service.partition("/")[0] == group.name:
        return Verdict(Kind.SERVICE, f"service_ip {target.key}")
    export = _export(model, target.service, group.name, now)
    if export is None:
        return Verdict(Kind.DROP, f"service_ip {target.key}")
    return _granted(export, Kind.SERVICE, Kind.DROP)


def _to_pod(model: Model, origin: Origin, group: SecurityGroup, target: Pod, now: float) -> Verdict:
    if target.group == group.name:
        shared = model.has_service_ip(group.name, target.network)
        return Verdict(Kind.OPEN if shared else Kind.DIRECT, f"group {group.name}")
    answers = _answers(model, group.name, target.group, now)
    otherwise = Kind.REPLIES if answers else Kind.DROP
    export = _export(model, target.service, group.name, now)
    # The receiving host cannot tell a balanced packet from a direct one: the sending host has told them apart.
    balanced = origin is Origin.TUNNEL and bool(model.service_ips_of.get(target.service))
    if export is not None and (export.direct or balanced):
        return _granted(export, Kind.ALLOW, otherwise)
    return Verdict(otherwise, f"export {answers.key}" if answers else f"pod {target.key}")


def _granted(export: Export, kind: Kind, otherwise: Kind) -> Verdict:
    because = f"export {export.key}"
    if not export.ports:
        return Verdict(kind, because)
    return Verdict(otherwise, because, export.ports, kind)


def _export(model: Model, service: str, to_group: str, now: float) -> Export | None:
    export = model.exports.get(f"{service}->{to_group}")
    return export if export and export.valid(now) else None


def _answers(model: Model, group: str, other: str, now: float) -> Export | None:
    """The export, if any, that lets pods of `other` open connections to pods of `group`."""
    valid = (_export(model, service, other, now) for service in sorted(model.services_of.get(group, ())))
    return next((export for export in valid if export), None)


def backends(model: Model, target: ServiceIP) -> list[Pod]:
    """The pods that new connections to a Service IP are balanced over, in a stable order."""
    pods = (model.pods[key] for key in sorted(model.pods_of.get(target.service, ())))
    return [pod for pod in pods if pod.network == target.network and model.in_rotation(pod)]
