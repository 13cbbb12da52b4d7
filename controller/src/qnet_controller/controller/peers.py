# SPDX-License-Identifier: Apache-2.0
"""Which controllers are alive: every controller connects to every other and beats on the connection.

A process that dies resets its connections, which is noticed at once; a host that freezes or is cut off falls silent,
which is noticed within the probe time. Neither passes through the database, and nobody but a configured controller
with its own certificate is listened to. With the beats goes what each knows (word.py): one that we do not hear, but
another hears, is alive.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import struct
from collections.abc import Callable
from dataclasses import dataclass

from ..config import Config, Peer, Pki
from ..openflow.session import common_name
from .election import Standing
from .word import BEAT, LARGEST_FRAME, NOT_READY, PROTOCOL, READY, NoWord, Word, decode, encode

LOG = logging.getLogger(__name__)

_MOST_BYTES_AT_ONCE = 64
_BEATS_IN_PROBE = 5
_MOST_BYTES_UNREAD = 1 << 16
_TCP_INFO = struct.Struct("=24xI28xI")  # linux/tcp.h: segments not acknowledged, ms since the last acknowledgement


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds: between beats, of silence until a peer is dead, for peers to be heard of after a start, to connect."""

    beat: float = 0.2
    probe: float = 1.0
    grace: float = 3.0
    connect: float = 3.0

    @classmethod
    def of(cls, probe: float) -> Timing:
        """What goes with a probe time."""
        return cls(beat=probe / _BEATS_IN_PROBE, probe=probe, grace=3 * probe, connect=max(probe, 3.0))


class _Seen:
    """What is known of one peer.

    `ended`: its process is known to have ended, for its host says so. `line`: the connection that we beat on.
    """

    def __init__(self) -> None:
        self.line: socket.socket | None = None
        self.heard_at: float | None = None
        self.word = Word()
        self.was_ready = False
        self.ended = False
        self.connection: asyncio.StreamWriter | None = None

    def quiet_for(self, now: float, awake_since: float) -> float:
        """Seconds since it was last known to speak to us and to hear us; without a line, only the former counts."""
        if self.heard_at is None:
            return float("inf")
        silent = now - max(self.heard_at, awake_since)
        return max(silent, min(deaf_for(self.line), now - awake_since) if self.line else 0.0)


def deaf_for(line: socket.socket) -> float:
    """Seconds since the host at the other end has acknowledged anything, when it should have."""
    try:
        info = line.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    except OSError:
        return 0.0
    unacknowledged, milliseconds = _TCP_INFO.unpack(info)
    return milliseconds / 1000 if unacknowledged else 0.0


