# SPDX-License-Identifier: Apache-2.0
"""The listening side: mutual TLS, one `Session` per connection that has shown a certificate of the fleet."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import cast

from .doorkeeper import Doorkeeper
from .events import Events, Limits
from .session import Session, address_of

LOG = logging.getLogger(__name__)


def tls_context(ca: Path, certificate: Path, private_key: Path) -> ssl.SSLContext:
    """A server context that demands a certificate of the fleet's CA.

    Raises:
        OSError: a file cannot be read or is not what it should be (`ssl.SSLError` is one).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cafile=str(ca))
    context.load_cert_chain(str(certificate), str(private_key))
    return context


class _Door(asyncio.Protocol):
    """A connection before TLS. asyncio's own TLS server would not say who was turned away, and why."""

    def __init__(self, context: ssl.SSLContext, events: Events, limits: Limits, keeper: Doorkeeper) -> None:
        self._context = context
        self._keeper = keeper
        self._events = events
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the TLS handshake."""
        plain = cast(asyncio.Transport, transport)
        address = address_of(plain)
        refusal = self._keeper.enter(address, self._loop.time())
        if refusal:
            LOG.debug("turned away %s before its handshake: %s", address, refusal)
            plain.abort()
            self._events.turned_away(address, refusal)
            return
        plain.pause_reading()  # what the peer has sent already belongs to TLS
        self._task = self._loop.create_task(self._enter(plain))

    async def _enter(self, plain: asyncio.Transport) -> None:
        address = address_of(plain)
        session = Session(self._events, self._limits, self._keeper)
        try:
            secure = await self._loop.start_tls(
                plain, session, self._context, server_side=True, ssl_handshake_timeout=self._limits.handshake
            )
        except (TimeoutError, OSError) as error:
            plain.abort()
            reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or str(error) or "closed"
            LOG.warning("turned away %s: no TLS with a certificate of the fleet: %s", address, reason)
            self._events.turned_away(address, reason)
            return
        finally:
            self._keeper.leave(address)
        if secure is None:  # the peer left while its handshake ended
            return
        session.connection_made(secure)


async def listen(
    host: str, port: int, context: ssl.SSLContext, events: Events, limits: Limits | None = None
) -> asyncio.Server:
    """Accept switches on `host`:`port`."""
    chosen = limits or Limits()
    keeper = Doorkeeper(chosen)
    return await asyncio.get_running_loop().create_server(
        lambda: _Door(context, events, chosen, keeper), host, port, backlog=1024, reuse_address=True
    )
