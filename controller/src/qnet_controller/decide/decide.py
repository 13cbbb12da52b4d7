# SPDX-License-Identifier: Apache-2.0
"""The policy of qnet, in one pure function.

The unit of a question is (origin, network, source group, destination address): all pods of a group have the same
rights, so a second pod or connection of the pair never asks again. The policy table is in
docs/design/architecture.md; both ends of a connection ask, and neither trusts the other's answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from ..model.model import Model
from ..model.objects import Address, Export, Pod, PortRule, SecurityGroup, ServiceIP
from ..model.passages import Passage
from . import outside


class Origin(IntEnum):
    """Where the packet entered the switch that asks."""

    POD = 0
    TUNNEL = 1

    __hash__ = int.__hash__  # in C, unlike that of an enumeration; questions are hashed on the hot path


class Kind(IntEnum):
    """How packets of a pair are treated. The values are carried in a register and appear in traces.

    DROP: nothing passes. DIRECT: everything passes, without conntrack. OPEN: everything passes; conntrack only undoes
    the translation of Service IPs. ALLOW: everything that belongs to a connection, whoever opened it. SERVICE: new
    connections over a Service IP; on the caller's host they are balanced. REPLIES: nothing of its own. OUTSIDE: new
    connections to addresses outside of the overlay, and nothing that those open.

    Answers to what the other side has opened pass besides, for all kinds but DROP: see `Grant`.
    """

    DROP = 0
    DIRECT = 1
    OPEN = 2
    ALLOW = 3
    SERVICE = 4
    REPLIES = 5
    OUTSIDE = 6

    __hash__ = int.__hash__  # as above


class Question(NamedTuple):
    """What is asked: `network` by name, `group` by number, `address` packed."""

    origin: Origin
    network: str
    group: int
    address: Address


DIRECT = "direct"
TUNNEL = "tunnel"  # at the receiver, which cannot tell a balanced packet from a direct one


class Grant(NamedTuple):
    """One way in which an export lets connections be opened: over a Service IP, DIRECT, or out of a TUNNEL.

    Every connection remembers the grant that it was opened by, and answers pass while that grant stands and the
    export still has the connection's port.
    """

    export: Export
    way: str

    @property
    def name(self) -> str:
        """What is remembered. Without the ports: changing those ends no connection to a port that stays."""
        return f"{self.export.key} {self.way}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer: `kind` for the pair, and `ports`, which are treated as `ports_kind` instead.

    `because` names the object that decides, as in a cookie: `export a/b->c`, `service a/b`, `pod a/p`, `group a`.
    `grant` is what new connections are opened by, none within a group. `answers` are the grants by which the other
    side opens connections that this one may answer.
    """

    kind: Kind
    because: str
    ports: frozenset[PortRule] = frozenset()
    ports_kind: Kind = Kind.DROP
    grant: Grant | None = None
    answers: tuple[Grant, ...] = ()

    @property
    def refused(self) -> bool:
        """Whether nothing at all passes."""
        return self.kind is Kind.DROP and not self.ports


def decide(model: Model, question: Question, now: float) -> Verdict:
    """Answer `question` from the model at `now` (Unix seconds; only exports with an expiry depend on it)."""
    group = model.group_by_number.get(question.group)
    owner = model.owner.get((question.network, question.address))
    if group is None:
        return Verdict(Kind.DROP, "nobody")
    if owner is None:
        return decide_outside(model, question)
    if isinstance(owner, ServiceIP):
        return _to_service_ip(model, question.origin, group, owner, now)
    if isinstance(owner, Passage):
        return _to_callers(model, question.origin, group, owner, now)
    passage = model.passages.of_space(question.network)
    if passage is None:
        return _to_pod(model, question.origin, group, owner, now)
    if question.network == passage.calls.name:
        return _through(model, question.origin, group, owner, passage, now)
    return _back_through(model, group, owner, passage, now)


def decide_outside(model: Model, question: Question) -> Verdict:
    """Answer a question about an address that nobody in the overlay has: the egress rules of the group, together."""
    group = model.group_by_number.get(question.group)
    if group is None:
        return Verdict(Kind.DROP, "nobody")
    refused = Verdict(Kind.DROP, f"group {group.name}")
    if question.origin is not Origin.POD or question.network not in model.networks:
        return refused
    rules = outside.rules(model, group, question.address)
    if not rules:
        return refused
    if any(rule.port is None for rule in rules):
        return Verdict(Kind.OUTSIDE, refused.because)
    ports = frozenset(rule.port for rule in rules if rule.port is not None)
    return Verdict(Kind.DROP, refused.because, ports, Kind.OUTSIDE)


def _to_service_ip(model: Model, origin: Origin, group: SecurityGroup, target: ServiceIP, now: float) -> Verdict:
    # Balancing happens on the caller's host; what comes through a tunnel has been balanced.
    if origin is Origin.TUNNEL:
        return Verdict(Kind.DROP, f"service_ip {target.key}")
    if not usable(model, target):
        return Verdict(Kind.DROP, f"service_ip {target.key}")
    if target.service.partition("/")[0] == group.name and not foreign(model, target):
        return Verdict(Kind.SERVICE, f"service_ip {target.key}")
    grant = _grant(model, target.service, group.name, over(target), now)
    return _granted(grant, Kind.SERVICE) if grant else Verdict(Kind.DROP, f"service_ip {target.key}")


