# SPDX-License-Identifier: Apache-2.0
"""What would become of a new connection, from the model alone: which table, which object, which verdict, which host.

A trace asks `decide` what the switches would ask it, at both ends, and names every place at which the way could end.
It says what should be; whether a switch holds the flows for it is what `flows` and the drift check are about.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from ..decide import outside
from ..decide.decide import Kind, Origin, Question, Verdict, addresses, backends, decide
from ..model.model import Model
from ..model.objects import Address, Location, Pod, PortRule, ServiceIP
from ..model.passages import Passage
from ..pipeline.outside import OUTSIDE_PORT_NAME
from ..pipeline.tables import Table
from . import names

_ICMP, _ICMPV6 = 1, 58  # an export says icmp for both


class Unknown(LookupError):
    """Something that was asked for does not exist; the text says what, and what is near."""


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of a connection: IP protocol number and, for TCP, UDP and SCTP, the destination port."""

    protocol: int
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One judgement on the way: where, because of what object, and in words what happens. `passes`: it goes on."""

    host: str
    table: str
    because: str
    text: str
    passes: bool = True


@dataclass(frozen=True, slots=True)
class Way:
    """The way to one pod. It reaches the pod when every step passes."""

    target: str
    steps: tuple[Step, ...]

    @property
    def passes(self) -> bool:
        """Whether the packet arrives."""
        return all(step.passes for step in self.steps)


@dataclass(frozen=True, slots=True)
class Trace:
    """The steps that all packets take, then the ways to the pods one of which is reached."""

    steps: tuple[Step, ...]
    ways: tuple[Way, ...]

    @property
    def passes(self) -> bool:
        """Whether a new connection reaches a pod, whichever one is chosen."""
        return all(step.passes for step in self.steps) and bool(self.ways) and all(way.passes for way in self.ways)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = asdict(self)
        for way, row in zip(self.ways, found["ways"], strict=True):
            row["passes"] = way.passes
        return found | {"passes": self.passes}


def trace(model: Model, source: Pod, address: Address, packet: Packet, now: float) -> Trace:
    """Follow the first packet of a connection from a pod to an address of its network."""
    tracer = _Tracer(model, packet, now)
    here = model.location(source)
    if here is None:
        where = Step("-", "-", f"pod {source.key}", "no switch has a port of this pod: nothing can be sent", False)
        return Trace((where,), ())
    steps = [tracer.admission(source, here)]
    _, step = tracer.plan(Origin.POD, here, source, address)
    steps.append(step)
    owner = model.owner.get((source.network, address))
    if step.passes and owner is None:
        return Trace(tuple(steps), (Way("outside", (tracer.outside(source, here, address),)),))
    if not step.passes or owner is None or isinstance(owner, Passage):
        return Trace(tuple(steps), ())
    targets = [owner] if isinstance(owner, Pod) else backends(model, owner)
    if isinstance(owner, ServiceIP):
        steps.append(tracer.service(here, owner, targets))
    ways = (Way(target.key, tuple(tracer.way(source, here, target, address))) for target in targets)
    return Trace(tuple(steps), tuple(ways))


class _Tracer:
    """The judgements, one method for each table that makes one."""

    def __init__(self, model: Model, packet: Packet, now: float) -> None:
        self._model, self._packet, self._now = model, packet, now

    def _host(self, location: Location) -> str:
        host = self._model.host_by_datapath.get(location.datapath_id)
        return host.name if host else f"{location.datapath_id:016x}"

    def admission(self, source: Pod, here: Location) -> Step:
        text = f"port {here.port}: MAC and address are the pod's own" if here.live else f"port {here.port} has no link"
        return Step(self._host(here), Table.ADMISSION.title, f"pod {source.key}", text, here.live)

    def _space(self, source: Pod, target: Pod) -> str:
        """Where one pod calls another: their network, or the way between their two."""
        between = self._model.passages.between(source.network, target.network)
        return between.calls.name if between else source.network

    def plan(
        self, origin: Origin, where: Location, source: Pod, address: Address, network: str = ""
    ) -> tuple[Verdict, Step]:
        group = self._model.groups[source.group]
        question = Question(origin, network or source.network, group.number, address)
        verdict = decide(self._model, question, self._now)
        kind = self._kind(verdict)
        opens = kind not in (Kind.DROP, Kind.REPLIES)
        text = _PLAN_TEXT[kind] + (f"; named ports: {rules_text(verdict.ports)}" if verdict.ports else "")
        belongs = outside.refused(self._model, address) if verdict.refused else ""
        if belongs and (question.network, address) not in self._model.owner:
            text += f"; no egress rule opens it: it belongs to {belongs}"
        return verdict, Step(self._host(where), Table.PLAN.title, verdict.because, text, opens)

    def _kind(self, verdict: Verdict) -> Kind:
        protocol = _ICMP if self._packet.protocol == _ICMPV6 else self._packet.protocol
        rules = (PortRule(protocol, self._packet.port), PortRule(protocol))
        return verdict.ports_kind if any(rule in verdict.ports for rule in rules) else verdict.kind

    def outside(self, source: Pod, here: Location, address: Address) -> Step:
        port = self._model.port_number(here.datapath_id, OUTSIDE_PORT_NAME)
        known_as = names.address_text(outside.link_address(here.port, address))
        text = f"out of {OUTSIDE_PORT_NAME}, where its host knows the pod as {known_as}"
        if port is None:
            text = f"this host has no port {OUTSIDE_PORT_NAME} (role outside)"
        elif not any(len(own) == len(address) for own in source.addresses):
            port, text = None, "the pod has no address of this family"
        return Step(self._host(here), Table.LOCATION.title, f"group {source.group}", text, port is not None)

    def service(self, here: Location, target: ServiceIP, pods: list[Pod]) -> Step:
        text = f"balanced over {len(pods)} pods" if pods else "no pod of the service takes new connections"
        return Step(self._host(here), Table.SERVICE.title, f"service_ip {target.key}", text, bool(pods))

    def way(self, source: Pod, here: Location, target: Pod, called: Address) -> list[Step]:
        there = self._model.location(target)
        owner = f"pod {target.key}"
        if there is None:
            return [Step(self._host(here), Table.LOCATION.title, owner, "no switch has a port of this pod", False)]
        steps: list[Step] = []
        if there.datapath_id != here.datapath_id:
            host = self._model.host_by_datapath[there.datapath_id]
            vtep = names.address_text(host.vteps[0])
            steps.append(Step(self._host(here), Table.LOCATION.title, owner, f"tunnel to {host.name} ({vtep})"))
            for address in addresses(target, called)[:1]:
                steps.append(self.plan(Origin.TUNNEL, there, source, address, self._space(source, target))[1])
        elif target == source:
            steps.append(Step(self._host(here), Table.STATE.title, owner, "the caller itself, by way of a second zone"))
        text = f"port {there.port}" if there.live else f"port {there.port} has no link"
        steps.append(Step(self._host(there), Table.DELIVERY.title, owner, text, there.live))
        return steps


_PLAN_TEXT = {
    Kind.DROP: "dropped",
    Kind.DIRECT: "same group: everything passes",
    Kind.OPEN: "same group: everything passes",
    Kind.ALLOW: "new connections and their answers pass",
    Kind.SERVICE: "new connections pass by way of a Service IP",
    Kind.REPLIES: "only answers to what the other side opened pass",
    Kind.OUTSIDE: "an egress rule opens it: new connections and their answers pass",
}
_PROTOCOL_NAMES = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}


def rules_text(rules: frozenset[PortRule]) -> str:
    """Port rules as the inventory writes them."""
    return ", ".join(
        _PROTOCOL_NAMES.get(rule.protocol, str(rule.protocol)) + (f"/{rule.port}" if rule.port is not None else "")
        for rule in sorted(rules, key=lambda rule: (rule.protocol, rule.port or 0))
    )


# -- what people say ---------------------------------------------------------------------------------------------


def pod_named(model: Model, text: str) -> Pod:
    """The pod `group/name`.

    Raises:
        Unknown: there is none.
    """
    if text in model.pods:
        return model.pods[text]
    raise Unknown(f"from: {text!r} is not a pod{names.nearest(text, model.pods)}; a pod is said as group/name")


def address_named(model: Model, source: Pod, text: str) -> Address:
    """The address that an address, a pod `group/name` or a service `group/service[:name]` stands for.

    Raises:
        Unknown: nothing of that name has an address in the source's network.
    """
    address = names.packed_address(text)
    if address is not None:
        return address
    found: list[Address] = []
    if text in model.pods:
        found = [a for a in model.pods[text].addresses if model.owner.get((source.network, a)) is model.pods[text]]
    elif (key := text if ":" in text else f"{text}:main") in model.service_ips:
        found = [model.service_ips[key].address] if model.service_ips[key].network == source.network else []
    else:
        near = names.nearest(text, [*model.pods, *model.services, *model.service_ips])
        raise Unknown(f"to: {text!r} is no address, pod, service or Service IP{near}")
    families = {len(a) for a in source.addresses}
    found = [a for a in found if len(a) in families] or found
    if not found:
        raise Unknown(f"to: {text} has no address in network {source.network}, which {source.key} is in")
    return found[0]


def packet_named(protocol: str, port: str) -> Packet:
    """The packet that e.g. `tcp` and `80` stand for; an empty port is none.

    Raises:
        Unknown: no such protocol, or a port where there cannot be one or none where there must be one.
    """
    numbers = {name: number for number, name in _PROTOCOL_NAMES.items()}
    number = numbers.get(protocol, int(protocol) if protocol.isdigit() and int(protocol) < 256 else None)
    if number is None:
        raise Unknown(f"protocol: {protocol!r} is none of {', '.join(numbers)}, nor a number from 0 to 255")
    if number not in (6, 17, 132):
        if port:
            raise Unknown(f"port: {port!r}: {protocol} has no ports; leave it out")
        return Packet(number)
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise Unknown(f"port: {port!r} is not a port from 1 to 65535, which {protocol} needs")
    return Packet(number, int(port))


def asked(model: Model, source: str, target: str, protocol: str, port: str) -> dict[str, Any]:
    """A trace as the API gives it: `from` and `to` in words, then the trace.

    Raises:
        Unknown: a name or number means nothing; the text says which.
    """
    pod = pod_named(model, source)
    address = address_named(model, pod, target)
    found = trace(model, pod, address, packet_named(protocol, port), time.time())
    owner = model.owner.get((pod.network, address))
    return {
        "from": pod.key,
        "to": names.address_text(address),
        "owner": owner.key if isinstance(owner, Pod | ServiceIP) else None,
        "network": pod.network,
        "protocol": protocol,
        "port": int(port) if port else None,
        **found.as_dict(),
    }
