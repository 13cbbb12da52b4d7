# SPDX-License-Identifier: Apache-2.0
"""Which controllers are alive: every controller connects to every other and beats on the connection.

A beat is one byte, `READY` or `NOT_READY`. A process that dies resets its connections, which is noticed at once; a
host that freezes or is cut off falls silent, which is noticed within the probe time. Neither passes through the
database, and nobody but a configured controller with its own certificate is listened to.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from ..config import Config, Peer, Pki
from ..openflow.session import common_name

LOG = logging.getLogger(__name__)

READY, NOT_READY = b"\x01", b"\x00"
_MOST_BYTES_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds: between beats, of silence until a peer is dead, for peers to be heard of after a start, to connect."""

    beat: float = 0.2
    probe: float = 1.0
    grace: float = 3.0
    connect: float = 3.0


class _Seen:
    """What is known of one peer."""

    def __init__(self) -> None:
        self.heard_at: float | None = None
        self.ready = False
        self.was_ready = False
        self.connection: asyncio.StreamWriter | None = None


class Peers:
    """Beats to all other controllers, listens for theirs, and says when the set of live ones changes."""

    def __init__(
        self,
        config: Config,
        ready: Callable[[], bool],
        changed: Callable[[frozenset[str]], None],
        timing: Timing | None = None,
    ) -> None:
        self._config = config
        self._ready = ready
        self._changed = changed
        self._timing = timing or Timing()
        self._loop = asyncio.get_running_loop()
        self._started = self._reviewed_at = self._loop.time()
        self._seen = {peer.name: _Seen() for peer in config.controllers if peer.name != config.name}
        self._live: frozenset[str] = frozenset({config.name, *self._seen})
        self._server: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def live(self) -> frozenset[str]:
        """The names of the controllers that can be masters, this one included."""
        return self._live

    async def start(self, server_context: ssl.SSLContext) -> None:
        """Listen for the others and begin to beat; with no other controller there is nothing to do.

        Raises:
            OSError: the address is not to be had.
        """
        if not self._seen:
            return
        own = next(peer for peer in self._config.controllers if peer.name == self._config.name)
        self._server = await asyncio.start_server(
            self._listen,
            self._config.openflow_listen.host,
            own.port,
            ssl=server_context,
            ssl_handshake_timeout=self._timing.connect,
            limit=_MOST_BYTES_AT_ONCE,
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
        if self._server:
            self._server.close()
        for seen in self._seen.values():
            if seen.connection:
                seen.connection.transport.abort()

    # -- our beats ---------------------------------------------------------------------------------------------------

    async def _beat(self, peer: Peer, context: ssl.SSLContext) -> None:
        while True:
            try:
                await self._beat_while_connected(peer, context)
            except (OSError, TimeoutError) as error:
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
            closed = self._loop.create_task(reader.read(1))
            try:
                while not closed.done():
                    writer.write(READY if self._ready() else NOT_READY)
                    if writer.transport.get_write_buffer_size() > _MOST_BYTES_AT_ONCE:
                        return  # it does not read: connect anew once it does
                    await asyncio.wait({closed}, timeout=self._timing.beat)
            finally:
                closed.cancel()
        finally:
            writer.transport.abort()

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
        seen.connection = writer
        try:
            while data := await reader.read(_MOST_BYTES_AT_ONCE):
                last = data[-1:]
                if last not in (READY, NOT_READY):
                    LOG.warning("dropped controller %s: %r is no beat", name, last)
                    break
                seen.heard_at, seen.ready = self._loop.time(), last == READY
                seen.was_ready |= seen.ready
                self._review()
        except OSError as error:
            LOG.debug("controller %s: %s", name, error)
        finally:
            writer.transport.abort()
            if seen.connection is writer:
                seen.connection = None
                self._review()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._timing.beat)
            self._review()

    def _review(self) -> None:
        now = self._loop.time()
        if now - self._reviewed_at > self._timing.probe / 2:
            # It is we who were frozen: what the others have sent meanwhile waits to be read.
            for seen in self._seen.values():
                if seen.heard_at is not None:
                    seen.heard_at = now
        self._reviewed_at = now
        live = frozenset({self._config.name, *(name for name, seen in self._seen.items() if self._alive(seen, now))})
        if live == self._live:
            return
        for name in sorted(self._live - live):
            LOG.warning("controller %s is gone", name)
        for name in sorted(live - self._live):
            LOG.info("controller %s is here", name)
        self._live = live
        self._changed(live)

    def _alive(self, seen: _Seen, now: float) -> bool:
        if not seen.was_ready and now - self._started < self._timing.grace:
            return True  # we have just started, perhaps all have: they get the time to become ready
        if seen.heard_at is None:
            return False
        return seen.connection is not None and seen.ready and now - seen.heard_at < self._timing.probe


def client_context(pki: Pki) -> ssl.SSLContext:
    """A client context for controllers: certificates of the fleet's CA; the name is compared by the caller."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.load_verify_locations(cafile=str(pki.ca))
    context.load_cert_chain(str(pki.certificate), str(pki.private_key))
    return context
