# SPDX-License-Identifier: Apache-2.0
"""One OpenFlow connection: negotiation, keepalive, requests and their replies, bundles, back-pressure.

Everything runs on the event loop, in the order of the wire: what the switch said first is handled first. A peer that
breaks the protocol, falls silent or stops reading is dropped; nothing else notices.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from struct import Struct
from typing import Any, Protocol, cast

from ..pipeline.messages import (
    AddMeter,
    Command,
    DeleteMeter,
    FlowRemoved,
    FlushZone,
    InstalledFlow,
    PacketIn,
    PacketOut,
    Port,
)
from . import codec, guard, reading, wire
from .codec import Role, Roles, SwitchError
from .guard import Multipart, Type, Violation

LOG = logging.getLogger(__name__)

_MULTIPART = Struct("!HH")
_BUNDLE_COMMIT_REPLY = 5
_XIDS = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds, sizes in bytes; `max_backlog` counts messages that wait for a bundle."""

    handshake: float = 10.0
    echo_interval: float = 5.0
    silence: float = 15.0
    reply: float = 60.0
    high_water: int = 1 << 20
    max_backlog: int = 1000
    max_queued: int = 128 << 20
    max_multipart: int = 256 << 20


@dataclass(frozen=True, slots=True)
class Dump:
    """What a switch holds."""

    flows: tuple[InstalledFlow, ...]
    groups: frozenset[int]
    meters: frozenset[int]


class SessionClosed(ConnectionError):
    """The connection ended before the reply came."""


class Refused(Exception):
    """The switch answered a request with an error."""

    def __init__(self, error: SwitchError) -> None:
        super().__init__(str(error))
        self.error = error


class CommitFailed(Exception):
    """The switch refused commands: `failures` are (command or None for the bundle itself, error)."""

    def __init__(self, commands: tuple[Command, ...], failures: list[tuple[Command | None, SwitchError]]) -> None:
        super().__init__(f"{len(failures)} errors")
        self.commands = commands
        self.failures = failures


class Events(Protocol):
    """What a session tells its owner, on the event loop and in the order of the wire."""

    def identified(self, session: Session) -> None:
        """The switch has said who it is."""

    def port_status(self, session: Session, port: Port, gone: bool) -> None:
        """A port is new, changed or gone."""

    def packet_in(self, session: Session, packet: PacketIn) -> None:
        """A packet asks for a decision."""

    def flow_removed(self, session: Session, removed: FlowRemoved) -> None:
        """A flow has ended."""

    def role_changed(self, session: Session, role: Role) -> None:
        """Someone else has changed the role of this connection."""

    def refused(self, session: Session, error: SwitchError, command: Command | None) -> None:
        """The switch refused something that nobody waits for."""

    def violated(self, session: Session, reason: str) -> None:
        """The peer broke the protocol and is being dropped."""

    def handler_failed(self, session: Session, event: str) -> None:
        """A method of this object raised; it has been logged."""

    def lost(self, session: Session, reason: str) -> None:
        """The connection has ended."""


@dataclass(slots=True)
class _Request:
    """A reply that is awaited: `done` gets the message, `failed` the error."""

    kinds: tuple[Type, ...]
    done: Callable[[bytes], None]
    failed: Callable[[Exception], None]
    multipart: Multipart | None = None
    parts: list[bytes] = field(default_factory=list)
    size: int = 0


@dataclass(slots=True, eq=False)
class _Commit:
    """Commands on their way as one bundle, and what the switch refused of them."""

    commands: tuple[Command, ...]
    future: asyncio.Future[None]
    bundle: int = 0
    xids: list[int] = field(default_factory=list)
    failures: list[tuple[Command | None, SwitchError]] = field(default_factory=list)

    def of(self, *kinds: type) -> list[Command]:
        """The commands of these kinds, in order."""
        return [command for command in self.commands if isinstance(command, kinds)]


