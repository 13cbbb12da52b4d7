# SPDX-License-Identifier: Apache-2.0
"""Open vSwitch as far as qnet uses it: executes commands, forwards packets, ages flows by an explicit clock.

It refuses what Open vSwitch refuses; `Refused` says which rule was broken (OpenFlow error names where there is one).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from qnet_controller.pipeline import messages as m
from qnet_controller.pipeline.fields import BY_NAME, CT_TRACKED, Bits, whole

from .check import Refused, check_bucket, check_flow, check_kernel
from .conntrack import CT_DESTINATION_NAT, CT_SOURCE_NAT, Conntrack, Datapath
from .packets import (
    ETH_ARP,
    ETH_IPV4,
    ETH_IPV6,
    ICMPV6,
    SCTP,
    SOURCE_OPTION,
    TARGET_OPTION,
    TCP,
    UDP,
    Packet,
    decode,
    is_ipv6,
)
from .select import Selector

MAX_DEPTH = 64
LOW_PORT_IN_PORT = 0xFFF8
LATER = 3  # of ip_frag: conntrack joins it with the first fragment, but it shows no ports of its own

_Present = Callable[[Packet], bool]


def _transport(protocol: int) -> _Present:
    return lambda p: p.has_ports and p.ip_proto == protocol and p.fragment != LATER


def _option(kind: int) -> _Present:
    return lambda p: p.is_nd and p.nd_option == kind


_HEADERS: dict[str, tuple[str, _Present]] = {
    "eth_src": ("eth_src", lambda p: True),
    "eth_dst": ("eth_dst", lambda p: True),
    "eth_type": ("eth_type", lambda p: True),
    **{
        name: (name, lambda p: p.eth_type == ETH_ARP) for name in ("arp_op", "arp_sha", "arp_spa", "arp_tha", "arp_tpa")
    },
    "ip_proto": ("ip_proto", lambda p: p.is_ip),
    "ip_frag": ("fragment", lambda p: p.is_ip),
    "ipv4_src": ("source", lambda p: p.eth_type == ETH_IPV4),
    "ipv4_dst": ("target", lambda p: p.eth_type == ETH_IPV4),
    "ipv6_src": ("source", lambda p: p.eth_type == ETH_IPV6),
    "ipv6_dst": ("target", lambda p: p.eth_type == ETH_IPV6),
    "tcp_dst": ("dst_port", _transport(TCP)),
    "udp_dst": ("dst_port", _transport(UDP)),
    "sctp_dst": ("dst_port", _transport(SCTP)),
    "sctp_src": ("src_port", _transport(SCTP)),
    "tcp_src": ("src_port", _transport(TCP)),
    "udp_src": ("src_port", _transport(UDP)),
    "icmpv4_type": ("icmp_type", lambda p: p.eth_type == ETH_IPV4 and p.is_icmp),
    "icmpv4_code": ("icmp_code", lambda p: p.eth_type == ETH_IPV4 and p.is_icmp),
    "icmpv6_type": ("icmp_type", lambda p: p.eth_type == ETH_IPV6 and p.is_icmp),
    "icmpv6_code": ("icmp_code", lambda p: p.eth_type == ETH_IPV6 and p.is_icmp),
    "nd_target": ("nd_target", lambda p: p.is_nd),
    "nd_reserved": ("nd_flags", lambda p: p.is_nd),
    "nd_options_type": ("nd_option", lambda p: p.is_nd and bool(p.nd_option)),
    "nd_sll": ("nd_mac", _option(SOURCE_OPTION)),
    "nd_tll": ("nd_mac", _option(TARGET_OPTION)),
}


class Emission(NamedTuple):
    """A packet that left through a port, with the tunnel it asked for."""

    port: int
    packet: Packet
    tun_id: int
    tun_dst: int


class Asked(NamedTuple):
    """A packet that went to the controller."""

    message: m.PacketIn


Outcome = Emission | Asked


@dataclass(slots=True)
class Entry:
    """A flow in a table."""

    flow: m.Flow
    created: float
    used: float
    packets: int = 0

    def ends(self) -> tuple[float, int]:
        """When it expires if nothing uses it, and why."""
        idle = self.used + self.flow.idle_timeout if self.flow.idle_timeout else math.inf
        hard = self.created + self.flow.hard_timeout if self.flow.hard_timeout else math.inf
        if hard <= idle:
            return hard, m.RemovalReason.HARD_TIMEOUT
        return idle, m.RemovalReason.IDLE_TIMEOUT


@dataclass(slots=True)
class Flight:
    """A packet on its way through the tables, with its metadata."""

    packet: Packet
    meta: dict[str, int]
    trace: list[str] = field(default_factory=list)
    path: list[tuple[int, int]] = field(default_factory=list)
    """The (table, priority) of every lookup; priority -1 for none."""
    states: list[int] = field(default_factory=list)
    """The ct_state after every recirculation."""
    changes: list[int] = field(default_factory=list)
    """How many lookups had been made each time that a group was used or addresses were translated."""

    def get(self, name: str) -> int | None:
        """A field's value; None when the packet has no such header."""
        header = _HEADERS.get(name)
        if header is None:
            if name not in BY_NAME:
                raise Refused(f"unknown field {name}")
            return self.meta.get(name, 0)
        attribute, present = header
        value: int = getattr(self.packet, attribute)
        return value if present(self.packet) else None

    def put(self, name: str, value: int) -> None:
        """Write a field; a header that the packet does not have stays away."""
        header = _HEADERS.get(name)
        if header is None:
            self.meta[name] = value
        elif header[1](self.packet):
            setattr(self.packet, header[0], value)

    def read(self, bits: Bits) -> int:
        """The value of a part of a field."""
        return ((self.get(bits.field.name) or 0) & bits.mask) >> bits.offset

    def write(self, bits: Bits, value: int) -> None:
        """Write a part of a field."""
        old = self.get(bits.field.name) or 0
        self.put(bits.field.name, old & ~bits.mask | value << bits.offset)

    def copy(self) -> Flight:
        """A clone that goes its own way; both write the same history."""
        return Flight(self.packet.copy(), dict(self.meta), self.trace, self.path, self.states, self.changes)