def _to_pod(model: Model, origin: Origin, group: SecurityGroup, target: Pod, now: float) -> Verdict:
    if target.group == group.name:
        shared = model.has_service_ip(group.name, target.network)
        return Verdict(Kind.OPEN if shared else Kind.DIRECT, f"group {group.name}")
    answers = tuple(_answers(model, group.name, target.group, now))
    grant = _grant(model, target.service, group.name, TUNNEL if origin is Origin.TUNNEL else DIRECT, now)
    if grant is not None:
        # What may only have been balanced is no leave to send to the pod: the sending host has told them apart.
        return _granted(grant, Kind.ALLOW if grant.export.direct else Kind.SERVICE, answers)
    because = f"export {answers[0].export.key}" if answers else f"pod {target.key}"
    return Verdict(_otherwise(answers), because, answers=answers)


def _through(model: Model, origin: Origin, group: SecurityGroup, target: Pod, passage: Passage, now: float) -> Verdict:
    """At the host of a pod that is called from another network; on the caller's own host nobody asks."""
    grant = _grant(model, target.service, group.name, _by(passage), now) if origin is Origin.TUNNEL else None
    return _granted(grant, Kind.SERVICE) if grant else Verdict(Kind.DROP, f"pod {target.key}")


def _back_through(model: Model, group: SecurityGroup, target: Pod, passage: Passage, now: float) -> Verdict:
    """At the host of a caller, for what its group's peer in another network answers."""
    answers = tuple(grant for grant in _answers(model, group.name, target.group, now) if passes(model, grant, passage))
    because = f"export {answers[0].export.key}" if answers else f"pod {target.key}"
    return Verdict(_otherwise(answers), because, answers=answers)


def _to_callers(model: Model, origin: Origin, group: SecurityGroup, passage: Passage, now: float) -> Verdict:
    """What a pod sends to where it sees callers of another network: answers and nothing else."""
    answers: tuple[Grant, ...] = ()
    if origin is Origin.POD:
        others = {model.exports[key].to_group for name in model.services_of.get(group.name, ())
                  for key in model.exports_of.get(name, ())}  # fmt: skip
        found = (grant for other in sorted(others) for grant in _answers(model, group.name, other, now))
        answers = tuple(grant for grant in found if passes(model, grant, passage))
    return Verdict(_otherwise(answers), f"network {passage.home}", answers=answers)


def passes(model: Model, grant: Grant, passage: Passage) -> bool:
    """Whether a grant lets connections be opened through a passage."""
    service = model.services.get(grant.export.service)
    if service is None or service.network != passage.home:
        return False
    over_it = (model.service_ips[key] for key in model.service_ips_of.get(service.key, ()))
    ways = {over(address) for address in over_it if address.network == passage.guest}
    return grant.way == _by(passage) or grant.way in ways


def foreign(model: Model, target: ServiceIP) -> bool:
    """Whether a Service IP lies in another network than its service does."""
    service = model.services.get(target.service)
    return service is not None and service.network != target.network


def usable(model: Model, target: ServiceIP) -> bool:
    """Whether a Service IP can be used: one in another network needs a passage, and addresses that do not clash."""
    service = model.services.get(target.service)
    if service is None or not foreign(model, target):
        return True
    passage = model.passages.between(target.network, service.network)
    callers = model.networks.get(target.network)
    if passage is None or callers is None or (seen := passage.address(target.address)) is None:
        return False
    # A translation to the same address is none: Open vSwitch 3.1 aborts on one.
    return not any(seen in subnet for subnet in callers.pod_subnets)


def _by(passage: Passage) -> str:
    return f"passage {passage.guest}"


def _granted(grant: Grant, kind: Kind, answers: tuple[Grant, ...] = ()) -> Verdict:
    because, ports = f"export {grant.export.key}", grant.export.ports
    if not ports:
        return Verdict(kind, because, grant=grant, answers=answers)
    return Verdict(_otherwise(answers), because, ports, kind, grant, answers)


def _otherwise(answers: tuple[Grant, ...]) -> Kind:
    return Kind.REPLIES if answers else Kind.DROP


def grants(model: Model, service: str, to_group: str, now: float) -> Iterator[Grant]:
    """What the export of a service to a group grants at `now` (Unix seconds)."""
    export = model.exports.get(f"{service}->{to_group}")
    if export is None or not export.valid(now):
        return
    addresses = [model.service_ips[key] for key in sorted(model.service_ips_of.get(service, ()))]
    for address in addresses:
        yield Grant(export, over(address))
    if export.direct:
        yield Grant(export, DIRECT)
    if export.direct or not all(foreign(model, address) for address in addresses):
        yield Grant(export, TUNNEL)
    for network in sorted({address.network for address in addresses if foreign(model, address)}):
        yield Grant(export, f"passage {network}")


def _grant(model: Model, service: str, to_group: str, way: str, now: float) -> Grant | None:
    return next((grant for grant in grants(model, service, to_group, now) if grant.way == way), None)


def _answers(model: Model, group: str, other: str, now: float) -> Iterator[Grant]:
    """The grants by which pods of `other` may open connections to pods of `group`."""
    for service in sorted(model.services_of.get(group, ())):
        yield from grants(model, service, other, now)


def over(target: ServiceIP) -> str:
    """The way of a grant over a Service IP. With the address: one that comes back under another revives nothing."""
    return f"{target.key} {target.address.hex()}"


def backends(model: Model, target: ServiceIP) -> list[Pod]:
    """The pods that new connections to a Service IP are balanced over, in a stable order."""
    pods = model.backends(target.service).pods
    home = home_of(model, target)
    return [pod for pod in pods if pod.network == home and addresses(pod, target.address)]


def home_of(model: Model, target: ServiceIP) -> str:
    """The network of the pods behind a Service IP."""
    service = model.services.get(target.service)
    return service.network if service else target.network


def addresses(pod: Pod, like: Address) -> list[Address]:
    """The addresses of a pod that another one can be translated to: of its family, and not the same."""
    return [address for address in pod.addresses if len(address) == len(like) and address != like]
