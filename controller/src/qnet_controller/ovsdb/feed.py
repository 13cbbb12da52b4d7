# SPDX-License-Identifier: Apache-2.0
"""The intent database as a stream of changes.

The `ovs` library's IDL blocks, so it runs in a thread of its own and hands immutable changes to the event loop. While
no database can be reached the model stays as it was.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import ovs.db.idl
import ovs.poller
import ovs.stream

from ..model.objects import Address, Change, Object, Removed
from . import rows
from .rows import CONVERTERS, MalformedRow

LOG = logging.getLogger(__name__)

# A change of name in these is seen in the keys of the rows that refer to them.
_NAMING = frozenset({"Network", "Security_Group", "Service", "Pod"})


HOLD = "hold"
"""The option of QNet_Global that says `true` while the database is filled from nothing."""
ANSWER_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Delta:
    """What changed in one or more transactions; the first one after the start is everything."""

    changes: tuple[Change, ...]
    generation: int
    malformed: int


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of the client side of `ssl:` remotes."""

    ca: Path
    certificate: Path
    private_key: Path


class Translator:
    """Follows rows and says which objects of the model changed. Needs no connection, so tests drive it directly."""

    def __init__(self) -> None:
        self._known: dict[UUID, Object] = {}
        self._holder: dict[tuple[type[Object], str], UUID] = {}
        self._address: dict[UUID, tuple[UUID, Address]] = {}
        self._addresses_of: dict[UUID, set[UUID]] = defaultdict(set)
        self.malformed: dict[UUID, str] = {}

    def translate(self, tables: Any, touched: set[tuple[str, UUID]] | None) -> tuple[Change, ...]:
        """The changes caused by the touched rows, or by everything when `touched` is None."""
        if touched is None:
            touched = {(name, key) for name in tables for key in tables[name].rows}
            touched |= {(_table_of(item), key) for key, item in self._known.items()}
            touched |= {("Pod_Address", key) for key in self._address}
            touched |= {("", key) for key in self.malformed}
        changed: dict[tuple[type[Object], str], Object | None] = {}
        pods: set[UUID] = set()
        for key in (key for name, key in touched if name == "Pod_Address"):
            pods |= self._read_address(tables, key)
        for name, key in touched | {("Pod", key) for key in pods}:
            if name in CONVERTERS:
                self._read(name, key, tables[name].rows.get(key), changed)
            elif not name:
                self._forget_malformed(tables, key)
        removed = [Removed(kind, key) for (kind, key), item in changed.items() if item is None]
        return (*removed, *(item for item in changed.values() if item is not None))

    def _forget_malformed(self, tables: Any, key: UUID) -> None:
        if not any(key in tables[name].rows for name in tables):
            self.malformed.pop(key, None)

    def _read_address(self, tables: Any, key: UUID) -> set[UUID]:
        """Take over a row of Pod_Address; returns the pods it belonged and belongs to."""
        pods: set[UUID] = set()
        old = self._address.pop(key, None)
        if old is not None:
            pods.add(old[0])
            self._addresses_of[old[0]].discard(key)
        self.malformed.pop(key, None)
        row = tables["Pod_Address"].rows.get(key)
        if row is None:
            return pods
        try:
            if row.pod is None or isinstance(row.pod, list):
                raise MalformedRow("pod refers to nothing")
            self._address[key] = (row.pod.uuid, rows.address(row.address))
        except MalformedRow as error:
            self._complain("Pod_Address", key, row, error)
            return pods
        self._addresses_of[row.pod.uuid].add(key)
        return pods | {row.pod.uuid}

    def _read(self, table: str, key: UUID, row: Any, changed: dict[tuple[type[Object], str], Object | None]) -> None:
        kind, convert = CONVERTERS[table]
        self.malformed.pop(key, None)
        item: Object | None = None
        if row is not None:
            try:
                if table == "Pod":
                    item = convert(row, [self._address[a][1] for a in self._addresses_of.get(key, ())])
                else:
                    item = convert(row)
            except (MalformedRow, TypeError, AttributeError) as error:
                self._complain(table, key, row, error)
        old = self._known.pop(key, None)
        if old is not None and self._holder.get((kind, old.key)) == key:
            del self._holder[kind, old.key]
            changed.setdefault((kind, old.key), None)
        if item is not None:
            self._known[key] = item
            self._holder[kind, item.key] = key
            changed[kind, item.key] = item
        if item is not None and item == old:
            del changed[kind, item.key]

    def _complain(self, table: str, key: UUID, row: Any, error: Exception) -> None:
        name = getattr(row, "name", None) or getattr(row, "address", None) or key
        self.malformed[key] = f"{table} {name}: {error}"
        LOG.warning("left out a row of the intent database: %s", self.malformed[key])

    @property
    def count(self) -> int:
        """How many rows are known, well-formed or not."""
        return len(self._known) + len(self._address) + len(self.malformed)


def _table_of(item: Object) -> str:
    return next(name for name, (kind, _) in CONVERTERS.items() if kind is type(item))