class Session(asyncio.Protocol):
    """One connection with a switch. `datapath_id` and `peer_name` (of its certificate) are known when identified."""

    def __init__(self, events: Events, limits: Limits) -> None:
        self.events = events
        self.limits = limits
        self.peer_name = ""
        self.address = ""
        self.datapath_id: int | None = None
        self.closing = ""
        self._paused = False
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._input = bytearray()
        self._negotiated = False
        self._heard = self._loop.time()
        self._timers: list[asyncio.TimerHandle] = []
        self._xid = 0
        self._bundle = 0
        self._requests: dict[int, _Request] = {}
        self._in_commit: dict[int, tuple[_Commit, Command | None]] = {}
        self._commits: dict[_Commit, None] = {}
        self._staging: _Commit | None = None
        self._backlog: deque[bytes | _Commit] = deque()
        self._recent: dict[int, Command] = {}
        self._handlers: dict[int, Callable[[bytes], None]] = {
            Type.HELLO: self._on_hello,
            Type.ERROR: self._on_error,
            Type.ECHO_REQUEST: self._on_echo_request,
            Type.PACKET_IN: self._on_packet_in,
            Type.FLOW_REMOVED: self._on_flow_removed,
            Type.PORT_STATUS: self._on_port_status,
            Type.ROLE_STATUS: self._on_role_status,
            Type.BUNDLE_CONTROL: self._on_bundle_control,
            Type.FEATURES_REPLY: self._on_reply,
            Type.ROLE_REPLY: self._on_reply,
            Type.BARRIER_REPLY: self._on_reply,
            Type.MULTIPART_REPLY: self._on_multipart,
        }

    def __str__(self) -> str:
        return f"{self.peer_name or 'unknown peer'} at {self.address}"

    # -- the connection ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello and start the clocks."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self.limits.high_water)
        peer = transport.get_extra_info("peername")
        self.address = f"{peer[0]}:{peer[1]}" if peer else "?"
        self.peer_name = common_name(transport.get_extra_info("peercert"))
        self._heard = self._loop.time()
        self._write(codec.hello(self._next_xid()))
        self._timers = [
            self._loop.call_later(self.limits.handshake, self._handshake_over),
            self._loop.call_later(self.limits.echo_interval, self._tick),
        ]

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what is awaited and tell the owner."""
        for timer in self._timers:
            timer.cancel()
        reason = self.closing or (f"{exc}" if exc else "closed by the switch")
        gone = SessionClosed(f"{self}: {reason}")
        requests, self._requests = self._requests, {}
        for request in requests.values():
            request.failed(gone)
        commits, self._commits = self._commits, {}
        for commit in commits:
            if not commit.future.done():
                commit.future.set_exception(gone)
        self._deliver("lost", reason)

    def pause_writing(self) -> None:
        """The switch reads more slowly than we write."""
        self._paused = True

    def resume_writing(self) -> None:
        """The queue is short again."""
        self._paused = False

    @property
    def congested(self) -> bool:
        """Whether what is sent now would wait behind much else."""
        return self._paused or len(self._backlog) > self.limits.max_backlog

    def close(self, reason: str) -> None:
        """End the connection after what is queued has been sent."""
        if self._transport and not self.closing:
            self.closing = reason
            self._transport.close()

    def drop(self, reason: str) -> None:
        """End the connection now."""
        if self._transport and not self._transport.is_closing():
            self.closing = self.closing or reason
            self._transport.abort()

    def _violated(self, reason: str) -> None:
        LOG.warning("dropped %s: %s", self, reason)
        self._deliver("violated", reason)
        self.drop(reason)

    def _handshake_over(self) -> None:
        if self.datapath_id is None:
            self._violated(f"no complete handshake within {self.limits.handshake:g} s")

    def _tick(self) -> None:
        silent = self._loop.time() - self._heard
        if silent >= self.limits.silence:
            LOG.warning("dropped %s: silent for %.0f s", self, silent)
            self.drop(f"silent for {silent:.0f} s")
            return
        if self._negotiated and silent >= self.limits.echo_interval * 0.9:
            self._write(codec.echo_request(self._next_xid()))
        self._timers[1] = self._loop.call_later(self.limits.echo_interval, self._tick)

    def _next_xid(self) -> int:
        self._xid = self._xid % _XIDS + 1
        return self._xid

    def _write(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() > self.limits.max_queued:
            LOG.warning("dropped %s: does not read, %d bytes are queued", self, self.limits.max_queued)
            self.drop("does not read what it is sent")
            return
        self._transport.write(data)

    # -- input ---------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take bytes, handle every message that is complete."""
        self._heard = self._loop.time()
        self._input += data
        offset = 0
        try:
            while len(self._input) - offset >= guard.HEADER_SIZE and not self.closing:
                version, kind, length, _ = guard.HEADER.unpack_from(self._input, offset)
                self._check_header(version, kind, length)
                if len(self._input) - offset < length:
                    break
                message = bytes(self._input[offset : offset + length])
                offset += length
                guard.check(kind, message)
                self._handle(kind, message)
        except Violation as violation:
            self._violated(str(violation))
        del self._input[:offset]

    def _check_header(self, version: int, kind: int, length: int) -> None:
        if length < guard.HEADER_SIZE:
            raise Violation(f"a message of type {kind} has length {length}")
        if self.datapath_id is None and length > guard.MAX_BEFORE_IDENTIFIED:
            raise Violation(f"a message of {length} bytes before the handshake was complete")
        if self._negotiated:
            if version != guard.VERSION:
                raise Violation(f"version {version:#x} after OpenFlow 1.5 was agreed")
        elif kind not in (Type.HELLO, Type.ERROR):
            raise Violation(f"a message of type {kind} before HELLO")
        elif version == 0:
            raise Violation("version 0")

    def _handle(self, kind: int, message: bytes) -> None:
        handler = self._handlers.get(kind)
        if handler is not None:
            handler(message)

    def _deliver(self, event: str, *arguments: object) -> None:
        try:
            getattr(self.events, event)(self, *arguments)
        except Exception:
            LOG.exception("handler %s failed for %s", event, self)
            self.events.handler_failed(self, event)

    def _on_hello(self, message: bytes) -> None:
        if self._negotiated:
            raise Violation("a second HELLO")
        versions = codec.read_hello(message)
        if guard.VERSION not in versions:
            offered = ", ".join(f"{version:#x}" for version in sorted(versions))
            reason = f"offers OpenFlow versions {offered}, not 0x6: allow OpenFlow15 in the bridge's protocols"
            self._write(codec.hello_failed("this controller speaks OpenFlow 1.5 only", self._next_xid()))
            raise Violation(reason)
        self._negotiated = True
        xid = self._next_xid()
        self._requests[xid] = _Request((Type.FEATURES_REPLY,), self._on_features, self._handshake_failed)
        self._write(codec.features_request(xid))

    def _on_features(self, message: bytes) -> None:
        features = codec.read_features(message)
        if features.auxiliary:
            raise Violation(f"auxiliary connection {features.auxiliary}: none was offered")
        self.datapath_id = features.datapath_id
        self._write(codec.set_async(self._next_xid()))
        self._deliver("identified")

    def _handshake_failed(self, error: Exception) -> None:
        if not isinstance(error, SessionClosed):
            self._violated(f"refuses to say who it is: {error}")

    def _on_echo_request(self, message: bytes) -> None:
        xid = int.from_bytes(message[4:8], "big")
        self._write(codec.echo_reply(message[8:], xid))

    def _on_packet_in(self, message: bytes) -> None:
        self._deliver("packet_in", reading.packet_in(message))

    def _on_flow_removed(self, message: bytes) -> None:
        self._deliver("flow_removed", reading.flow_removed(message))

    def _on_port_status(self, message: bytes) -> None:
        port, gone = codec.read_port_status(message)
        self._deliver("port_status", port, gone)

    def _on_role_status(self, message: bytes) -> None:
        self._deliver("role_changed", codec.read_role_status(message))

    def _on_reply(self, message: bytes) -> None:
        xid = int.from_bytes(message[4:8], "big")
        request = self._requests.pop(xid, None)
        if request is None or message[1] not in request.kinds:
            raise Violation(f"a {Type(message[1]).name} that nobody asked for")
        request.done(message)

    def _on_multipart(self, message: bytes) -> None:
        xid = int.from_bytes(message[4:8], "big")
        kind, flags = _MULTIPART.unpack_from(message, 8)
        request = self._requests.get(xid)
        if request is None or request.multipart != kind:
            raise Violation(f"a multipart reply of type {kind} that nobody asked for")
        request.parts.append(message)
        request.size += len(message)
        if request.size > self.limits.max_multipart:
            raise Violation(f"a multipart reply of more than {self.limits.max_multipart} bytes")
        if not flags & 1:
            del self._requests[xid]
            request.done(b"")

    def _on_bundle_control(self, message: bytes) -> None:
        xid = int.from_bytes(message[4:8], "big")
        if xid not in self._in_commit:
            raise Violation("a bundle reply that nobody asked for")

    def _on_error(self, message: bytes) -> None:
        error = codec.read_error(message)
        if not self._negotiated:
            raise Violation(f"refused our HELLO: {error}")
        request = self._requests.pop(error.xid, None)
        if request is not None:
            request.failed(Refused(error))
            return
        commit, command = self._in_commit.get(error.xid, (None, None))
        if commit is not None:
            commit.failures.append((command, error))
            return
        self._deliver("refused", error, self._recent.get(error.xid))

    # -- requests ------------------------------------------------------------------------------------------------

    def _ask(self, kind: Type, build: Callable[[int], bytes]) -> asyncio.Future[bytes]:
        future: asyncio.Future[bytes] = self._loop.create_future()
        if self._transport is None or self._transport.is_closing():
            future.set_exception(SessionClosed(str(self)))
            return future
        xid = self._next_xid()
        self._requests[xid] = _Request((kind,), _resolve(future), _reject(future))
        self._write(build(xid))
        return future

    async def _reply(self, future: asyncio.Future[Any]) -> Any:
        """Wait for a reply; a switch that owes one for too long is dropped."""
        try:
            async with asyncio.timeout(self.limits.reply):
                return await future
        except TimeoutError:
            self.drop(f"no reply within {self.limits.reply:g} s")
            raise SessionClosed(f"{self}: no reply within {self.limits.reply:g} s") from None

    async def barrier(self) -> None:
        """Return when the switch has done everything sent before."""
        await self._reply(self._ask(Type.BARRIER_REPLY, codec.barrier_request))

    async def request_role(self, role: int) -> Role:
        """Ask for `role` with a generation newer than the one the switch knows; returns the role it gave.

        Raises:
            Refused: another controller has taken a newer generation meanwhile.
        """
        reply = await self._reply(self._ask(Type.ROLE_REPLY, lambda xid: codec.role_request(Roles.NOCHANGE, 0, xid)))
        known = codec.read_role(reply)
        # A switch that no controller has claimed yet reports all ones, which is -1: the next one is 0.
        generation = (known.generation + (role == Roles.MASTER)) % (1 << 64)
        reply = await self._reply(self._ask(Type.ROLE_REPLY, lambda xid: codec.role_request(role, generation, xid)))
        return codec.read_role(reply)

    def _collect(
        self, kind: Multipart, done: Callable[[list[bytes]], None], failed: Callable[[Exception], None]
    ) -> None:
        if self._transport is None or self._transport.is_closing():
            failed(SessionClosed(str(self)))
            return
        xid = self._next_xid()
        request = _Request((Type.MULTIPART_REPLY,), lambda _: done(request.parts), failed, kind)
        self._requests[xid] = request
        self._write(codec.multipart_request(kind, xid))

    def fetch_ports(self, done: Callable[[list[Port]], None], failed: Callable[[Exception], None]) -> None:
        """Ask for the ports. `done` is called in the order of the wire: a later port status comes after it."""
        self._collect(
            Multipart.PORT_DESC,
            lambda parts: self._guarded("ports", done, [port for part in parts for port in codec.read_ports(part)]),
            failed,
        )

    def fetch_dump(self, done: Callable[[Dump], None], failed: Callable[[Exception], None]) -> None:
        """Ask for meters, groups and flows. `done` is called in the order of the wire, as with `fetch_ports`."""
        meters: set[int] = set()
        groups: set[int] = set()

        def flows(parts: list[bytes]) -> None:
            found = tuple(flow for part in parts for flow in reading.flows(part))
            self._guarded("dump", done, Dump(found, frozenset(groups), frozenset(meters)))

        def ignore(_: Exception) -> None:
            """The first request has failed already, or the connection is gone."""

        self._collect(Multipart.METER_DESC, lambda parts: meters.update(_flat(reading.meters, parts)), failed)
        self._collect(Multipart.GROUP_STATS, lambda parts: groups.update(_flat(reading.groups, parts)), ignore)
        self._collect(Multipart.FLOW_DESC, flows, ignore)

    def _guarded(self, what: str, done: Callable[..., None], *arguments: object) -> None:
        try:
            done(*arguments)
        except Exception:
            LOG.exception("handler %s failed for %s", what, self)
            self.events.handler_failed(self, what)

    # -- commands ------------------------------------------------------------------------------------------------

    def send(self, commands: Iterable[Command], packet: PacketOut | None = None) -> int:
        """Send commands one by one, in order, then `packet`; errors come as `refused`. Returns the message count."""
        out: list[bytes] = []
        for command in commands:
            for kind, body in wire.encode_command(command):
                xid = self._next_xid()
                self._remember(xid, command)
                out.append(wire.message(kind, body, xid))
        if packet is not None:
            out.append(wire.encode_packet_out(packet, self._next_xid()))
        if out:
            self._emit(b"".join(out))
        return len(out)

    def _remember(self, xid: int, command: Command) -> None:
        self._recent[xid] = command
        if len(self._recent) > 4096:
            del self._recent[next(iter(self._recent))]

    def commit(self, commands: Iterable[Command]) -> asyncio.Future[None]:
        """Send commands as one atomic, ordered bundle; new meters go before it, meters that end and flushes after it.

        Calls of `send` and `commit` keep their order. The future ends when the switch has done everything, or with
        `CommitFailed` or `SessionClosed`.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        if self._transport is None or self._transport.is_closing():
            future.set_exception(SessionClosed(str(self)))
            return future
        commit = _Commit(tuple(commands), future)
        self._commits[commit] = None
        self._emit(commit)
        return future

    def _emit(self, item: bytes | _Commit) -> None:
        """Send now, or after the bundle that is being staged."""
        if self._staging is not None:
            self._backlog.append(item)
        elif isinstance(item, bytes):
            self._write(item)
        else:
            self._stage(item)

    def _stage(self, commit: _Commit) -> None:
        """Send the bundle up to its commit.

        Open vSwitch leaves a message that it cannot take out of the bundle and commits the rest; so the commit waits
        until every message is known to have been taken.
        """
        out: list[bytes] = []
        self._plain(commit, commit.of(AddMeter), out)
        bundled = [c for c in commit.commands if not isinstance(c, AddMeter | DeleteMeter | FlushZone)]
        if not bundled:
            self._finish(commit, out)
            return
        self._bundle = commit.bundle = self._bundle % _XIDS + 1
        out.append(wire.bundle_control(commit.bundle, wire.BUNDLE_OPEN, self._xid_of(commit, None)))
        for command in bundled:
            for kind, body in wire.encode_command(command):
                out.append(wire.bundle_add(commit.bundle, kind, body, self._xid_of(commit, command)))
        self._staging = commit
        self._barrier(commit, out, self._staged)

    def _staged(self, commit: _Commit) -> None:
        """Every message of the bundle has been taken or refused: commit or discard it, then let others go on."""
        what = wire.BUNDLE_DISCARD if commit.failures else wire.BUNDLE_COMMIT
        self._staging = None
        self._finish(commit, [wire.bundle_control(commit.bundle, what, self._xid_of(commit, None))])
        while self._backlog and self._staging is None:
            self._emit(self._backlog.popleft())

    def _finish(self, commit: _Commit, out: list[bytes]) -> None:
        if not commit.failures:
            self._plain(commit, commit.of(DeleteMeter, FlushZone), out)
        self._barrier(commit, out, self._ended)

    def _plain(self, commit: _Commit, commands: list[Command], out: list[bytes]) -> None:
        for command in commands:
            for kind, body in wire.encode_command(command):
                out.append(wire.message(kind, body, self._xid_of(commit, command)))

    def _xid_of(self, commit: _Commit, command: Command | None) -> int:
        xid = self._next_xid()
        commit.xids.append(xid)
        self._in_commit[xid] = (commit, command)
        return xid

    def _barrier(self, commit: _Commit, out: list[bytes], then: Callable[[_Commit], None]) -> None:
        xid = self._next_xid()
        request = _Request((Type.BARRIER_REPLY,), lambda _: then(commit), lambda error: self._over(commit, error))
        self._requests[xid] = request
        out.append(codec.barrier_request(xid))
        self._write(b"".join(out))

    def _ended(self, commit: _Commit) -> None:
        self._over(commit, CommitFailed(commit.commands, commit.failures) if commit.failures else None)

    def _over(self, commit: _Commit, error: Exception | None) -> None:
        """The commit is over, well or not."""
        self._commits.pop(commit, None)
        for xid in commit.xids:
            self._in_commit.pop(xid, None)
        if commit.future.done():
            return
        if error is None:
            commit.future.set_result(None)
        else:
            commit.future.set_exception(error)


def _flat(read: Callable[[bytes], Iterable[int]], parts: list[bytes]) -> Iterable[int]:
    return (item for part in parts for item in read(part))


def _resolve(future: asyncio.Future[bytes]) -> Callable[[bytes], None]:
    return lambda message: None if future.done() else future.set_result(message)


def _reject(future: asyncio.Future[bytes]) -> Callable[[Exception], None]:
    return lambda error: None if future.done() else future.set_exception(error)


def common_name(certificate: dict[str, Any] | None) -> str:
    """The subject common name of a peer certificate as `ssl` reports it."""
    subject = (certificate or {}).get("subject", ())
    return next((value for part in subject for name, value in part if name == "commonName"), "")
