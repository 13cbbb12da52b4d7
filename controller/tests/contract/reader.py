# SPDX-License-Identifier: Apache-2.0
"""A model that follows an intent database through the real feed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from qnet_controller.model.model import Model
from qnet_controller.ovsdb.feed import Delta, Feed, Tls


class Reader:
    """A model that follows a feed."""

    feed: Feed

    def __init__(self) -> None:
        self.model = Model()
        self.deltas: list[Delta] = []
        self._news = asyncio.Event()

    def deliver(self, delta: Delta) -> None:
        self.model.apply(delta.changes)
        self.deltas.append(delta)
        self._news.set()

    async def wait(self, count: int, seconds: float = 8.0) -> Delta:
        async with asyncio.timeout(seconds):
            while len(self.deltas) < count:
                self._news.clear()
                await self._news.wait()
        return self.deltas[count - 1]


@asynccontextmanager
async def following(*remotes: str, tls: Tls | None = None) -> AsyncIterator[Reader]:
    reader = Reader()
    feed = reader.feed = Feed(remotes, tls, reader.deliver)
    feed.start()
    try:
        yield reader
    finally:
        await feed.stop()


def intent(model: Model) -> dict[str, Any]:
    """Everything a model knows of intent."""
    return {
        name: dict(getattr(model, name))
        for name in ("networks", "hosts", "groups", "services", "service_ips", "pods", "exports")
    }
