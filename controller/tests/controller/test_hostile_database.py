# SPDX-License-Identifier: Apache-2.0
"""A database that says nonsense: the reader of the intent survives it."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from bench.fleet.hostile_questions import spoil

from contract.intent import fleet, insert, update
from contract.reader import Reader, following
from contract.real import QNET_SCHEMA, Database, database

LIARS, LIES = 16, 3


class Liar:
    """Stands between a reader and the database; of what the database says, `lies` messages are spoilt."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self.lies = LIES

    async def serve(self, real: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of the reader."""
        theirs, ours = await asyncio.open_unix_connection(str(real))
        asking = asyncio.ensure_future(self._pass_on(reader, ours))
        try:
            await self._spoil(theirs, writer)
        finally:
            asking.cancel()
            ours.transport.abort()
            writer.transport.abort()

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(1 << 16):
            sink.write(data)
        sink.transport.abort()

    async def _spoil(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        decoder, text = json.JSONDecoder(), ""
        while data := await source.read(1 << 16):
            text += data.decode()
            while text:
                try:
                    message, end = decoder.raw_decode(text)
                except ValueError:
                    break
                text = text[end:].lstrip()
                sink.write(self._said(message))

    def _said(self, message: dict[str, Any]) -> bytes:
        if not self.lies or self._chance.random() < 0.3:
            return json.dumps(message).encode()
        self.lies -= 1
        if self._chance.random() < 0.8:
            spoil(self._chance, message)
            return json.dumps(message, allow_nan=True).encode()
        whole = bytearray(json.dumps(message).encode())
        whole[self._chance.randrange(len(whole))] = self._chance.randrange(256)
        return bytes(whole)


@asynccontextmanager
async def lied_to(seed: int, served: Database, directory: Path) -> AsyncIterator[tuple[Liar, Reader]]:
    """A reader of the database that hears it through a liar."""
    liar, path = Liar(seed), directory / f"liar-{seed}.sock"
    running: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        with suppress(OSError, UnicodeError, asyncio.CancelledError):
            await liar.serve(served.socket, reader, writer)

    async with await asyncio.start_unix_server(accept, path), following(f"unix:{path}") as heard:
        try:
            yield liar, heard
        finally:
            for task in running:
                task.cancel()


def test_a_reader_survives_nonsense_and_hears_what_comes_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qnet_controller.ovsdb.feed.ANSWER_SECONDS", 1.0)

    async def check(served: Database) -> None:
        async with AsyncExitStack() as stack:
            scenes = [await stack.enter_async_context(lied_to(seed, served, tmp_path)) for seed in range(LIARS)]
            number = 0
            async with asyncio.timeout(100):
                while any(liar.lies for liar, _ in scenes):  # each is asked for news until it has lied enough
                    number += 1
                    served.execute(update("Pod", ["name", "==", "image-1"], weight=number % 100))
                    await asyncio.sleep(0.2)
                served.execute(insert("Security_Group", name="later", tenant="t", number=999))
                while not all("later" in heard.model.groups for _, heard in scenes):
                    await asyncio.sleep(0.1)

    with database(tmp_path, "QNet", QNET_SCHEMA) as served:
        served.execute(*fleet())
        asyncio.run(check(served))
