# SPDX-License-Identifier: Apache-2.0
"""What traffic has asked for, and the flows that carry it: pure functions of the model.

A demand is remembered as long as its root flow lives. The root has a timeout and the switch reports its end; every
other flow of a demand is there because a living demand needs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from ..decide import outside
from ..decide.decide import Kind, Origin, Question, Verdict, decide, decide_outside, home_of
from ..model.model import HOSTS, REFUSED
from ..model.objects import Address, Network, Pod, ServiceIP
from ..model.passages import Passage
from .answers import LATER, grant_number, rule_order
from .arrivals import Arrival, arrival_program
from .broadcast import Broadcast
from .copies import broadcast_program
from .family import family, number
from .fields import (
    GRANT,
    IN_PORT,
    IP_PROTO,
    KIND,
    ORIGIN,
    SCTP_DST,
    SOURCE_GROUP,
    TCP_DST,
    TUN_ID,
    UDP_DST,
    VNI,
    Bits,
    Field,
)
from .kept import Kept, kept_program, lasts
from .messages import (
    Actions,
    Feature,
    Flow,
    Goto,
    Match,
    Set,
    flow,
    match,
)
from .parts import Parts
from .parts import Settings as Settings
from .quarantine import Quarantine, quarantine_program
from .scopes import Scope, scope_program
from .strangers import EXACT, Source, is_wide, wide_program
from .tables import Table
from .wanted import Part as Part
from .wanted import Program as Program
from .ways import REMEMBERED

_PORT_FIELD: dict[int, Field] = {6: TCP_DST, 17: UDP_DST, 132: SCTP_DST}


WHOLE = -1


class Pair(NamedTuple):
    """Packets from a source group to an address, as they entered this switch; with a prefix, to a block outside."""

    origin: Origin
    vni: int
    group: int
    address: Address
    prefix: int = WHOLE


class Target(NamedTuple):
    """Packets that were let through but whose destination this switch did not know a way to."""

    vni: int
    address: Address


Demand = Pair | Source | Target | Arrival | Scope | Quarantine | Broadcast | Kept


class Treated(NamedTuple):
    """How a pair is treated: the `verdict`, None without its network; `keeps`: its clients keep their pods.

    `program` is None for a pair that is refused, which is mostly refused as one of many.
    """

    verdict: Verdict | None
    program: Program | None
    keeps: bool


@dataclass(frozen=True, slots=True)
class Compiler(Parts):
    """Turns demands, and the parts that they need, into programs for one switch."""

    def program(self, demand: Demand, now: float) -> Program | None:
        """The program for `demand`, or None when nothing of it makes sense any more."""
        match demand:
            case Pair():
                treated = self.treated(demand, now)
                if treated.program is not None:
                    return treated.program
                return self.model.recall(("refused", self.settings, demand), lambda: (self._pair(demand, now),), now)[0]
            case Source():
                return self._source(demand)
            case Target():
                return self._target(demand)
            case Scope():
                seconds = self.settings.drop_timeout_seconds
                key = ("scope", self.settings, demand)
                return self.model.recall(key, lambda: (scope_program(self.model, demand, seconds),))[0]
            case Kept():
                return kept_program(self.model, demand)
            case Broadcast():
                return broadcast_program(self, demand)
            case Quarantine():
                return quarantine_program(self.model, self.datapath_id, demand)
            case Arrival():
                return arrival_program(self.model, self.datapath_id, demand, self.settings.idle_timeout_seconds)

    # -- pairs -------------------------------------------------------------------------------------------------

    def pair(self, origin: Origin, vni: int, group: int, address: Address) -> Pair:
        """What a packet asks for: its destination alone, or outside as much as is treated alike."""
        network, asking = self.model.network_by_vni.get(vni), self.model.group_by_number.get(group)
        if network is None or asking is None or (network.name, address) in self.model.owner:
            return Pair(origin, vni, group, address)
        if network.name not in self.model.networks or any(
            address in subnet for subnet in (*network.pod_subnets, *network.service_subnets)
        ):
            return Pair(origin, vni, group, address)
        alike = outside.block(self.model, asking, address)
        whole_address = alike.prefix == len(address) * 8
        return Pair(origin, vni, group, alike.address, WHOLE if whole_address else alike.prefix)

    def _alike(self, pair: Pair) -> bool:
        """Whether everything in the block of a pair is still treated alike."""
        group = self.model.group_by_number.get(pair.group)
        return group is not None and outside.block(self.model, group, pair.address).prefix <= pair.prefix

    def verdict(self, pair: Pair, now: float) -> Verdict | None:
        """The policy's answer for a pair; None when its network is gone."""
        network = self.model.network_by_vni.get(pair.vni)
        if network is None:
            return None
        question = Question(pair.origin, network.name, pair.group, pair.address)
        if pair.prefix != WHOLE:
            return decide_outside(self.model, question)
        return self.model.recall(question, lambda: decide(self.model, question, now), now)

    def treated(self, pair: Pair, now: float) -> Treated:
        """How a pair is treated, on every switch alike."""
        return self.model.recall((self.settings, pair), lambda: self._treated(pair, now), now)

    def _treated(self, pair: Pair, now: float) -> Treated:
        verdict, network = self.verdict(pair, now), self.model.network_by_vni.get(pair.vni)
        if verdict is None or network is None:
            return Treated(None, None, keeps=False)
        keeps = lasts(self.model, network.name, pair.address) is not None
        return Treated(verdict, None if verdict.refused else self._pair(pair, now), keeps)

    def _pair(self, pair: Pair, now: float) -> Program | None:
        network = self.model.network_by_vni.get(pair.vni)
        verdict = self.verdict(pair, now)
        if network is None or verdict is None or (pair.prefix != WHOLE and not self._alike(pair)):
            return None
        program = Program()
        program.depends |= {("address", (network.name, pair.address)), ("network", network.name)}
        program.depends.add(("source", pair.group))
        program.add_root(self._plan_flow(pair, verdict))
        program.add(*self._port_flows(pair, verdict))
        if verdict.answers:
            program.needs.add(Part("answers", (pair.origin, pair.group, family(pair.address), verdict.answers)))
        owner = self.model.owner.get((network.name, pair.address)) if pair.prefix == WHOLE else None
        if owner is None and pair.group in self.model.group_by_number:
            program.depends |= {("egress", self.model.group_by_number[pair.group].name), REFUSED}
        if isinstance(owner, Pod | ServiceIP):
            program.depends.add(("exports", owner.service))
        if isinstance(owner, ServiceIP):
            program.depends.add(("network", home_of(self.model, owner)))
        if verdict.refused:
            return program
        if isinstance(owner, ServiceIP):
            program.needs.add(Part("service", (network.name, pair.address)))
        elif isinstance(owner, Pod) and pair.origin is Origin.POD:
            program.needs.add(Part("presence", (network.name, pair.address)))
        return program

    def passage(self, pair: Pair) -> Passage | None:
        """The passage through which packets of a pair go, if they leave their network."""
        network = self.model.network_by_vni[pair.vni]
        owner = self.model.owner.get((network.name, pair.address))
        if isinstance(owner, ServiceIP):
            return self.model.passages.between(network.name, home_of(self.model, owner))
        return self.model.passages.of_space(network.name)

    def _plan_flow(self, pair: Pair, verdict: Verdict) -> Flow:
        if verdict.refused:
            return _refused(pair, verdict.because, self.settings.drop_timeout_seconds)
        owner = self.model.owner.get((self.model.network_by_vni[pair.vni].name, pair.address))
        # What answers callers of another network goes back through the passage by which they came.
        through = owner.answers.vni if isinstance(owner, Passage) else None
        grant = grant_number(verdict.grant) if verdict.grant else 0
        then = Table.PORTS if verdict.ports else Table.TRACK
        return _planned(pair, verdict.kind, verdict.because, grant, through, then, self.settings.idle_timeout_seconds)

    @staticmethod
    def _port_flows(pair: Pair, verdict: Verdict) -> Iterator[Flow]:
        then = (Set(KIND, verdict.ports_kind), Goto(Table.TRACK))
        for rule in sorted(verdict.ports, key=rule_order):
            terms: list[tuple[Field, int]] = [(IP_PROTO, family(pair.address).protocol(rule.protocol))]
            if rule.port is not None:
                terms.append((_PORT_FIELD[rule.protocol], rule.port))
            asked = match(*_asked(pair), *terms)
            yield flow(Table.PORTS, 100, asked, then, Feature.PORTS, verdict.because)
        if any(rule.port is not None for rule in verdict.ports):
            # Without ports of its own. The next ct() holds it until the first one is there, which has shown its port.
            later = match(*_asked(pair), LATER)
            yield flow(Table.PORTS, 100, later, then, Feature.PORTS, verdict.because)

    def source_of(self, vtep: Address, vni: int, address: Address) -> Source:
        """The demand for a packet from the tunnel: as wide as what is wrong with it."""
        if vtep not in self.model.host_by_vtep:
            return Source(vtep, None, None)
        if vni not in self.model.network_by_vni:
            return Source(vtep, vni, None)
        return Source(vtep, vni, address)

    def sender(self, source: Source) -> Pod | None:
        """The pod that may send from this VTEP, VNI and address, if there is one."""
        network = self.model.network_by_vni.get(source.vni) if source.vni is not None else None
        host = self.model.host_by_vtep.get(source.vtep)
        if network is None or host is None or source.address is None:
            return None
        pod = self.model.owner.get((self.model.passages.reverse(network).name, source.address))
        location = self.model.location(pod) if isinstance(pod, Pod) else None
        if not isinstance(pod, Pod) or location is None or location.datapath_id != host.datapath_id:
            return None
        return pod

    def _source(self, source: Source) -> Program | None:
        port = self.tunnel_port()
        if port is None:
            return None
        if is_wide(self.model, source):
            return wide_program(self.model, port, source, self.settings.drop_timeout_seconds)
        program = Program()
        program.depends.add(HOSTS)
        if source.vni is None or source.address is None:
            # Refused for its VTEP or VNI alone.
            if source.vni is not None and source.vtep not in self.model.host_by_vtep:
                return None
            network = self.model.network_by_vni.get(source.vni) if source.vni is not None else None
        else:
            network = self.model.network_by_vni.get(source.vni)
            if network is None or source.vtep not in self.model.host_by_vtep:
                return None
            sending = self.model.passages.reverse(network).name
            program.depends |= {("address", (sending, source.address)), ("network", network.name)}
            pod = self.sender(source)
            if pod is not None:
                for identity in self._identity(port, source.vtep, network, pod, source.address):
                    program.add_root(identity)
        if program.root is None:
            program.add_root(self._refused_source(port, source))
        return program

    def _refused_source(self, port: int, source: Source) -> Flow:
        terms: list[tuple[Field, int]] = [(IN_PORT, port), (family(source.vtep).tunnel_source, number(source.vtep))]
        priority = EXACT + 20
        if source.vni is not None:
            terms.append((TUN_ID, source.vni))
            priority = EXACT + 10
        if source.address is not None:
            ip = family(source.address)
            terms += [ip.term, (ip.source, number(source.address))]
            priority = EXACT
        return flow(
            Table.ADMISSION, priority, match(*terms), (), Feature.FORGED_TUNNEL, f"vtep {source.vtep.hex()}",
            hard=self.settings.drop_timeout_seconds, notify=True,
        )  # fmt: skip

    def _target(self, target: Target) -> Program | None:
        network = self.model.network_by_vni.get(target.vni)
        if network is None:
            return None
        program = Program()
        program.depends |= {("address", (network.name, target.address)), ("network", network.name)}
        pod = self.model.owner.get((network.name, target.address))
        location = self.model.location(pod) if isinstance(pod, Pod) else None
        if location is not None and location.datapath_id == self.datapath_id:
            return None
        if isinstance(pod, Pod):
            for item in self.part(Part("presence", (network.name, target.address))).flows.values():
                (program.add_root if item.table is Table.LOCATION else program.add)(item)
        if program.root is None:
            program.add_root(self._nowhere(target, network))
        return program

    def _nowhere(self, target: Target, network: Network) -> Flow:
        ip = family(target.address)
        asked = match((VNI, target.vni), (ORIGIN, Origin.POD), ip.term, (ip.target, number(target.address)))
        return flow(
            Table.LOCATION, 90, asked, (), Feature.REFUSED, f"network {network.name}",
            hard=self.settings.drop_timeout_seconds, notify=True,
        )  # fmt: skip