class _Idl(ovs.db.idl.Idl):  # type: ignore[misc]
    """An IDL that remembers which rows were touched; None when everything may have been."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.touched: set[tuple[str, UUID]] | None = None
        self._seen: set[UUID] = set()

    def notify(self, event: str, row: Any, updates: Any = None) -> None:
        """Called by the IDL for each row in an update."""
        table = row._table.name
        if event == ovs.db.idl.ROW_CREATE:
            if row.uuid in self._seen:  # the IDL has dropped its copy and reads everything again
                self.touched = None
            self._seen.add(row.uuid)
        elif event == ovs.db.idl.ROW_DELETE:
            self._seen.discard(row.uuid)
        elif table in _NAMING and updates is not None and _renamed(updates):
            self.touched = None
        if self.touched is not None:
            self.touched.add((table, row.uuid))

    def take(self) -> set[tuple[str, UUID]] | None:
        """What was touched since the last call."""
        touched, self.touched = self.touched, set()
        rows_held = sum(len(table.rows) for table in self.tables.values())
        if touched is None or rows_held != len(self._seen):
            self._seen = {key for table in self.tables.values() for key in table.rows}
            return None
        return touched


def _renamed(updates: Any) -> bool:
    return bool({"name", "group", "service"} & set(updates._data))


class Feed:
    """The thread that follows the database and calls `deliver` on the event loop."""

    def __init__(self, remotes: Sequence[str], tls: Tls | None, deliver: Callable[[Delta], None]) -> None:
        self._remotes = tuple(remotes)
        self._tls = tls
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._wake_reader, self._wake_writer = os.pipe()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="intent-database", daemon=True)
        self._translator = Translator()  # outlives a failure: what has vanished meanwhile is known to have been there
        self._waiting_since: float | None = None
        self._held = False
        self.connected = False

    def start(self) -> None:
        """Begin to follow the database."""
        self._thread.start()

    async def stop(self) -> None:
        """End the thread."""
        self._stopping = True
        os.write(self._wake_writer, b"x")
        await asyncio.to_thread(self._thread.join, 5.0)

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._follow()
            except Exception:
                LOG.exception("the reader of the intent database failed; it starts again in 1 s")
                threading.Event().wait(1.0)

    def _follow(self) -> None:
        if self._tls:
            ovs.stream.Stream.ssl_set_private_key_file(str(self._tls.private_key))
            ovs.stream.Stream.ssl_set_certificate_file(str(self._tls.certificate))
            ovs.stream.Stream.ssl_set_ca_cert_file(str(self._tls.ca))
        helper = ovs.db.idl.SchemaHelper(schema_json=rows.SCHEMA)
        helper.register_all()
        idl = _Idl(",".join(self._remotes), helper, probe_interval=5000, leader_only=False)
        seqno = 0
        try:
            while not self._stopping:
                idl.run()
                self._report(idl)
                if idl.change_seqno != seqno and idl.has_ever_connected() and not self._holds(idl):
                    first, seqno = seqno == 0, idl.change_seqno
                    self._hand_over(idl, first)
                poller = ovs.poller.Poller()
                idl.wait(poller)
                self._expect_an_answer(idl, poller)
                poller.fd_wait(self._wake_reader, ovs.poller.POLLIN)
                poller.block()
        finally:
            idl.close()

    def _report(self, idl: _Idl) -> None:
        connected = idl.state == ovs.db.idl.Idl.IDL_S_MONITORING and idl._session.is_connected()
        if connected == self.connected:
            return
        self.connected = connected
        if connected:
            LOG.info("reads the intent database at %s", idl.session_name())
        else:
            LOG.warning("lost the intent database; the model stays as it is, tries %s", ", ".join(self._remotes))

    def _holds(self, idl: _Idl) -> bool:
        """Whether what the database has is not the intent: it has lost all that we know, or is filled from nothing."""
        found = list(idl.tables["QNet_Global"].rows.values())
        held = found[0].options.get(HOLD) == "true" if found else self._translator.count > 0
        if held != self._held:
            self._held = held
            why = "is being rebuilt: the model stays as it is" if held else "is complete"
            LOG.info("the intent database %s", why)
        return held

    def _expect_an_answer(self, idl: _Idl, poller: Any) -> None:
        """Ask again when the database does not say what it has: its schema may lack what this release reads.

        The library waits for ever then, and for every other answer on the way there. The schema is brought up to date
        by the role intent_database.
        """
        if idl.state == ovs.db.idl.Idl.IDL_S_MONITORING or not idl._session.is_connected():
            self._waiting_since = None
            return
        now = time.monotonic()
        self._waiting_since = self._waiting_since or now
        if now - self._waiting_since >= ANSWER_SECONDS:
            self._waiting_since = None
            LOG.error(
                "the intent database does not say what it has for %g s; if its schema is older than this release, "
                "bring it up to date with playbooks/site.yml",
                ANSWER_SECONDS,
            )
            idl.force_reconnect()
        poller.timer_wait(1000)

    def _hand_over(self, idl: _Idl, first: bool) -> None:
        translator = self._translator
        changes = translator.translate(idl.tables, idl.take())
        if not changes and not first:
            return
        rows_of_global = list(idl.tables["QNet_Global"].rows.values())
        generation = rows_of_global[0].generation if rows_of_global else 0
        delta = Delta(changes, generation, len(translator.malformed))
        try:
            self._loop.call_soon_threadsafe(self._deliver, delta)
        except RuntimeError:  # the loop has closed: the process ends
            self._stopping = True
