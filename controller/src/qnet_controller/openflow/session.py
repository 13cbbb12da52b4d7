# SPDX-License-Identifier: Apache-2.0
"""One OpenFlow connection: negotiation, keepalive, requests and their replies, bundles, back-pressure.

Everything runs on the event loop, in the order of the wire: what the switch said first is handled first. A peer that
breaks the protocol, falls silent or stops reading is dropped; nothing else notices.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from struct import Struct
from typing import Any, cast

from ..pipeline.messages import Command, Commands, InstalledFlow, PacketOut, Port, Traffic
from . import codec, guard, reading, wire
from .codec import Role, Roles
from .doorkeeper import Doorkeeper, Share
from .events import Dump, Events, Limits, Refused, SessionClosed
from .guard import Multipart, Type, Violation
from .outbox import Outbox
from .reading import RawDump
from .stream import Stream

LOG = logging.getLogger(__name__)

_MULTIPART = Struct("!HH")
_XIDS = wire.SAID_AGAIN - 1
PACKET_IN_MATCH, PORT_IN_MATCH = 24, 12  # where the match begins, and how far it goes with its first field, the port


@dataclass(slots=True)
class _Request:
    """A reply that is awaited: `done` gets the message, `failed` the error."""

    kinds: tuple[Type, ...]
    done: Callable[[bytes], None]
    failed: Callable[[Exception], None]
    multipart: Multipart | None = None
    parts: list[bytes] = field(default_factory=list)
    size: int = 0


class Session(Stream):
    """One connection with a switch. `datapath_id` and `peer_name` (of its certificate) are known when identified."""

    def __init__(self, events: Events, limits: Limits, doorkeeper: Doorkeeper | None = None) -> None:
        super().__init__(limits)
        self.events = events
        self.doorkeeper = doorkeeper or Doorkeeper(limits)
        self.peer_name = ""
        self.address = ""
        self.role: int = Roles.NOCHANGE  # in the order of the wire: newer than any reply that is still being awaited
        self.datapath_id: int | None = None
        self.silent = False  # dropped for saying nothing: nothing is known of the switch but that
        self._paused = False
        self._negotiated = False
        self._share = Share(limits.packet_rate, limits.packet_burst, limits.packet_trickle, self._heard)
        self._timers: list[asyncio.TimerHandle] = []
        self._xid = 0
        self._monitors = self._monitored = False
        self._requests: dict[int, _Request] = {}
        self._outbox = Outbox(self, self._loop)
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
            Type.REQUESTFORWARD: self._on_requestforward,
        }

    def __str__(self) -> str:
        return f"{self.peer_name or 'unknown peer'} at {self.address}"

    # -- the connection ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello and start the clocks."""
        if self.closing:  # lost before it was handed over
            return
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self.limits.high_water)
        self.address = address_of(transport)
        self.peer_name = common_name(transport.get_extra_info("peercert"))
        self._heard = self._loop.time()
        self.write(codec.hello(self.next_xid()))
        self._timers = [
            self._loop.call_later(self.limits.handshake, self._handshake_over),
            self._loop.call_later(self.limits.echo_interval, self._tick),
        ]
        if self._input:
            self.data_received(b"")

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what is awaited and tell the owner."""
        for timer in self._timers:
            timer.cancel()
        reason = self.closing = self.closing or (f"{exc}" if exc else "closed by the switch")
        gone = SessionClosed(f"{self}: {reason}")
        requests, self._requests = self._requests, {}
        for request in requests.values():
            request.failed(gone)
        self._outbox.fail(gone)
        self._deliver("lost", reason)

    def pause_writing(self) -> None:
        """The switch reads more slowly than we write."""
        self._paused = True

    def resume_writing(self) -> None:
        """The queue is short again."""
        self._paused = False

    @property
    def heard_at(self) -> float:
        """When anything came from the switch last, on the clock of the event loop."""
        return self._heard

    def ask_for_life(self) -> None:
        """Ask for an echo now; a switch that is there answers, and is heard."""
        if self._negotiated:
            self.write(codec.echo_request(self.next_xid()))

    @property
    def congested(self) -> bool:
        """Whether what is sent now would wait behind much else."""
        return self._paused or self._outbox.backlog > self.limits.max_backlog

    def _violated(self, reason: str) -> None:
        LOG.warning("dropped %s: %s", self, reason)
        self.doorkeeper.blame(self.address, self._loop.time())
        self._deliver("violated", reason)
        self.drop(reason)

    def _handshake_over(self) -> None:
        if self.datapath_id is None:
            self._violated(f"no complete handshake within {self.limits.handshake:g} s")

    def _tick(self) -> None:
        now, due, every = self._loop.time(), self._timers[1].when(), self.limits.echo_interval
        if now - due > every:  # it is we who were frozen: what the switch has said meanwhile waits to be read
            self._heard = max(self._heard, now - every)
        silent = now - self._heard
        if silent >= self.limits.silence:
            LOG.warning("dropped %s: silent for %.1f s", self, silent)
            self.silent = True
            self.drop(f"silent for {silent:.1f} s")
            return
        if self._negotiated and silent >= every * 0.9:
            self.write(codec.echo_request(self.next_xid()))
        self._timers[1] = self._loop.call_later(min(every, self.limits.silence - silent), self._tick)

    def next_xid(self) -> int:
        """A transaction id for the next message."""
        self._xid = self._xid % _XIDS + 1
        return self._xid

    # -- input ---------------------------------------------------------------------------------------------------

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
            self.write(codec.hello_failed("this controller speaks OpenFlow 1.5 only", self.next_xid()))
            raise Violation(reason)
        self._negotiated = True
        xid = self.next_xid()
        self._requests[xid] = _Request((Type.FEATURES_REPLY,), self._on_features, self._handshake_failed)
        self.write(codec.features_request(xid))

    def _on_features(self, message: bytes) -> None:
        features = codec.read_features(message)
        if features.auxiliary:
            raise Violation(f"auxiliary connection {features.auxiliary}: none was offered")
        self.datapath_id = features.datapath_id
        self.write(codec.set_async(self.next_xid()))
        self._deliver("identified")

    def _handshake_failed(self, error: Exception) -> None:
        if not isinstance(error, SessionClosed):
            self._violated(f"refuses to say who it is: {error}")

    def _on_echo_request(self, message: bytes) -> None:
        xid = int.from_bytes(message[4:8], "big")
        self.write(codec.echo_reply(message[8:], xid))

    def _skips(self, data: bytearray, offset: int, length: int) -> bool:
        if data[offset + 1] != Type.PACKET_IN or self._share.take(self._heard):
            return False
        if not self._share.trickles():
            return True
        matched = offset + PACKET_IN_MATCH
        port = bytes(data[matched : min(matched + PORT_IN_MATCH, offset + length)])
        return not self._share.take_trickle(port)

    def _skipped(self, messages: int) -> None:
        self._deliver("shed", messages)

    def _on_packet_in(self, message: bytes) -> None:
        self._deliver("packet_in", reading.packet_in(message))

    def _on_flow_removed(self, message: bytes) -> None:
        self._deliver("flow_removed", reading.flow_removed(message))

    def _on_port_status(self, message: bytes) -> None:
        port, gone = codec.read_port_status(message)
        self._deliver("port_status", port, gone)

    def _on_role_status(self, message: bytes) -> None:
        role = codec.read_role_status(message)
        self.role = role.role
        self._deliver("role_changed", role)

    def _on_reply(self, message: bytes) -> None:
        xid = int.from_bytes(message[4:8], "big")
        request = self._requests.pop(xid, None)
        if request is None or message[1] not in request.kinds:
            raise Violation(f"a {Type(message[1]).name} that nobody asked for")
        if message[1] == Type.ROLE_REPLY:
            self.role = codec.read_role(message).role
        request.done(message)

    def _on_multipart(self, message: bytes) -> None:
        xid = int.from_bytes(message[4:8], "big")
        kind, flags = _MULTIPART.unpack_from(message, 8)
        request = self._requests.get(xid)
        if request is None and kind == Multipart.FLOW_MONITOR and self._monitored:
            if found := list(reading.foreign_flows(message)):
                self._deliver("tampered", found)
            return
        if request is None or request.multipart != kind:
            raise Violation(f"a multipart reply of type {kind} that nobody asked for")
        request.parts.append(message)
        request.size += len(message)
        if request.size > self.limits.max_multipart:
            raise Violation(f"a multipart reply of more than {self.limits.max_multipart} bytes")
        if not flags & 1:
            del self._requests[xid]
            request.done(b"")

    def _on_requestforward(self, message: bytes) -> None:
        self._deliver("tampered", [reading.foreign_request(message)])

    def _on_bundle_control(self, message: bytes) -> None:
        xid = int.from_bytes(message[4:8], "big")
        if not self._outbox.expects(xid):
            raise Violation("a bundle reply that nobody asked for")

    def _on_error(self, message: bytes) -> None:
        error = codec.read_error(message)
        if not self._negotiated:
            raise Violation(f"refused our HELLO: {error}")
        request = self._requests.pop(error.xid, None)
        if request is not None:
            request.failed(Refused(error))
            return
        if not self._outbox.refused(error):
            self._deliver("refused", error, self._outbox.command_of(error))

    # -- requests ------------------------------------------------------------------------------------------------

    def _ask(self, kind: Type, build: Callable[[int], bytes]) -> asyncio.Future[bytes]:
        future: asyncio.Future[bytes] = self._loop.create_future()
        if self._transport is None or self._transport.is_closing():
            future.set_exception(SessionClosed(str(self)))
            return future
        xid = self.next_xid()
        self._requests[xid] = _Request((kind,), _resolve(future), _reject(future))
        self.write(build(xid))
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
        self,
        kind: Multipart,
        done: Callable[[list[bytes]], None],
        failed: Callable[[Exception], None],
        which: int = 0,
        mask: int = 0,
    ) -> None:
        if self._transport is None or self._transport.is_closing():
            failed(SessionClosed(str(self)))
            return
        xid = self.next_xid()
        request = _Request((Type.MULTIPART_REPLY,), lambda _: done(request.parts), failed, kind)
        self._requests[xid] = request
        # In the order of the commands: a dump shows what was sent before it.
        self._outbox.emit(codec.multipart_request(kind, xid, which, mask))

    def fetch_ports(self, done: Callable[[list[Port]], None], failed: Callable[[Exception], None]) -> None:
        """Ask for the ports. `done` is called in the order of the wire: a later port status comes after it."""
        self._collect(
            Multipart.PORT_DESC,
            lambda parts: self._guarded("ports", done, [port for part in parts for port in codec.read_ports(part)]),
            failed,
        )

    def fetch_dump(self, done: Callable[[Dump], None], failed: Callable[[Exception], None]) -> None:
        """Ask for meters, groups and flows. `done` is called in the order of the wire, as with `fetch_ports`."""
        meters: list[bytes] = []
        groups: list[bytes] = []

        def flows(parts: list[bytes]) -> None:
            self._guarded("dump", done, RawDump(parts, groups, [], meters).read())

        def ignore(_: Exception) -> None:
            """The first request has failed already, or the connection is gone."""

        self._outbox.emit(codec.show_ports_of_fragments(self.next_xid()))
        self._collect(Multipart.METER_DESC, meters.extend, failed)
        self._collect(Multipart.GROUP_STATS, groups.extend, ignore)
        self._collect(Multipart.FLOW_DESC, flows, ignore)

    def monitor(self, on: bool) -> None:
        """Be told of what others change, from the next command on, or no more."""
        if on == self._monitors or self._transport is None or self._transport.is_closing():
            return
        self._monitors = on
        self._monitored = True  # from now on: after the end, reports may still be on their way
        xid = self.next_xid()
        self._requests[xid] = _Request(
            (Type.MULTIPART_REPLY,), lambda _: None, self._unmonitored, Multipart.FLOW_MONITOR
        )
        self._outbox.emit(codec.monitor_request(on, xid))

    def _unmonitored(self, error: Exception) -> None:
        if not isinstance(error, SessionClosed):
            LOG.warning("%s does not report what others change in it: %s", self, error)

    async def raw_dump(self, described: Iterable[int] = ()) -> RawDump:
        """Ask for meters, groups and flows, and leave them as the switch has said them.

        Groups are counted, and `described` where their number is in it: a description must fit into a message.

        Raises:
            Refused: the switch does not say.
            SessionClosed: the connection ended first.
        """
        self._outbox.emit(codec.show_ports_of_fragments(self.next_xid()))
        kinds = (Multipart.METER_DESC, Multipart.GROUP_STATS, Multipart.FLOW_DESC)
        asked = [self._parts(kind) for kind in kinds]
        asked += [self._parts(Multipart.GROUP_DESC, number) for number in described]
        meters, groups, flows, *descriptions = await asyncio.gather(*asked)
        return RawDump(flows, groups, [part for parts in descriptions for part in parts], meters)

    async def _parts(self, kind: Multipart, which: int = 0, mask: int = 0) -> list[bytes]:
        future: asyncio.Future[list[bytes]] = self._loop.create_future()
        self._collect(
            kind,
            lambda parts: None if future.done() else future.set_result(parts),
            lambda error: None if future.done() else future.set_exception(error),
            which,
            mask,
        )
        return cast(list[bytes], await self._reply(future))

    async def raw_traffic(self) -> list[bytes]:
        """All flows with what each has carried, as the switch has said them (`reading.counted_flows`).

        Raises:
            Refused: the switch does not say.
            SessionClosed: the connection ended first.
        """
        return await self._parts(Multipart.FLOW_DESC)

    async def fetch_traffic(
        self, cookie: int = 0, mask: int = 0, *, used: bool = False
    ) -> list[tuple[InstalledFlow, Traffic]]:
        """Ask for the flows (with `mask`: those with this part of a cookie) and what each has carried.

        With `used` only those that have carried anything. A slave may ask too.

        Raises:
            Refused: the switch does not say.
            SessionClosed: the connection ended first.
        """
        parts = await self._parts(Multipart.FLOW_DESC, cookie, mask)
        return [flow for part in parts for flow in reading.counted_flows(part, used=used)]

    def _guarded(self, what: str, done: Callable[..., None], *arguments: object) -> None:
        try:
            done(*arguments)
        except Exception:
            LOG.exception("handler %s failed for %s", what, self)
            self.events.handler_failed(self, what)

    # -- commands ------------------------------------------------------------------------------------------------

    def write_barrier(self, data: bytes, passed: Callable[[], None]) -> None:
        """Send bytes and a barrier; `passed` is called when the switch has done everything."""
        xid = self.next_xid()
        self._requests[xid] = _Request((Type.BARRIER_REPLY,), lambda _: passed(), self._barrier_failed)
        self.write(data + codec.barrier_request(xid))

    def _barrier_failed(self, error: Exception) -> None:
        if not isinstance(error, SessionClosed):
            self._violated(f"refuses a barrier: {error}")

    def send(self, commands: Commands, packet: PacketOut | None = None) -> None:
        """Send commands one by one, in order, then `packet`; errors come as `refused`."""
        self._outbox.send(commands, packet)

    def commit(self, commands: Iterable[Command]) -> asyncio.Future[None]:
        """Send commands as one atomic, ordered bundle; new meters go before it, meters that end and flushes after it.

        Calls of `send` and `commit` keep their order. The future ends when the switch has done everything, or with
        `CommitFailed` or `SessionClosed`.
        """
        if self._transport is None or self._transport.is_closing():
            future: asyncio.Future[None] = self._loop.create_future()
            future.set_exception(SessionClosed(str(self)))
            return future
        return self._outbox.commit(commands)


def _resolve(future: asyncio.Future[bytes]) -> Callable[[bytes], None]:
    return lambda message: None if future.done() else future.set_result(message)


def _reject(future: asyncio.Future[bytes]) -> Callable[[Exception], None]:
    return lambda error: None if future.done() else future.set_exception(error)


def address_of(transport: asyncio.BaseTransport) -> str:
    """The peer of a connection as ADDRESS:PORT."""
    peer = transport.get_extra_info("peername")
    return f"{peer[0]}:{peer[1]}" if peer else "unknown address"


def common_name(certificate: dict[str, Any] | None) -> str:
    """The subject common name of a peer certificate as `ssl` reports it."""
    subject = (certificate or {}).get("subject", ())
    return next((value for part in subject for name, value in part if name == "commonName"), "")
