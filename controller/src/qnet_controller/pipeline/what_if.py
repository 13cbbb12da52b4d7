# SPDX-License-Identifier: Apache-2.0
"""What a change of intent would do, without doing it: who gains and loses reach, what is cut, which flows change.

Everything is computed by the functions that would do it, on a copy of the model. A prediction is therefore as exact as
what it is made from: the demands and the connections of that moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..decide.decide import Kind, Origin, Question, decide
from ..model.model import Model, Touches
from ..model.objects import Address, Change, EgressRule, Pod, PortRule, ServiceIP
from .connections import Connection, Ends, cut
from .messages import Command
from .program import SwitchProgram

OUTSIDE, BROADCAST = "outside", "broadcast"
_TO_ALL = b"\xff" * 4  # stands for every address that is for all
EVERYTHING = PortRule(0)
"""Stands for every protocol and port."""


@dataclass(frozen=True, slots=True, order=True)
class Reach:
    """That a group may open connections to an address, which the pod or Service IP with the key `target` has.

    Or to all addresses of a block outside, which `prefix` says; there the `network` is any. Or that its pods in a
    network speak to all of their own: `broadcast`.
    """

    group: str
    target: str
    network: str
    address: Address
    rule: tuple[int, int | None]
    prefix: int = -1


@dataclass(slots=True)
class WhatIf:
    """A prediction. `cut` and `commands` are by datapath id."""

    gained: list[Reach] = field(default_factory=list)
    lost: list[Reach] = field(default_factory=list)
    cut: dict[int, frozenset[Ends]] = field(default_factory=dict)
    commands: dict[int, tuple[Command, ...]] = field(default_factory=dict)


def what_if(
    model: Model,
    changes: Iterable[Change],
    programs: Mapping[int, SwitchProgram],
    connections: Mapping[int, Iterable[Connection]],
    now: float,
) -> WhatIf:
    """What the changes would do at `now` (Unix seconds) to reach, to these switches and to these connections.

    Connections that nothing allows even without the changes are not counted: it is not the changes that end them.
    """
    changes = list(changes)
    after = model.copy()
    touched = after.apply(changes)
    before, then = reach(model, model, after, touched, now), reach(after, model, after, touched, now)
    for what, name in touched:
        if what == "egress":
            lost, gained = _outside(model, after, str(name))
            before, then = before | lost, then | gained
        elif what == "group":
            before, then = before | _broadcast(model, str(name)), then | _broadcast(after, str(name))
    found = WhatIf(sorted(then - before, key=_order), sorted(before - then, key=_order))
    for datapath_id, listed in connections.items():
        listed = list(listed)
        already = cut(model, datapath_id, listed, now).open
        found.cut[datapath_id] = cut(after, datapath_id, listed, now).open - already
    for datapath_id, program in programs.items():
        found.commands[datapath_id] = program.copy(after).refresh(touched, now)
    return found


def _order(item: Reach) -> tuple[object, ...]:
    protocol, port = item.rule
    return (item.group, item.target, item.network, len(item.address), item.address, item.prefix, protocol, port or 0)


def _outside(model: Model, after: Model, name: str) -> tuple[set[Reach], set[Reach]]:
    """The rules of a group whose leave is lost, and those that give one that is new or what is left of one lost."""
    had, has = (m.groups[name].egress if name in m.groups else frozenset() for m in (model, after))
    lost = {rule for rule in had if not any(_covers(wider, rule) for wider in has)}
    gained = {rule for rule in has if not any(_covers(wider, rule) for wider in had - lost)}
    return _blocks(name, lost), _blocks(name, gained)


def _blocks(name: str, rules: Iterable[EgressRule]) -> set[Reach]:
    ports = ((rule, rule.port or EVERYTHING) for rule in rules)
    return {Reach(name, OUTSIDE, OUTSIDE, r.to.address, (p.protocol, p.port), r.to.prefix) for r, p in ports}


def _broadcast(model: Model, name: str) -> set[Reach]:
    """The networks in which pods of a group speak to all of their own."""
    group = model.groups.get(name)
    if group is None or not group.broadcast:
        return set()
    networks = {model.services[service].network for service in model.services_of.get(name, ())}
    return {Reach(name, BROADCAST, network, _TO_ALL, (EVERYTHING.protocol, EVERYTHING.port)) for network in networks}


def _covers(wider: EgressRule, rule: EgressRule) -> bool:
    inside = wider.to.prefix <= rule.to.prefix and rule.to.address in wider.to
    return inside and wider.port in (None, rule.port)


def reach(model: Model, before: Model, after: Model, touched: Touches, now: float) -> set[Reach]:
    """The reach in `model`, as far as it may differ between two models with these touches between them."""
    found: set[Reach] = set()
    for network, address in _addresses(before, after, touched):
        owner = model.owner.get((network, address))
        if not isinstance(owner, Pod | ServiceIP):  # nobody's, or where callers from another network are seen
            continue
        if isinstance(owner, ServiceIP) and not _answered(model, owner):
            continue
        group = owner.service.partition("/")[0]
        users = {model.exports[key].to_group for key in model.exports_of.get(owner.service, ())} | {group}
        for name in users:
            asking = model.groups.get(name)
            if asking is not None:
                question = Question(Origin.POD, network, asking.number, address)
                rules = _rules(model, question, now)
                found |= {Reach(name, owner.key, network, address, (r.protocol, r.port)) for r in rules}
    return found


def _answered(model: Model, target: ServiceIP) -> bool:
    """Whether intent wants a pod to take connections to a Service IP; where its pods are is no question of intent."""
    pods = (model.pods[key] for key in model.pods_of.get(target.service, ()))
    taking = (pod for pod in pods if pod.state == "active" and pod.weight > 0)
    return any(len(address) == len(target.address) for pod in taking for address in pod.addresses)


def _addresses(before: Model, after: Model, touched: Touches) -> set[tuple[str, Address]]:
    """The addresses that what is touched belongs to, before or after."""
    found: set[tuple[str, Address]] = set()
    for what, place in touched:
        if what == "address" and isinstance(place, tuple):
            found.add((place[0], place[1]))
        elif what in ("exports", "backends") and isinstance(place, str):
            for model in (before, after):
                for key in model.service_ips_of.get(place, ()):
                    target = model.service_ips[key]
                    found.add((target.network, target.address))
                for key in model.pods_of.get(place, ()) if what == "exports" else ():
                    pod = model.pods[key]
                    found |= {(pod.network, address) for address in pod.addresses}
    return found


def _rules(model: Model, question: Question, now: float) -> frozenset[PortRule]:
    """With what a group may open connections: protocols and ports, or everything."""
    verdict = decide(model, question, now)
    if verdict.kind in (Kind.DIRECT, Kind.OPEN, Kind.ALLOW, Kind.SERVICE):
        return frozenset({EVERYTHING})
    return verdict.ports
