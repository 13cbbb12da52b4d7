# SPDX-License-Identifier: Apache-2.0
"""What the other controllers know: questions to their API over mutual TLS.

A switch is known best to its master, so what concerns the whole fleet is asked of every controller and put together by
the one that was asked. The API is the same as on the loopback; over TLS it listens to controllers only.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from typing import Any

from aiohttp import web

from ..config import Config, Peer
from ..controller.peers import client_context
from ..openflow.session import common_name

LOG = logging.getLogger(__name__)

ANSWER_SECONDS = 5.0
"""How much longer than asked for an answer may take."""


class Others:
    """The other controllers of the fleet."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._peers = [peer for peer in config.controllers if peer.name != config.name]
        self._context: ssl.SSLContext | None = None

    async def ask(self, path: str, body: object, seconds: float) -> list[dict[str, Any]]:
        """The answers of those that answer; a controller that is gone has no switches either."""
        if not self._peers:
            return []
        self._context = self._context or client_context(self._config.pki)
        answers = await asyncio.gather(*(self._ask(peer, path, body, seconds) for peer in self._peers))
        return [answer for answer in answers if answer is not None]

    async def _ask(self, peer: Peer, path: str, body: object, seconds: float) -> dict[str, Any] | None:
        try:
            async with asyncio.timeout(seconds + ANSWER_SECONDS):
                return await self._answer(peer, path, json.dumps(body).encode())
        except (OSError, TimeoutError, ValueError) as error:
            LOG.info("controller %s does not answer %s: %s", peer.name, path, error or "no answer in time")
            return None

    async def _answer(self, peer: Peer, path: str, body: bytes) -> dict[str, Any]:
        # By hand: an HTTP client does not show the certificate before it has sent its question.
        reader, writer = await asyncio.open_connection(peer.address, peer.api_port, ssl=self._context)
        try:
            name = common_name(writer.get_extra_info("peercert"))
            if name != peer.name:
                raise ConnectionError(f"{peer.address}:{peer.api_port} is {name!r}")
            head = f"POST {path} HTTP/1.1\r\nHost: {peer.name}\r\nContent-Type: application/json\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
            status, _, rest = (await reader.read(-1)).partition(b"\r\n")
            if status.split()[1:2] != [b"200"]:
                raise ConnectionError(status.decode(errors="replace"))
            answer: dict[str, Any] = json.loads(rest.partition(b"\r\n\r\n")[2])
            return answer
        finally:
            writer.transport.abort()


def controllers_only(config: Config) -> Any:
    """A middleware that answers on the loopback everybody, over TLS the controllers of the fleet."""
    names = {peer.name for peer in config.controllers}

    @web.middleware
    async def check(request: web.Request, handler: Any) -> web.StreamResponse:
        transport = request.transport
        if transport is None or transport.get_extra_info("sslcontext") is not None:
            name = common_name(transport.get_extra_info("peercert")) if transport else ""
            if name not in names:
                LOG.warning("refused %r a question to the API: it is none of [[controllers]]", name)
                raise web.HTTPForbidden(text="controllers only\n")
        response: web.StreamResponse = await handler(request)
        return response

    return check