class Peers:
    """Beats to all other controllers, listens for theirs, and says when the standing of all changes.

    `own` is asked for our own word; what it hears is filled in here.
    """

    def __init__(
        self,
        config: Config,
        own: Callable[[], Word],
        changed: Callable[[Standing], None],
        timing: Timing | None = None,
    ) -> None:
        self._config = config
        self._own = own
        self._changed = changed
        self._timing = timing or Timing.of(config.probe_seconds)
        self._loop = asyncio.get_running_loop()
        self._started = self._reviewed_at = self._awake_since = self._loop.time()
        self._seen = {peer.name: _Seen() for peer in config.controllers if peer.name != config.name}
        self._set = config.members(config.controller_set)
        self._hears: frozenset[str] = frozenset()  # whoever beats, ready or not
        self._standing = Standing(frozenset({config.name, *self._seen}))
        self._behind_since: float | None = None
        self._word = Word()
        self._news = asyncio.Event()
        self._deadline: asyncio.TimerHandle | None = None
        self._server: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def live(self) -> frozenset[str]:
        """The names of the controllers that can be masters, this one included."""
        return self._standing.live

    async def start(self, server_context: ssl.SSLContext) -> None:
        """Listen for the others and begin to beat; with no other controller there is nothing to do.

        Raises:
            OSError: the address is not to be had.
        """
        if not self._seen:
            return
        own = next(peer for peer in self._config.controllers if peer.name == self._config.name)
        server_context.set_alpn_protocols([PROTOCOL])
        self._server = await asyncio.start_server(
            self._listen,
            self._config.openflow_listen.host,
            own.port,
            ssl=server_context,
            ssl_handshake_timeout=self._timing.connect,
            limit=LARGEST_FRAME,
        )
        context = client_context(self._config.pki)
        others = [peer for peer in self._config.controllers if peer.name in self._seen]
        self._tasks = [self._loop.create_task(self._beat(peer, context)) for peer in others]
        self._tasks.append(self._loop.create_task(self._watch()))

    async def stop(self) -> None:
        """Leave; the others notice at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._deadline:
            self._deadline.cancel()
        if self._server:
            self._server.close()
        for seen in self._seen.values():
            if seen.connection:
                seen.connection.transport.abort()

    # -- our beats ---------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        """Our own word may have changed: say it now."""
        own = self._own()
        hears = frozenset(name for name in self._hears if self._seen[name].word.ready)
        word = Word(own.ready and not self._behind(own), own.generation, hears, own.lacks)
        if word != self._word:
            self._word = word
            news, self._news = self._news, asyncio.Event()
            news.set()

    def _behind(self, own: Word) -> bool:
        """Whether most of the others have had newer intent than we for as long as the probe time."""
        told = [seen.word.generation for seen in self._heard()]
        newer = sum(generation is not None and generation > (own.generation or 0) for generation in told)
        if not own.ready or newer * 2 <= len(told):
            self._behind_since = None
            return False
        now = self._loop.time()
        if self._behind_since is None:
            self._behind_since = now
        return now - self._behind_since >= self._timing.probe

    def _heard(self) -> list[_Seen]:
        return [self._seen[name] for name in self._hears]

    async def _beat(self, peer: Peer, context: ssl.SSLContext) -> None:
        seen = self._seen[peer.name]
        while True:
            try:
                await self._beat_while_connected(peer, context)
            except ConnectionRefusedError:
                seen.ended = True
                self.review()
            except (OSError, TimeoutError) as error:
                seen.ended = False
                LOG.debug("controller %s at %s:%d: %s", peer.name, peer.address, peer.port, error)
            await asyncio.sleep(self._timing.beat)

    async def _beat_while_connected(self, peer: Peer, context: ssl.SSLContext) -> None:
        async with asyncio.timeout(self._timing.connect):
            reader, writer = await asyncio.open_connection(peer.address, peer.port, ssl=context)
        try:
            name = common_name(writer.get_extra_info("peercert"))
            if name != peer.name:
                LOG.warning("%s:%d is %r, not controller %s: check addresses", peer.address, peer.port, name, peer.name)
                return
            seen = self._seen[peer.name]
            seen.ended, seen.line = False, writer.get_extra_info("socket")
            closed = self._loop.create_task(reader.read(1))
            try:
                await self._speak(writer, closed)
            finally:
                closed.cancel()
                seen.line = None
        finally:
            writer.transport.abort()

    async def _speak(self, writer: asyncio.StreamWriter, closed: asyncio.Task[bytes]) -> None:
        framed, said = speaks_frames(writer), None
        while not closed.done():
            self._tell()
            news, word = self._news, self._word
            if framed:
                writer.write(BEAT if word == said else encode(word))
            else:
                writer.write(READY if word.ready else NOT_READY)
            said = word
            if writer.transport.get_write_buffer_size() > _MOST_BYTES_UNREAD:
                return  # it does not read: connect anew once it does
            await self._next_beat(closed, news)

    async def _next_beat(self, closed: asyncio.Task[bytes], news: asyncio.Event) -> None:
        told = self._loop.create_task(news.wait())
        try:
            await asyncio.wait({closed, told}, timeout=self._timing.beat, return_when=asyncio.FIRST_COMPLETED)
        finally:
            told.cancel()

    # -- their beats -------------------------------------------------------------------------------------------------

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = common_name(writer.get_extra_info("peercert"))
        seen = self._seen.get(name)
        if seen is None:
            LOG.warning("dropped %r at the controllers' port: it is none of [[controllers]]", name)
            writer.transport.abort()
            return
        if seen.connection:
            seen.connection.transport.abort()
        seen.connection, seen.ended = writer, False
        try:
            await (self._hear_frames if speaks_frames(writer) else self._hear_bytes)(reader, seen)
        except (NoWord, asyncio.LimitOverrunError) as error:
            LOG.warning("dropped controller %s: %s", name, error)
        except (OSError, asyncio.IncompleteReadError) as error:
            LOG.debug("controller %s: %s", name, error)
        finally:
            writer.transport.abort()
            if seen.connection is writer:
                seen.connection = None
                self.review()

    async def _hear_frames(self, reader: asyncio.StreamReader, seen: _Seen) -> None:
        while True:
            size = int.from_bytes(await reader.readexactly(4), "big")
            if size > LARGEST_FRAME:
                raise NoWord(f"a frame of {size} bytes")
            self._heard_from(seen, decode(await reader.readexactly(size)) if size else seen.word)

    async def _hear_bytes(self, reader: asyncio.StreamReader, seen: _Seen) -> None:
        while data := await reader.read(_MOST_BYTES_AT_ONCE):
            if data[-1:] not in (READY, NOT_READY):
                raise NoWord(f"{data[-1:]!r} is no beat")
            self._heard_from(seen, Word(ready=data[-1:] == READY))

    def _heard_from(self, seen: _Seen, word: Word) -> None:
        seen.heard_at, seen.word = self._loop.time(), word
        seen.was_ready |= word.ready
        self.review()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._timing.beat)
            self.review()

    # -- what follows from them --------------------------------------------------------------------------------------

    def review(self) -> None:
        """Our own word, or what is known of the others, may have changed: tell them, and say when the standing has."""
        now = self._loop.time()
        if now - self._reviewed_at > self._timing.probe / 2:
            # It is we who were frozen: what the others have sent meanwhile waits to be read.
            self._awake_since = now
        self._reviewed_at = now
        self._hears = frozenset(name for name, seen in self._seen.items() if self._is_heard(seen, now))
        self._set_deadline(now)
        self._tell()
        standing = self._stand(now)
        if standing != self._standing:
            self._report(standing)

    def _stand(self, now: float) -> Standing:
        ready = {name for name in self._hears if self._seen[name].word.ready}
        vouched = {name for other in self._hears for name in self._seen[other].word.hears} & self._seen.keys()
        early = now - self._started < self._timing.grace  # perhaps all have just started: they get time to become ready
        expected = {name for name, seen in self._seen.items() if early and not seen.was_ready}
        live = ready | (vouched - self._hears - self._ended()) | expected
        if self._word.ready or not live:
            live.add(self._config.name)
        words = {self._config.name: self._word} | {name: self._seen[name].word for name in ready}
        lacks = {name: word.lacks for name, word in words.items() if word.lacks}
        unknown = self._set - live - self._hears - self._ended() - {self._config.name}
        return Standing(frozenset(live), lacks, cut_off=2 * len(unknown) > len(self._set))

    def _ended(self) -> set[str]:
        return {name for name, seen in self._seen.items() if seen.ended and seen.connection is None}

    def _is_heard(self, seen: _Seen, now: float) -> bool:
        return seen.connection is not None and seen.quiet_for(now, self._awake_since) < self._timing.probe

    def _set_deadline(self, now: float) -> None:
        """Look again at the very moment at which the next one would have been silent for too long."""
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None
        if self._hears:
            quiet = max(seen.quiet_for(now, self._awake_since) for seen in self._heard())
            self._deadline = self._loop.call_later(max(self._timing.probe - quiet, 0.0) + 0.001, self.review)

    def _report(self, standing: Standing) -> None:
        before, self._standing = self._standing, standing
        for name in sorted(before.live - standing.live - {self._config.name}):
            LOG.warning("controller %s is gone", name)
        for name in sorted(standing.live - before.live - {self._config.name}):
            LOG.info("controller %s is here", name)
        if standing.cut_off and not before.cut_off:
            LOG.warning("most controllers are silent: takes no switch from another until they are heard again")
        for name in standing.lacks.keys() | before.lacks.keys():
            if standing.lacks.get(name) != before.lacks.get(name):
                LOG.info("controller %s has no answer from %d switches", name, len(standing.lacks.get(name, ())))
        self._changed(standing)


def speaks_frames(writer: asyncio.StreamWriter) -> bool:
    """Whether both sides of a connection speak frames."""
    secure: ssl.SSLObject = writer.get_extra_info("ssl_object")
    return secure.selected_alpn_protocol() == PROTOCOL


def client_context(pki: Pki) -> ssl.SSLContext:
    """A client context for controllers: certificates of the fleet's CA; the name is compared by the caller."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.load_verify_locations(cafile=str(pki.ca))
    context.load_cert_chain(str(pki.certificate), str(pki.private_key))
    context.set_alpn_protocols([PROTOCOL])
    return context
