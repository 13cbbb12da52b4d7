# SPDX-License-Identifier: Apache-2.0
"""What one switch holds, and the least that has to be said to it when something changes.

The wanted state is a pure function of (model, the switch's own ports, the demands alive). First packets, changes of
intent or location, expiry and adoption after a restart all go through the same difference of wanted and installed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from ..decide.decide import Kind, Origin
from ..model.model import Model, Touch, Touches, copied
from ..model.objects import Address
from ..model.placed import placed
from .arrivals import arrivals
from .back import back
from .broadcast import Broadcast, is_to_all
from .demands import Compiler, Demand, Pair, Settings, Target
from .family import tunnel_source
from .fields import HAIRPIN_ZONE, KIND, ORIGIN, SOURCE_GROUP, SOURCE_ZONE, VNI
from .frame import TUNNEL_METER
from .holdings import Entry, Holdings, release
from .kept import chosen
from .messages import (
    Actions,
    AddFlow,
    AddMeter,
    Command,
    Commands,
    DeleteFlow,
    DeleteGroup,
    DeleteMeter,
    Flow,
    FlowKey,
    FlowRemoved,
    FlushZone,
    Group,
    Installed,
    Meter,
    PacketIn,
    PacketOut,
    PutGroup,
    RemovalReason,
    Resubmit,
    Tampered,
)
from .packet import Addresses, again, ip_addresses, read, restored
from .quarantine import Conducts, Quarantine
from .recover import recover
from .refusals import Refusals
from .reply import Answer as Answer
from .shares import Shares
from .standing import frame_program, local_program
from .tables import Table
from .wanted import Frame, Local, Part, Program

_NO_COOKIE = 0  # no flow of ours has it
Owner = Demand | Part | Local | Frame
_FRAME, _KINDS = Frame(), {int(kind): kind for kind in Kind}
_OPENING = frozenset({Table.PLAN, Table.ADMISSION})


class SwitchProgram:
    """The flows, groups and meters of one switch, kept by its master."""

    def __init__(self, model: Model, datapath_id: int, settings: Settings) -> None:
        self._model = model
        self._datapath_id = datapath_id
        self._settings = settings
        self._compiler = Compiler(model, datapath_id, settings)
        self._programs: dict[Owner, Program] = {}
        self._needed: dict[Part, int] = {}
        self._dependents: dict[Touch, set[Owner]] = defaultdict(set)
        self._holdings: Holdings[Owner] = Holdings()
        self._wanted_groups: dict[int, dict[Owner, Group]] = {}
        self._groups: dict[int, Group] = {}
        self._meters: dict[int, Meter] = {}
        self._zones: dict[Local, int] = {}
        self._zones_changed = True
        self._refusals = Refusals()
        self._conducts = Conducts()
        self._shares = Shares()
        self._made: tuple[Demand, ...] = ()  # by the packet that is being answered

    def copy(self, model: Model) -> SwitchProgram:
        """A program that holds the same, follows another model, and goes its own way from now on."""
        twin = SwitchProgram(model, self._datapath_id, self._settings)
        for name, value in vars(self).items():
            if name not in ("_model", "_compiler"):
                known = isinstance(value, Holdings | Refusals | Conducts | Shares)
                setattr(twin, name, value.copy() if known else copied(value))
        return twin

    # -- events ------------------------------------------------------------------------------------------------

    def adopt(self, installed: Installed, now: float) -> Commands:
        """Take over a switch as it is: keep what is right, change the rest.

        The demands found in its flows join those known already, so a switch that lost its tables gets them back.
        """
        demands: set[Demand] = set(self.demands)
        demands |= {demand for item in installed.flows if (demand := recover(item)) is not None}
        found = {item.key: item.cookie for item in installed.flows}
        self._forget_switch()
        owners: dict[Owner, Program | None] = {demand: self._compiler.program(demand, now) for demand in demands}
        owners[_FRAME] = frame_program(self._compiler)
        owners |= {
            Local(pod.key): local_program(self._compiler, Local(pod.key))
            for pod, _ in self._model.local_pods(self._datapath_id)
        }
        for owner, program in owners.items():
            self._replace(owner, program, set(), set())
        foreign = [DeleteFlow(key) for key in found if key not in self._holdings]
        for entry in self._holdings:
            wanted = entry.wanted
            if wanted is not None and found.get(entry.key) == wanted.cookie:
                entry.have = wanted
        # Groups carry no cookie: those wanted are written again, which connections already balanced do not notice.
        self._groups = {number: Group(number, ()) for number in installed.groups}
        stale_groups = [number for number in self._groups if number not in self._wanted_groups]
        wanted_meters = self._wanted_meters()
        stale_meters = [number for number in installed.meters if number not in wanted_meters]
        self._meters = {number: meter for number, meter in installed.meters.items() if number in wanted_meters}
        commands = self._difference(set(self._holdings), set(self._wanted_groups) | set(stale_groups))
        return (*(DeleteMeter(number) for number in sorted(stale_meters)), *foreign, *commands)

    def repair(self, found: Iterable[Tampered]) -> Commands:
        """Put right what someone else has changed, and nothing else."""
        flows, groups = set[Entry[Owner]](), set[int]()
        for item in found:
            if item.kind == "flow" and item.key is not None:
                entry = self._holdings.entry(item.key)
                flows.add(entry)
                entry.have = None
                if not item.gone:
                    table, priority, matching = item.key
                    entry.have = Flow(table, priority, matching, (), _NO_COOKIE)
            elif item.kind == "group":
                numbers = set(self._groups) if item.number is None else {item.number}
                groups |= numbers
                for number in numbers:
                    self._groups.pop(number, None)
                    if not item.gone:
                        self._groups[number] = Group(number, ())
            elif item.kind == "meter":
                self._zones_changed = True
                for number in set(self._meters) if item.number is None else {item.number}:
                    self._meters.pop(number, None)
                    if not item.gone:
                        self._meters[number] = Meter(number, 0, 0)
        return self._difference(flows, groups)

    def refresh(self, touched: Touches, now: float) -> Commands:
        """Correct what depends on the touched parts of the model, and nothing else."""
        if ("switch", self._datapath_id) in touched:
            affected: set[Owner] = set(self._programs)
        else:
            affected = set().union(*(self._dependents[touch] for touch in self._dependents.keys() & touched))
        affected |= {Local(pod.key) for pod in placed(self._model, touched).here.get(self._datapath_id, ())}
        affected |= arrivals(self._model, self._datapath_id, touched) | self._refusals.wide
        changed: dict[Owner, Program | None] = {}
        for owner in affected:
            match owner:
                case Local():
                    changed[owner] = local_program(self._compiler, owner)
                case Frame():
                    changed[owner] = frame_program(self._compiler)
                case Part():
                    changed[owner] = self._compiler.part(owner)
                case _:
                    changed[owner] = self._compiler.program(owner, now)
        return self._update(changed)

    def packet_in(self, packet: PacketIn, now: float) -> Answer:
        """Decide on a packet that missed; the same packet is sent on its way when it may go."""
        port = read(packet, SOURCE_ZONE) if read(packet, ORIGIN) == Origin.POD else 0
        self._made = ()
        answer = self._answered(packet, now)
        if port and self._made:
            excess, begins = self._shares.made(port, self._made, self._settings.pod_demands)
            if excess:
                given_up = self._update(dict.fromkeys(excess))
                crowded = port if begins else None
                answer = replace(answer, commands=(*given_up, *answer.commands), crowded=crowded)
        if answer.packet_out is not None or not port:
            return answer
        if (quarantine := self._conducts.in_vain(port, now)) is None:
            return answer
        commands = (*answer.commands, *self._demand([quarantine], now))
        return replace(answer, commands=commands, quarantined=port)

    def _answered(self, packet: PacketIn, now: float) -> Answer:
        if (addresses := ip_addresses(packet.data)) is None:
            return Answer()
        if packet.table == Table.ADMISSION:
            return self._from_tunnel(packet, addresses, now)
        if packet.table == Table.BROADCAST:
            return self._to_all(packet, self._broadcast(packet), [], now)
        if packet.table in (Table.PLAN, Table.ASK):
            return self._unplanned(packet, addresses, now)
        if packet.table == Table.LOCATION:
            return self._unlocated(packet, addresses, now)
        return Answer()

    def flow_removed(self, removed: FlowRemoved, now: float) -> Commands:
        """The same for one flow."""
        return self.flows_removed((removed,), now)

    def flows_removed(self, found: Iterable[FlowRemoved], now: float) -> Commands:
        """Flows are gone: with a root its demand ends; a flow that living demands need comes back."""
        ended: dict[Owner, Program | None] = {}
        gone: list[Entry[Owner]] = []
        for removed in found:
            entry = self._holdings.get(removed.key)
            if entry is None or entry.have is None or entry.have.cookie != removed.cookie:
                continue
            entry.have = None
            gone.append(entry)
            if removed.reason in (RemovalReason.IDLE_TIMEOUT, RemovalReason.HARD_TIMEOUT):
                for owner in entry.owners:
                    if self._programs[owner].root == removed.key:
                        ended[owner] = None
        return self._update(ended, gone)

    def status(self) -> dict[str, int]:
        """Counts: flows, groups, meters, demands, local pods."""
        return {
            "flows": len(self._holdings.installed()),
            "groups": len(self._groups),
            "meters": len(self._meters),
            "demands": len(self.demands),
            "local_pods": sum(isinstance(owner, Local) for owner in self._programs),
            "quarantined": sum(isinstance(owner, Quarantine) for owner in self._programs),
        }

    @property
    def flows(self) -> dict[FlowKey, Flow]:
        """What the switch holds, as far as it was told."""
        return self._holdings.installed()

    @property
    def groups(self) -> dict[int, Group]:
        """The groups that the switch holds, as far as it was told."""
        return dict(self._groups)

    @property
    def meters(self) -> dict[int, Meter]:
        """The meters that the switch holds, as far as it was told."""
        return dict(self._meters)

    def has(self, pod: str) -> bool:
        """Whether the pod is one of this switch already."""
        return Local(pod) in self._programs

    def prepared(self, part: Part) -> Program:
        """What a part would be here; nothing is wanted because of that."""
        return self._compiler.part(part)

    def foresee(self, pairs: Iterable[Pair], sources: Iterable[Address], now: float) -> Commands:
        """Have pairs that nobody has asked for here, unless they are refused, and the answers to these sources."""
        verdicts = ((pair, self._compiler.treated(pair, now).verdict) for pair in pairs)
        allowed = [pair for pair, verdict in verdicts if verdict and not verdict.refused]
        ways = ((pair, source) for source in sources for pair in allowed if len(source) == len(pair.address))
        return self._demand((), now, [*(more for way in ways for more in back(self._compiler, *way)), *allowed])

    def share(self, port: int) -> int:
        """How many demands are alive that the pod at a port has made."""
        return self._shares.count(port)

    @property
    def demands(self) -> frozenset[Demand]:
        """The demands alive."""
        return frozenset(owner for owner in self._programs if not isinstance(owner, Local | Frame | Part))

    # -- first packets -----------------------------------------------------------------------------------------

    def _from_tunnel(self, packet: PacketIn, addresses: Addresses, now: float) -> Answer:
        vni, vtep = packet.fields.get("tun_id", 0), tunnel_source(packet.fields)
        source = self._compiler.source_of(vtep, vni, addresses.source)
        sender = self._compiler.sender(source)
        group = self._model.groups.get(sender.group) if sender else None
        if group is None:
            return Answer(self._demand([self._refusals.of_tunnel(source)], now))
        if is_to_all(self._model, vni, packet.data, addresses.target):
            return self._to_all(packet, Broadcast(Origin.TUNNEL, vni, group.number), [source], now)
        pair = self._compiler.pair(Origin.TUNNEL, vni, group.number, addresses.target)
        return self._answer(packet, pair, addresses, [source], now)

    def _unplanned(self, packet: PacketIn, addresses: Addresses, now: float) -> Answer:
        origin = Origin.TUNNEL if read(packet, ORIGIN) else Origin.POD
        pair = self._compiler.pair(origin, read(packet, VNI), read(packet, SOURCE_GROUP), addresses.target)
        return self._answer(packet, pair, addresses, [], now)

    @staticmethod
    def _broadcast(packet: PacketIn) -> Broadcast:
        return Broadcast(Origin(read(packet, ORIGIN)), read(packet, VNI), read(packet, SOURCE_GROUP))

    def _to_all(self, packet: PacketIn, demand: Broadcast, more: list[Demand], now: float) -> Answer:
        commands = self._demand([*more, demand], now)
        program = self._programs.get(demand)
        if program is None or program.refuses:
            return Answer(commands)
        onward = again(demand.vni, demand.group, demand.origin, read(packet, SOURCE_ZONE))
        out = PacketOut(packet.data, packet.fields.get("in_port", 0), onward)
        return Answer(commands, out, Kind.DIRECT)

    def _unlocated(self, packet: PacketIn, addresses: Addresses, now: float) -> Answer:
        target = Target(read(packet, VNI), addresses.target)
        commands = self._demand([target], now)
        program = self._programs.get(target)
        if program is None or program.refuses:
            return Answer(commands)
        kind = _KINDS.get(read(packet, KIND), Kind.DROP)
        if kind is Kind.DROP:
            return Answer(commands)  # nothing that was refused gets as far as here by itself
        onward: Actions = (*restored(packet, VNI, SOURCE_GROUP, KIND, ORIGIN, SOURCE_ZONE), Resubmit(Table.LOCATION))
        return Answer(commands, PacketOut(packet.data, packet.fields.get("in_port", 0), onward), kind)

    def _answer(self, packet: PacketIn, pair: Pair, addresses: Addresses, more: list[Demand], now: float) -> Answer:
        verdict, _, keeps = self._compiler.treated(pair, now)
        if verdict is None:
            return Answer()
        if verdict.refused:
            return Answer(self._demand([*more, self._refusals.widened(self._model, pair)], now))
        if keeps and pair.origin is Origin.POD:
            kept = chosen(self._model, pair.vni, pair.address, addresses.source)
            more = [*more, kept] if kept else more
        commands = self._demand([*more, pair], now, back(self._compiler, pair, addresses.source))
        onward = again(pair.vni, pair.group, pair.origin, read(packet, SOURCE_ZONE))
        out = PacketOut(packet.data, packet.fields.get("in_port", 0), onward)
        call = (pair, addresses.source) if pair.origin is Origin.POD else None
        return Answer(commands, out, verdict.kind, call=call)

    def _demand(self, demands: Iterable[Demand], now: float, besides: Iterable[Demand] = ()) -> Commands:
        """Make sure of demands that packets have just asked for, and have those `besides` that will be asked for.

        A packet that asks for what is installed has lost a race with the flow's expiry, or the flow was deleted
        behind our back: an allowing root is said again.
        """
        changed: dict[Owner, Program | None] = {}
        made: list[Demand] = []
        repeat: list[Entry[Owner]] = []
        for demand in besides:
            if demand not in self._programs:
                changed[demand] = self._compiler.program(demand, now)
                made.append(demand)
        for demand in demands:
            known = self._programs.get(demand)
            if known is None:
                changed[demand] = self._compiler.program(demand, now)
                made.append(demand)
            elif known.root is not None and not known.refuses:
                entry = self._holdings.entry(known.root)
                entry.have = None
                repeat.append(entry)
        commands = self._update(changed, repeat) if changed or repeat or self._zones_changed else ()
        self._made = tuple(demand for demand in made if demand in self._programs)
        return commands

    # -- wanted state ------------------------------------------------------------------------------------------

    def _update(self, changed: Mapping[Owner, Program | None], entries: Iterable[Entry[Owner]] = ()) -> Commands:
        flows, groups = set(entries), set[int]()
        ended_zones: list[int] = []
        for owner, program in changed.items():
            if isinstance(owner, Part) and owner not in self._needed:
                continue  # of an owner that has been compiled anew and needs it no more
            zone = self._zones.get(owner) if isinstance(owner, Local) else None
            self._replace(owner, program, flows, groups)
            if isinstance(owner, Local) and zone is not None and self._zones.get(owner) != zone:
                ended_zones += [zone, HAIRPIN_ZONE | zone]
        return (*self._difference(flows, groups), *(FlushZone(zone) for zone in ended_zones))

    def _replace(self, owner: Owner, program: Program | None, flows: set[Entry[Owner]], groups: set[int]) -> None:
        """Let an owner want `program` from now on; notes in `flows` and `groups` what may be wanted differently."""
        old = self._programs.get(owner)
        if old is program:  # nothing changes, also where there was nothing
            return
        # What is needed before and after is not compiled in between.
        if program is not None:
            for part in program.needs:
                self._need(part, flows, groups)
        if old is not None:
            del self._programs[owner]
            self._retract(owner, old, flows, groups)
        if isinstance(owner, Local):
            self._zones_changed = True
            port = self._zones.pop(owner, 0)
            if program is None:
                self._conducts.forget(port)
        if program is None:
            if not isinstance(owner, Local | Frame | Part):
                self._shares.ended(owner)
            return
        self._programs[owner] = program
        if program.drops:
            self._refusals.note(owner, program)
        self._holdings.want(owner, program.flows, flows)
        if program.groups:
            groups.update(program.groups)
            for number, group in program.groups.items():
                self._wanted_groups.setdefault(number, {})[owner] = group
        for touch in program.depends:
            self._dependents[touch].add(owner)
        if isinstance(owner, Local):
            location = self._model.location(self._model.pods[owner.pod])
            if location is not None:
                self._zones[owner] = location.port

    def _retract(self, owner: Owner, old: Program, flows: set[Entry[Owner]], groups: set[int]) -> None:
        self._refusals.forget(owner, old)
        self._holdings.release(owner, old.flows, flows)
        groups.update(old.groups)
        for number in old.groups:
            release(self._wanted_groups, number, owner)
        for touch in old.depends:
            self._dependents[touch].discard(owner)
            if not self._dependents[touch]:
                del self._dependents[touch]
        for part in old.needs:
            self._needed[part] -= 1
            if not self._needed[part]:
                del self._needed[part]
                self._replace(part, None, flows, groups)

    def _need(self, part: Part, flows: set[Entry[Owner]], groups: set[int]) -> None:
        count = self._needed.get(part, 0)
        self._needed[part] = count + 1
        if not count:
            self._replace(part, self._compiler.part(part), flows, groups)

    def _wanted_meters(self) -> dict[int, Meter]:
        settings = self._settings
        meters = {TUNNEL_METER: Meter(TUNNEL_METER, settings.tunnel_rate, settings.tunnel_burst)}
        for owner, port in self._zones.items():
            meters[port] = Meter(port, settings.pod_rate, settings.pod_burst)
            for number in self._programs[owner].meters:
                meters[number] = Meter(number, settings.broadcast_rate, settings.broadcast_burst)
        return meters

    def _difference(self, flows: set[Entry[Owner]], groups: set[int]) -> Commands:
        """The commands that make these flows, groups and all meters as wanted; groups exist before flows use them."""
        before: list[Command] = []
        removals: list[Command] = []
        additions: list[Command] = []
        opening: list[AddFlow] = []
        after: list[Command] = []
        if self._zones_changed:
            wanted_meters = self._wanted_meters()
            before += [
                AddMeter(meter, exists=number in self._meters)
                for number, meter in wanted_meters.items()
                if self._meters.get(number) != meter
            ]
            after += [DeleteMeter(number) for number in self._meters if number not in wanted_meters]
            self._meters, self._zones_changed = wanted_meters, False
        puts: list[PutGroup] = []
        for number in sorted(groups) if groups else ():
            holders = self._wanted_groups.get(number)
            group = holders[next(reversed(holders))] if holders else None
            if group is None:
                if self._groups.pop(number, None) is not None:
                    after.append(DeleteGroup(number))
            elif self._groups.get(number) != group:
                puts.append(PutGroup(group, exists=number in self._groups))
                self._groups[number] = group
        puts.sort(key=lambda put: put.group.has_parts)
        before += puts
        for entry in flows:
            wanted, have = entry.wanted, entry.have
            if wanted is None:
                self._holdings.drop(entry)
                if have is not None:
                    removals.append(DeleteFlow(entry.key))
                continue
            if have is not wanted and (have is None or have != wanted):
                if wanted.table in _OPENING:
                    opening.append(AddFlow(wanted))
                else:
                    additions.append(AddFlow(wanted))
            entry.have = wanted
        # The plan comes last: a packet that it lets pass finds everything behind it in place. What it refuses comes
        # after what it lets pass or ask, which may be an exception to that.
        opening.sort(key=lambda add: not add.flow.actions)
        return (*before, *removals, *additions, *opening, *after)

    def _forget_switch(self) -> None:
        self._programs.clear()
        self._needed.clear()
        self._dependents.clear()
        self._holdings.clear()
        self._wanted_groups.clear()
        self._groups.clear()
        self._zones.clear()
        self._refusals, self._shares = Refusals(), Shares()
        self._zones_changed = True
