# SPDX-License-Identifier: Apache-2.0
"""One fake switch: answers what a controller asks, holds the flows it is given, sends packet-ins and counts answers.

While a load runs, messages are only framed and kept; they are read and verified afterwards, so that the generator is
faster than what it measures.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from . import wire
from .wire import Port

_HEAD = struct.Struct("!BBHI")
_KEY_FROM, _MATCH_AT = 16, 40  # in the body of a flow-mod: table and command, and where the match begins
_COOKIE_AT = 32  # in a request for flows (OpenFlow 1.5.1, 7.3.5.2), of the cookie and its mask
RECONNECT_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Spec:
    """What a fake switch is. `plan_table`: a flow-mod there that only drops answers a packet-in (OpenFlow 1.5)."""

    name: str
    datapath_id: int
    version: int
    ports: tuple[Port, ...]
    certificate: str = ""
    key: str = ""
    plan_table: int = 2


@dataclass(slots=True)
class Load:
    """Packet-ins to send, at most `window` of them without an answer; `times` are (sent, answered) when wanted."""

    packets: list[bytes]
    window: int
    timed: bool = False
    sent: int = 0
    answered: int = 0
    flow_mods: int = 0
    sent_at: list[float] = field(default_factory=list)
    answered_at: list[float] = field(default_factory=list)
    first_flow_at: list[float] = field(default_factory=list)
    began: float = 0.0
    ended: float = 0.0


class FakeSwitch(asyncio.Protocol):
    """A connection of a fake switch; its tables outlive the connection."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.flows: dict[bytes, bytes] = {}
        self.groups: dict[int, None] = {}
        self.meters: dict[int, None] = {}
        self.log: list[bytes] = []
        self.keep = True  # apply what is said to the tables; without it only `log` has it
        self.recording = False
        self.connected = False
        self.master = asyncio.Event()
        self.applied = 0
        self.losses = 0
        self.echoed = True
        self.on_change: Callable[[FakeSwitch], None] | None = None
        self.on_done: Callable[[], None] | None = None
        self.load: Load | None = None
        self._input = b""
        self._transport: asyncio.Transport | None = None
        self._generation = 0xFFFFFFFFFFFFFFFF
        self._role = 1

    # -- the connection --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._input = b""
        self.connected = True
        transport.write(wire.hello(self.spec.version))

    def connection_lost(self, exc: Exception | None) -> None:
        """Keep the tables."""
        self.connected = False
        self.losses += 1
        self._role = 1
        self.master.clear()

    def close(self) -> None:
        """End the connection."""
        if self._transport:
            self._transport.abort()

    def ask_echo(self) -> None:
        """Ask for an echo; `echoed` when it is there, and everything said before has been heard."""
        self.echoed = False
        self.write(wire.message(wire.ECHO_REQUEST, b"", 0, self.spec.version))

    def write(self, data: bytes) -> None:
        """Send bytes."""
        if self._transport:
            self._transport.write(data)

    # -- input -----------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Frame what has come, count answers, send as many packets again."""
        data = self._input + data if self._input else data
        offset, size, answers, flow_mods = 0, len(data), 0, 0
        load, log, plan_table = self.load, self.log, self.spec.plan_table
        while offset + 8 <= size:
            _, kind, length, xid = _HEAD.unpack_from(data, offset)
            if length < 8 or offset + length > size:
                break
            message = data[offset : offset + length]
            offset += length
            if kind == wire.FLOW_MOD:
                flow_mods += 1
                log.append(message)
                if message[24] == plan_table and 48 + (message[50] << 8 | message[51]) + 7 & ~7 == length:
                    answers += 1
                if load is not None and load.timed and len(load.first_flow_at) < load.sent:
                    load.first_flow_at.append(time.perf_counter())
            elif kind == wire.PACKET_OUT:
                answers += 1
                log.append(message)
            elif kind == wire.BUNDLE_ADD:
                log.append(message[16:])
            else:
                self._answer(kind, xid, message)
        self._input = data[offset:]
        if load is not None:
            load.flow_mods += flow_mods
            self._go_on(load, answers)
        elif not self.recording:
            self.apply()

    def _go_on(self, load: Load, answers: int) -> None:
        if not answers:
            return
        load.answered += answers
        if load.timed:
            load.answered_at.append(time.perf_counter())
        more = min(load.answered + load.window, len(load.packets))
        if more > load.sent:
            load.sent_at.append(time.perf_counter())
            self.write(b"".join(load.packets[load.sent : more]))
            load.sent = more
        elif load.answered >= len(load.packets) and not load.ended:
            load.ended = time.perf_counter()
            if self.on_done:
                self.on_done()

    def start(self, load: Load) -> None:
        """Begin to send; `on_done` is called when all has been answered."""
        self.load = load
        load.began = time.perf_counter()
        load.sent = min(load.window, len(load.packets))
        load.sent_at.append(load.began)
        self.write(b"".join(load.packets[: load.sent]))

    def _answer(self, kind: int, xid: int, message: bytes) -> None:
        version = self.spec.version
        match kind:
            case wire.FEATURES_REQUEST:
                self.write(wire.features(self.spec.datapath_id, xid, version))
            case wire.ECHO_REPLY:
                self.echoed = True
            case wire.ECHO_REQUEST:
                self.write(wire.message(wire.ECHO_REPLY, message[8:], xid, version))
            case wire.BARRIER_REQUEST:
                self.write(wire.message(wire.BARRIER_REPLY, b"", xid, version))
            case wire.GET_CONFIG_REQUEST:
                self.write(wire.message(wire.GET_CONFIG_REPLY, struct.pack("!HH", 0, 0xFFFF), xid, version))
            case wire.ROLE_REQUEST:
                self._take_role(xid, message)
            case wire.BUNDLE_CONTROL:
                bundle, what, flags = struct.unpack_from("!IHH", message, 8)
                self.write(wire.message(kind, struct.pack("!IHH", bundle, what + 1, flags), xid))
            case wire.MULTIPART_REQUEST:
                self._describe(xid, message)
            case wire.GROUP_MOD | wire.METER_MOD:
                self.log.append(message)

    def _take_role(self, xid: int, message: bytes) -> None:
        if self.spec.version == wire.OPENFLOW_15:
            role, generation = struct.unpack_from("!I4xQ", message, 8)
        else:
            role, generation = struct.unpack_from("!I4xQ", message, 8)
        if role in (2, 3):
            self._generation = generation
        if role:
            self._role = role
        self.write(wire.message(wire.ROLE_REPLY, struct.pack("!I4xQ", self._role, self._generation), xid))
        if role == 2:
            self.master.set()

    def _describe(self, xid: int, message: bytes) -> None:
        (kind,) = struct.unpack_from("!H", message, 8)
        version = self.spec.version
        # What is said during a load is kept for verification; until then the tables are those from before it.
        if kind in (wire.FLOW_DESC, wire.GROUP_STATS, wire.METER_DESC) and not self.recording:
            self.apply()
        entries: list[bytes] = []
        if kind == wire.PORT_DESC:
            entries = [wire.port(port, version) for port in self.spec.ports]
        elif kind == wire.DESCRIPTION:
            entries = [bytes(1056)]
        elif kind == wire.FLOW_DESC and version == wire.OPENFLOW_15:
            cookie, mask = struct.unpack_from("!QQ", message, _COOKIE_AT)
            wanted = (item for item in self.flows.items() if _has_cookie(item[1], cookie, mask))
            entries = [_flow_desc(key, rest) for key, rest in wanted]
        elif kind == wire.GROUP_STATS:
            entries = [struct.pack("!H2xI32x", 40, number) for number in self.groups]
        elif kind == wire.METER_DESC:
            entries = [struct.pack("!HHI", 8, 2, number) for number in self.meters]
        self.write(wire.multipart(kind, entries, xid, version))

    # -- tables ----------------------------------------------------------------------------------------------------

    def apply(self) -> None:
        """Take over what has been said into the tables."""
        log, self.log = self.log, []
        if self.keep:
            for message in log:
                self._apply(message)
        self.applied += len(log)
        if log and self.on_change:
            self.on_change(self)

    def _apply(self, message: bytes) -> None:
        kind = message[1]
        if kind == wire.FLOW_MOD:
            key, rest = flow_key(message), message
            if message[25] == 0:
                self.flows[key] = rest
            else:
                self.flows.pop(key, None)
        elif kind == wire.GROUP_MOD:
            command, number = struct.unpack_from("!HxxI", message, 8)
            if command == 2:
                self.groups.pop(number, None)
            else:
                self.groups[number] = None
        elif kind == wire.METER_MOD:
            command, _, number = struct.unpack_from("!HHI", message, 8)
            if command == 2:
                self.meters.pop(number, None)
            else:
                self.meters[number] = None

    def expire(self) -> int:
        """Every flow that is to be reported ends for idleness; returns how many there were."""
        self.apply()
        ending = [(key, mod) for key, mod in self.flows.items() if mod[45] & 1 and (mod[26:30] != bytes(4))]
        # The plan first: what pairs need ends with them.
        ending.sort(key=lambda item: item[1][24] != self.spec.plan_table)
        for key, _ in ending:
            del self.flows[key]
        self.write(b"".join(_flow_removed(mod) for _, mod in ending))
        return len(ending)