class _Subtable:
    """The flows of one table that have one priority and one mask."""

    def __init__(self, priority: int, masks: tuple[tuple[str, int], ...]) -> None:
        self.priority, self.masks = priority, masks
        self.entries: dict[tuple[int, ...], Entry] = {}

    def find(self, flight: Flight) -> Entry | None:
        values = []
        for name, mask in self.masks:
            value = flight.get(name)
            if value is None:
                return None
            values.append(value & mask)
        return self.entries.get(tuple(values))


class Switch:
    """One switch. `clock` gives the time in seconds; nothing happens by itself, `age` expires flows."""

    def __init__(self, datapath_id: int, datapath: Datapath, clock: Callable[[], float]) -> None:
        self.datapath_id = datapath_id
        self.ports: dict[int, str] = {}
        self.conntrack = Conntrack(datapath)
        self._first_fragments: set[object] = set()
        self.log: list[m.Command] = []
        self.discarded = 0
        self._clock = clock
        self._tables: dict[int, list[_Subtable]] = {}
        self._flows: dict[m.FlowKey, Entry] = {}
        self._groups: dict[int, m.Group] = {}
        self._meters: dict[int, tuple[m.Meter, float, float]] = {}
        self._removed: list[m.FlowRemoved] = []

    # -- what the controller does ------------------------------------------------------------------------------

    def execute(self, commands: Iterable[m.Command]) -> None:
        """Apply commands in order, as one bundle.

        Raises:
            Refused: Open vSwitch would refuse the command.
        """
        for command in commands:
            self.log.append(command)
            match command:
                case m.AddFlow(flow):
                    self._add(flow)
                case m.DeleteFlow(key):
                    self._delete(key, m.RemovalReason.DELETE)
                case m.PutGroup(group, exists):
                    self._put_group(group, exists)
                case m.DeleteGroup(number):
                    if self._groups.pop(number, None):
                        self._delete_users(m.UseGroup(number), m.RemovalReason.GROUP_DELETE)
                case m.AddMeter(meter, exists):
                    if exists != (meter.id in self._meters):
                        error = "OFPMMFC_UNKNOWN_METER" if exists else "OFPMMFC_METER_EXISTS"
                        raise Refused(f"{error}: meter {meter.id}")
                    self._meters[meter.id] = (meter, float(meter.burst), self._clock())
                case m.DeleteMeter(number):
                    if self._meters.pop(number, None):
                        self._delete_users(m.UseMeter(number), m.RemovalReason.METER_DELETE)
                case m.FlushZone(zone):
                    self.conntrack.flush(zone)
                case m.FlushConnection(_, opened) if opened.protocol == ICMPV6:
                    raise Refused("to forget one connection of ICMPv6 makes ovs-vswitchd 3.1 abort")
                case m.FlushConnection(zone, opened):
                    self.conntrack.forget(zone, opened)

    def _add(self, flow: m.Flow) -> None:
        check_flow(flow, self._groups, self._meters)
        if self.conntrack.datapath == "system":
            check_kernel(flow)
        now = self._clock()
        entry = Entry(flow, now, now)
        self._flows[flow.key] = entry
        self._subtable(flow, create=True).entries[tuple(value for _, value, _ in flow.match)] = entry

    def _subtable(self, flow: m.Flow, create: bool = False) -> _Subtable:
        masks = tuple((name, mask) for name, _, mask in flow.match)
        table = self._tables.setdefault(flow.table, [])
        for subtable in table:
            if subtable.priority == flow.priority and subtable.masks == masks:
                return subtable
        assert create
        table.append(_Subtable(flow.priority, masks))
        table.sort(key=lambda s: -s.priority)
        return self._subtable(flow)

    def _delete(self, key: m.FlowKey, reason: m.RemovalReason) -> None:
        entry = self._flows.pop(key, None)
        if entry is None:
            return
        subtable = self._subtable(entry.flow)
        del subtable.entries[tuple(value for _, value, _ in entry.flow.match)]
        if not subtable.entries:
            self._tables[entry.flow.table].remove(subtable)
        if entry.flow.notify:
            self._removed.append(m.FlowRemoved(key, entry.flow.cookie, reason))

    def _delete_users(self, action: m.Action, reason: m.RemovalReason) -> None:
        for key in [key for key, entry in self._flows.items() if action in entry.flow.actions]:
            self._delete(key, reason)

    def _put_group(self, group: m.Group, exists: bool) -> None:
        if exists and group.id not in self._groups:
            raise Refused(f"OFPGMFC_UNKNOWN_GROUP: group {group.id}")
        if not exists and group.id in self._groups:
            raise Refused(f"OFPGMFC_GROUP_EXISTS: group {group.id}")
        if len({bucket.id for bucket in group.buckets}) != len(group.buckets):
            raise Refused(f"OFPGMFC_BUCKET_EXISTS: group {group.id} has a bucket id twice")
        for bucket in group.buckets:
            check_bucket(group.id, bucket)
        self._groups[group.id] = group

    def dump(self) -> m.Installed:
        """What a controller reads back."""
        flows = tuple(m.InstalledFlow(key, entry.flow.cookie) for key, entry in self._flows.items())
        return m.Installed(flows, frozenset(self._groups), self.meters)

    @property
    def flows(self) -> dict[m.FlowKey, m.Flow]:
        """The flows by key."""
        return {key: entry.flow for key, entry in self._flows.items()}

    @property
    def groups(self) -> dict[int, m.Group]:
        """The groups by number."""
        return dict(self._groups)

    @property
    def meters(self) -> dict[int, m.Meter]:
        """The meters by number."""
        return {number: meter for number, (meter, _, _) in self._meters.items()}

    def counters(self) -> dict[m.FlowKey, int]:
        """Packets by flow."""
        return {key: entry.packets for key, entry in self._flows.items()}

    def power_cycle(self) -> None:
        """Lose everything but the ports."""
        self._tables, self._flows, self._groups, self._meters = {}, {}, {}, {}
        self._removed = []
        self.conntrack = Conntrack(self.conntrack.datapath)

    # -- time --------------------------------------------------------------------------------------------------

    def age(self) -> None:
        """Expire what is due."""
        now = self._clock()
        for key, entry in list(self._flows.items()):
            when, reason = entry.ends()
            if when <= now:
                self._delete(key, m.RemovalReason(reason))

    def next_expiry(self) -> float:
        """When the next flow expires if no packet comes."""
        return min((entry.ends()[0] for entry in self._flows.values()), default=math.inf)

    def take_removed(self) -> list[m.FlowRemoved]:
        """The notices since the last call."""
        removed, self._removed = self._removed, []
        return removed

    # -- packets -----------------------------------------------------------------------------------------------

    def receive(
        self, packet: Packet, port: int, tunnel: dict[str, int] | None = None
    ) -> tuple[list[Outcome], list[str]]:
        """Forward a packet that arrived at a port; returns what came of it, and a trace to read."""
        outcomes, flight = self.follow(packet, port, tunnel)
        return outcomes, flight.trace

    def follow(self, packet: Packet, port: int, tunnel: dict[str, int] | None = None) -> tuple[list[Outcome], Flight]:
        """As `receive`, with all that is known about the way."""
        if port not in self.ports:
            raise ValueError(f"switch {self.datapath_id:x} has no port {port}")
        flight = Flight(packet.copy(), {"in_port": port, **(tunnel or {})})
        return list(self._lookup(flight, 0, 0)), flight

    def packet_out(self, message: m.PacketOut) -> tuple[list[Outcome], list[str]]:
        """Do what the controller says with a packet."""
        flight = Flight(decode(message.data), {"in_port": message.in_port})
        return list(self._perform(flight, message.actions, -1, 0)), flight.trace

    def _lookup(self, flight: Flight, table: int, depth: int) -> Iterator[Outcome]:
        if depth > MAX_DEPTH:
            raise Refused(f"more than {MAX_DEPTH} lookups for one packet")
        for subtable in self._tables.get(table, ()):
            entry = subtable.find(flight)
            if entry is not None:
                entry.packets += 1
                entry.used = self._clock()
                flight.path.append((int(entry.flow.table), entry.flow.priority))
                flight.trace.append(f"{self.datapath_id:x} {entry.flow.table} {entry.flow.priority} {entry.flow.match}")
                yield from self._perform(flight, entry.flow.actions, table, depth)
                return
        flight.path.append((table, -1))
        flight.trace.append(f"{self.datapath_id:x} table {table}: no match")
        self.discarded += 1

    def _perform(self, flight: Flight, actions: m.Actions, table: int, depth: int) -> Iterator[Outcome]:
        for action in actions:
            match action:
                case m.Set(target, value):
                    flight.write(target, value)
                case m.Move(source, target):
                    flight.write(target, flight.read(source))
                case m.Output(port):
                    yield from self._output(flight, port)
                case m.OutputTo(bits):
                    port = flight.read(bits)
                    yield from self._output(flight, m.PORT_IN_PORT if port == LOW_PORT_IN_PORT else port)
                case m.ToController():
                    fields = {name: value for name, value in flight.meta.items() if value or name == "in_port"}
                    yield Asked(m.PacketIn(max(table, 0), flight.packet.encode(), fields))
                case m.UseGroup(number):
                    yield from self._use_group(flight, number, table, depth)
                case m.UseMeter(number):
                    if not self._within(number):
                        flight.trace.append(f"{self.datapath_id:x} meter {number}: dropped")
                        return
                case m.Goto(target_table) | m.Resubmit(target_table):
                    yield from self._lookup(flight, target_table, depth + 1)
                case m.Ct():
                    clone = flight.copy() if action.table is not None else flight
                    if not self._track(clone, action):
                        return
                    if action.table is not None:
                        yield from self._lookup(clone, action.table, depth + 1)

    def _output(self, flight: Flight, port: int) -> Iterator[Outcome]:
        here = flight.meta["in_port"]
        if port == m.PORT_IN_PORT:
            port = here
        elif port == here:
            flight.trace.append(f"{self.datapath_id:x} skipping output to the input port {port}")
            self.discarded += 1
            return
        if port not in self.ports:
            flight.trace.append(f"{self.datapath_id:x} no port {port}")
            self.discarded += 1
            return
        yield Emission(
            port,
            flight.packet.copy(),
            flight.meta.get("tun_id", 0),
            flight.meta.get("tun_dst") or flight.meta.get("tun_ipv6_dst", 0),
        )

    def _use_group(self, flight: Flight, number: int, table: int, depth: int) -> Iterator[Outcome]:
        group = self._groups[number]
        chosen = Selector(group).choose(flight.packet, [flight.read(whole(field)) for field in group.hashed])
        if chosen is None:
            flight.trace.append(f"{self.datapath_id:x} group {number} has no live bucket")
            self.discarded += 1
            return
        flight.trace.append(f"{self.datapath_id:x} group {number} bucket {chosen.id:x}")
        flight.changes.append(len(flight.path))
        yield from self._perform(flight.copy(), chosen.actions, table, depth)

    def _within(self, number: int) -> bool:
        meter, tokens, last = self._meters[number]
        now = self._clock()
        tokens = min(float(meter.burst), tokens + (now - last) * meter.rate)
        self._meters[number] = (meter, max(tokens - 1, 0.0) if tokens >= 1 else tokens, now)
        return tokens >= 1

    def _joined(self, packet: Packet, stage: object) -> bool:
        """Whether conntrack has all of a packet; of a later fragment, when the first came the same way before."""
        ends = (stage, replace(packet, fragment=0, eth_src=0, eth_dst=0).encode())
        if packet.fragment == LATER:
            return ends in self._first_fragments
        if packet.fragment:
            self._first_fragments.add(ends)
        return True

    def _track(self, flight: Flight, action: m.Ct) -> bool:
        if not flight.packet.is_ip:
            raise Refused("ct() on a packet that is not IP")
        zone = flight.read(action.zone) if isinstance(action.zone, Bits) else action.zone
        mark = flight.read(action.mark) if action.mark is not None else None
        if not self._joined(flight.packet, (zone, action.commit, action.table)):
            flight.trace.append(f"{self.datapath_id:x} ct(zone={zone}): held, the first fragment is not there")
            return False
        result = self.conntrack.track(flight.packet, zone, action.commit, action.nat, self._clock(), mark)
        if result.dropped:
            flight.trace.append(f"{self.datapath_id:x} ct(zone={zone}): dropped for a clash")
            return False
        flight.trace.append(f"{self.datapath_id:x} ct(zone={zone}) -> {result.state:#x} {flight.packet}")
        known = action.table is not None and result.state & CT_TRACKED
        if action.table is not None:
            flight.states.append(result.state)
        if result.state & (CT_SOURCE_NAT | CT_DESTINATION_NAT):
            flight.changes.append(len(flight.path))
        flight.meta["ct_state"] = result.state if known else 0
        flight.meta["ct_zone"] = zone if known else 0
        flight.meta["ct_mark"] = result.mark if known else 0
        original = result.original if known else None
        six = original is not None and is_ipv6(original.target)
        flight.meta["ct_ipv4_dst"] = original.target if original and not six else 0
        flight.meta["ct_ipv6_dst"] = original.target if original and six else 0
        flight.meta["ct_proto"] = original.protocol if original else 0
        flight.meta["ct_tp_dst"] = original.dport & 0xFFFF if original and flight.packet.fragment != LATER else 0
        return True
