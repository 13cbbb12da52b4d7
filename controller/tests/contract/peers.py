# SPDX-License-Identifier: Apache-2.0
"""Both ends of a session for tests: a peer that says any bytes, and an owner that writes down what it is told."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from contract.real import Authority
from qnet_controller.openflow.codec import Role, SwitchError
from qnet_controller.openflow.events import Limits
from qnet_controller.openflow.server import listen, tls_context
from qnet_controller.openflow.session import Session
from qnet_controller.pipeline.messages import Command, FlowRemoved, PacketIn, Port, Tampered

QUICK = Limits(handshake=1.0, echo_interval=0.2, silence=0.8, reply=5.0)


def message(kind: int, body: bytes = b"", xid: int = 1, *, version: int = 6, length: int | None = None) -> bytes:
    """A message; `length` may lie."""
    return struct.pack("!BBHI", version, kind, 8 + len(body) if length is None else length, xid) + body


HELLO = message(0, bytes.fromhex("0001000800000040"))


def features(datapath_id: int, xid: int) -> bytes:
    """A FEATURES_REPLY."""
    return message(6, struct.pack("!QIBB2xII", datapath_id, 0, 254, 0, 0x4F, 0), xid)


class Owner:
    """Implements `Events`; `heard` is everything, in order, and `fail` makes the named handler raise."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []
        self.sessions: list[Session] = []
        self.fail = ""
        self._news = asyncio.Event()

    def _note(self, event: str, what: Any = None) -> None:
        self.heard.append((event, what))
        self._news.set()
        if self.fail == event:
            raise RuntimeError(f"{event} fails on purpose")

    def turned_away(self, address: str, reason: str) -> None:
        self._note("turned_away", (address, reason))

    def identified(self, session: Session) -> None:
        self.sessions.append(session)
        self._note("identified", session.datapath_id)

    def port_status(self, session: Session, port: Port, gone: bool) -> None:
        self._note("port_status", (port, gone))

    def packet_in(self, session: Session, packet: PacketIn) -> None:
        self._note("packet_in", packet)

    def shed(self, session: Session, packets: int) -> None:
        for _ in range(packets):
            self._note("shed")

    def flow_removed(self, session: Session, removed: FlowRemoved) -> None:
        self._note("flow_removed", removed)

    def tampered(self, session: Session, found: list[Tampered]) -> None:
        self._note("tampered", found)

    def role_changed(self, session: Session, role: Role) -> None:
        self._note("role_changed", role)

    def refused(self, session: Session, error: SwitchError, command: Command | None) -> None:
        self._note("refused", (error, command))

    def violated(self, session: Session, reason: str) -> None:
        self._note("violated", reason)

    def handler_failed(self, session: Session, event: str) -> None:
        self._note("handler_failed", event)

    def lost(self, session: Session, reason: str) -> None:
        self._note("lost", reason)

    def count(self, event: str) -> int:
        return sum(name == event for name, _ in self.heard)

    def last(self, event: str) -> Any:
        return [what for name, what in self.heard if name == event][-1]

    async def wait(self, event: str, times: int = 1, seconds: float = 5.0) -> Any:
        """Wait until `event` has been heard `times` times; returns the latest."""
        async with asyncio.timeout(seconds):
            while self.count(event) < times:
                self._news.clear()
                await self._news.wait()
        return self.last(event)


class Peer:
    """A TLS connection on which a test plays the switch."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def read(self, kind: int, seconds: float = 5.0) -> bytes:
        """The next message of a type; others are skipped."""
        async with asyncio.timeout(seconds):
            while True:
                head = await self.reader.readexactly(8)
                body = await self.reader.readexactly(int.from_bytes(head[2:4], "big") - 8)
                if head[1] == kind:
                    return head + body

    async def handshake(self, datapath_id: int) -> None:
        self.send(HELLO)
        request = await self.read(5)
        self.send(features(datapath_id, int.from_bytes(request[4:8], "big")))
        await self.read(28)  # set-async: the handshake is complete

    async def dropped(self, seconds: float = 5.0) -> None:
        """Wait for the end of the connection."""
        async with asyncio.timeout(seconds):
            try:
                while await self.reader.read(4096):
                    pass
            except (ConnectionError, ssl.SSLError):
                pass

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SOL_SOCKET, SO_LINGER
        self.writer.transport.abort()


class Scene:
    """A listening server, its owner, and peers."""

    def __init__(self, owner: Owner, port: int, authority: Authority) -> None:
        self.owner = owner
        self.port = port
        self.authority = authority
        self.peers: list[Peer] = []

    def client_context(self, name: str = "h1") -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(self.authority.ca)
        certificate = self.authority.directory / f"{name}.pem"
        if not certificate.exists():
            self.authority.issue(name)
        context.load_cert_chain(certificate, self.authority.directory / f"{name}.key")
        return context

    async def peer(self, name: str = "h1") -> Peer:
        peer = Peer(*await asyncio.open_connection("127.0.0.1", self.port, ssl=self.client_context(name)))
        self.peers.append(peer)
        return peer

    async def switch(self, datapath_id: int = 1) -> Peer:
        peer = await self.peer()
        await peer.handshake(datapath_id)
        return peer


@asynccontextmanager
async def scene(authority: Authority, limits: Limits = QUICK, owner: Owner | None = None) -> AsyncIterator[Scene]:
    """A server on a free port of the loopback."""
    owner = owner or Owner()
    certificate, key = authority.issue("controller")
    server = await listen("127.0.0.1", 0, tls_context(authority.ca, certificate, key), owner, limits)
    made = Scene(owner, server.sockets[0].getsockname()[1], authority)
    try:
        yield made
    finally:
        for peer in made.peers:
            peer.writer.transport.abort()
        for session in owner.sessions:
            session.drop("the test is over")
        server.close()
        await asyncio.sleep(0.01)