def _has_cookie(message: bytes, cookie: int, mask: int) -> bool:
    return int.from_bytes(message[8:16], "big") & mask == cookie & mask


def flow_key(message: bytes) -> bytes:
    """Table, priority and match of a flow-mod, as bytes."""
    (length,) = struct.unpack_from("!H", message, 50)
    return message[24:25] + message[30:32] + message[48 : 48 + length]


def _flow_desc(key: bytes, message: bytes) -> bytes:
    """An entry of a flow description, from the flow-mod that made the flow."""
    cookie = message[8:16]
    table, idle, hard, priority = message[24], message[26:28], message[28:30], message[30:32]
    matched = message[48 : 48 + (struct.unpack_from("!H", message, 50)[0] + 7) // 8 * 8]
    instructions = message[48 + len(matched) :]
    statistics = struct.pack("!HH4x", 0, 4)
    length = 24 + len(matched) + len(statistics) + len(instructions)
    head = struct.pack("!H2xBx", length, table) + priority + idle + hard + message[44:46] + bytes(2) + cookie
    return head + matched + statistics + instructions


def _flow_removed(message: bytes) -> bytes:
    """FLOW_REMOVED for idleness, or for its hard timeout if the flow has no other."""
    matched = message[48 : 48 + (struct.unpack_from("!H", message, 50)[0] + 7) // 8 * 8]
    reason = 0 if message[26:28] != bytes(2) else 1
    head = bytes((message[24], reason)) + message[30:32] + message[26:30] + message[8:16]
    return wire.message(wire.FLOW_REMOVED, head + matched + struct.pack("!HH4x", 0, 4))
