# SPDX-License-Identifier: Apache-2.0
"""The listening side: mutual TLS, one `Session` per connection."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from .events import Events, Limits
from .session import Session


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


async def listen(
    host: str, port: int, context: ssl.SSLContext, events: Events, limits: Limits | None = None
) -> asyncio.Server:
    """Accept switches on `host`:`port`."""
    limits = limits or Limits()
    return await asyncio.get_running_loop().create_server(
        lambda: Session(events, limits),
        host,
        port,
        ssl=context,
        ssl_handshake_timeout=limits.handshake,
        backlog=1024,
        reuse_address=True,
    )