@lru_cache(REMEMBERED)
def _from(vni: int, origin: Origin, group: int) -> Match:
    """The terms of a plan flow that say who sends."""
    return match((VNI, vni), (ORIGIN, origin), (SOURCE_GROUP, group))


def _plan_match(pair: Pair) -> Match:
    """The match of a plan flow: `match(*_asked(pair))`, of parts that are alike for many."""
    ip = family(pair.address)
    mask = ip.target.full if pair.prefix == WHOLE else ip.mask(pair.prefix)
    if not mask or (target := number(pair.address)) & ~mask:
        return match(*_asked(pair))
    # In the order of their names.
    return (*match(ip.term), (ip.target.name, target, mask), *_from(pair.vni, pair.origin, pair.group))


def _asked(pair: Pair) -> tuple[tuple[Field | Bits, int] | tuple[Field, int, int], ...]:
    ip = family(pair.address)
    target = (ip.target, number(pair.address), ip.mask(pair.prefix if pair.prefix != WHOLE else ip.target.bits))
    return ((VNI, pair.vni), (ORIGIN, pair.origin), (SOURCE_GROUP, pair.group), ip.term, target)


def _priority(pair: Pair) -> int:
    # A block outside has no address of the overlay in it; where the two meet all the same, the address decides.
    return 100 if pair.prefix == WHOLE else 50


@lru_cache(REMEMBERED)
def _refused(pair: Pair, because: str, drop_seconds: int) -> Flow:
    return flow(
        Table.PLAN, _priority(pair), _plan_match(pair), (), Feature.REFUSED, because, hard=drop_seconds, notify=True
    )  # fmt: skip


@lru_cache(REMEMBERED)
def _planned(pair: Pair, kind: Kind, because: str, grant: int, through: int | None, then: Table, idle: int) -> Flow:
    actions, mark = _onward(kind, because, grant, through, then, idle)
    return Flow(Table.PLAN, _priority(pair), _plan_match(pair), actions, mark, idle_timeout=idle, notify=True)


@lru_cache(REMEMBERED)
def _onward(kind: Kind, because: str, grant: int, through: int | None, then: Table, idle: int) -> tuple[Actions, int]:
    """What plan flows do that are alike but for their match, and their cookie."""
    opened_by = (Set(GRANT, grant),) if grant else ()
    crosses = (Set(VNI, through),) if through is not None else ()
    actions = (Set(KIND, kind), *opened_by, *crosses, Goto(then))
    alike = flow(Table.PLAN, 0, (), actions, Feature.PLAN, because, idle=idle, notify=True)
    return alike.actions, alike.cookie
