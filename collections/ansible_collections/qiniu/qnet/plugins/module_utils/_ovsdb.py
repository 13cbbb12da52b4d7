# Copyright (c) qnet authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The intent database: the only place of this collection that speaks OVSDB to it.

:func:`converge` reads the intent, asks a planner what to change, and applies the plan in one transaction. If somebody
else changed the intent in between, the database says so (the generation is a prerequisite of every transaction), and
everything is read and planned again.
"""

from __future__ import annotations

import dataclasses
import os
import random
import re
import ssl
import time
import typing as t

from ansible_collections.qiniu.qnet.plugins.module_utils import _model, _parse, _plan, _rows

try:
    import ovs.db.idl
    import ovs.jsonrpc
    import ovs.poller
    import ovs.stream

    OVS_ERROR: Exception | None = None
except ImportError as error:  # reported by the module that needs it, with the package to install
    OVS_ERROR = error

DATABASE = "QNet"
DEFAULT_REMOTE = "unix:/run/qnet-database/qnet.sock"

# The option of QNet_Global that says which revision of the inventory the intent is of.
REVISION = "revision"

_MAX_REFUSALS = 5

Planner = t.Callable[[_model.State], _plan.Plan]


class DatabaseError(Exception):
    """The database could not be read or refused a change. The text says where, what, why and what to do."""


@dataclasses.dataclass(frozen=True)
class Connection:
    """How to reach the database. Remotes are OVSDB methods: ``unix:PATH``, ``ssl:ADDRESS:PORT``."""

    remotes: tuple[str, ...] = (DEFAULT_REMOTE,)
    private_key: str | None = None
    certificate: str | None = None
    ca_certificate: str | None = None
    timeout_seconds: int = 30
    revision: int | None = None  # of the inventory that the change comes from; 0: of one without, None: not of any


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a call did: the plan, the intent as it is (or would be) after it, and the generation in the database."""

    plan: _plan.Plan
    state: _model.State
    generation: int


def _check_remote(remote: str) -> None:
    method, dummy, place = remote.partition(":")
    if method == "unix" and place:
        return
    host, colon, port = place.rpartition(":")
    if method not in ("ssl", "tcp") or not colon or not port.isdecimal():
        raise ValueError("not a remote; write unix:PATH or ssl:ADDRESS:PORT")
    _parse.address(host.removeprefix("[").removesuffix("]"))  # the library does not look up names


class _Retry(Exception):
    """Somebody else was faster: plan again."""


def converge(connection: Connection, planner: Planner, check_mode: bool) -> Outcome:
    """Read, plan, apply in one transaction; again from the start when another writer came in between.

    In check mode the transaction is sent to be tried and is then abandoned by the database.
    Raises DatabaseError, IntentRefused for a revision older than that of the intent, and whatever the planner raises.
    """
    with Database(connection) as database:
        while True:
            state, generation = database.read()
            newer = database.is_newer()
            plan = planner(state)
            if not plan.changed and (check_mode or not newer):
                return Outcome(plan, plan.after, generation)
            try:
                return Outcome(plan, plan.after, database.commit(plan, dry_run=check_mode))
            except _Retry:
                database.wait_for_news()


def nothing_to_do(connection: Connection, planner: Planner, pods: t.Iterable[str]) -> Outcome | None:
    """The outcome when a planner about these pods (``group/pod``) wants no change; None when it does or refuses.

    Reads these pods only, with the networks, groups and services: on every host of a fleet, to read all pods of the
    fleet is most of the work. What else there is, a change is checked against by :func:`converge`.
    Raises DatabaseError, and IntentRefused for a revision older than that of the intent.
    """
    with Database(connection, pods) as database:
        state, generation = database.read()
        database.is_newer()
        try:
            plan = planner(state)
        except _model.IntentRefused:
            return None
    return None if plan.changed else Outcome(plan, plan.after, generation)


def read(connection: Connection) -> tuple[_model.State, int]:
    """The whole intent and its generation. Raises DatabaseError."""
    with Database(connection) as database:
        return database.read()


class Database:
    """One connection, used as a context manager. All waiting is bounded by ``timeout_seconds`` in total.

    With ``pods`` (``group/pod``) it reads no others, and nothing but what they belong to; then it is not for writing.
    """

    def __init__(self, connection: Connection, pods: t.Iterable[str] | None = None) -> None:
        self.connection = connection
        self._pods = pods
        self.deadline = time.monotonic() + connection.timeout_seconds
        self._rows = _rows.Rows()
        self._seqno = 0
        self._refusals = 0

    def __enter__(self) -> Database:
        self._set_tls()
        remotes, schema = self._find_remotes()
        helper = ovs.db.idl.SchemaHelper(schema_json=schema)
        for table, columns in _rows.COLUMNS.items():
            helper.register_columns(table, list(columns))
        # A follower will do: the generation is verified by the whole cluster, and followers that lost it are refused.
        self.idl = ovs.db.idl.Idl(",".join(remotes), helper, leader_only=False)
        if self._pods is not None:
            for table in _rows.COLUMNS.keys() - _rows.BEHIND_PODS:
                self.idl.cond_change(table, [])
            ports = sorted(map(_model.port_name_of, self._pods))
            self.idl.cond_change("Pod", [["port_name", "==", port] for port in ports])
        try:
            self._wait(self.idl.has_ever_connected, "reading the intent")
        except BaseException:
            self.idl.close()
            raise
        return self

    def __exit__(self, *dummy: object) -> None:
        self.idl.close()

    # Connecting

    def _set_tls(self) -> None:
        if not any(remote.startswith("ssl:") for remote in self.connection.remotes):
            return
        for option in ("private_key", "certificate", "ca_certificate"):
            path = getattr(self.connection, option)
            if path is None:
                raise DatabaseError(
                    f"{option}: not given, but a remote in 'database' is ssl:; give the path of the "
                    "file, or use the Unix socket on a database host"
                )
            if not os.access(path, os.R_OK):
                raise DatabaseError(
                    f"{option}: cannot read '{path}'; check that the file is there (role certificates) "
                    "and that this user may read it"
                )
        ovs.stream.Stream.ssl_set_private_key_file(self.connection.private_key)
        ovs.stream.Stream.ssl_set_certificate_file(self.connection.certificate)
        ovs.stream.Stream.ssl_set_ca_cert_file(self.connection.ca_certificate)

    def _find_remotes(self) -> tuple[list[str], t.Any]:
        """The remotes with the one that answers first, and its schema."""
        failures = []
        remotes = list(self.connection.remotes)
        for remote in remotes:
            try:
                schema = self._schema(remote)
            except (OSError, ValueError) as failure:
                failures.append(f"{remote}: {failure}")
                continue
            return [remote, *(other for other in remotes if other != remote)], schema
        raise DatabaseError(
            f"database {DATABASE} cannot be reached: {'; '.join(failures)}; check that qnet-database runs there, that "
            "'database' names it, that this user may use its socket, and that the certificates are of the same CA"
        )

    def _schema(self, remote: str) -> t.Any:
        _check_remote(remote)
        share = self._left() / len(self.connection.remotes)
        stop = time.monotonic() + share
        failure, stream = ovs.stream.Stream.open_block(ovs.stream.Stream.open(remote), int(share * 1000))
        if failure:
            raise OSError(failure, os.strerror(failure))
        rpc = ovs.jsonrpc.Connection(stream)
        try:
            schema = self._ask(rpc, ovs.jsonrpc.Message.create_request("get_schema", [DATABASE]), stop)
        finally:
            rpc.close()
        tables = schema.get("tables", {})
        for table, columns in _rows.COLUMNS.items():
            absent = [column for column in columns if column not in tables.get(table, {}).get("columns", {})]
            if absent:
                raise ValueError(
                    f"its schema {schema.get('version')} has no {table}.{absent[0]}; update the database "
                    "(role database) or this collection so that they match"
                )
        return schema

    @staticmethod
    def _ask(rpc: t.Any, request: t.Any, stop: float) -> t.Any:
        failure = rpc.send(request)
        while not failure:
            failure, reply = rpc.recv()
            if reply is not None and reply.id == request.id:
                if reply.error is not None:
                    raise ValueError(f"it does not serve {DATABASE}: {reply.error}")
                return reply.result
            if failure in (0, ovs.jsonrpc.errno.EAGAIN):
                if time.monotonic() > stop:
                    raise TimeoutError("connected, but it does not answer")
                rpc.run()
                poller = ovs.poller.Poller()
                rpc.wait(poller)
                rpc.recv_wait(poller)
                poller.timer_wait(int(max(0.0, stop - time.monotonic()) * 1000) + 1)
                poller.block()
                failure = rpc.get_status()
        if failure < 0:
            raise ConnectionError("it closed the connection; is this host's certificate signed by its CA?")
        raise OSError(failure, os.strerror(failure))

    # Waiting

    def _left(self) -> float:
        return max(0.0, self.deadline - time.monotonic())

    def _wait(self, done: t.Callable[[], bool], what: str, until: float | None = None) -> bool:
        """Run the session until ``done``. At ``until`` gives up with False; at the deadline raises DatabaseError."""
        try:
            while not done():
                self.idl.run()
                if done():
                    break
                if until is not None and time.monotonic() >= until:
                    return False
                if not self._left():
                    raise DatabaseError(
                        f"database {DATABASE} at {', '.join(self.connection.remotes)}: no success within "
                        f"{self.connection.timeout_seconds} s while {what}; check its quorum and its load, or raise "
                        "timeout_seconds"
                    )
                left = self._left() if until is None else min(self._left(), max(0.0, until - time.monotonic()))
                poller = ovs.poller.Poller()
                self.idl.wait(poller)
                poller.timer_wait(int(left * 1000) + 1)
                poller.block()
        except (ssl.SSLError, OSError) as failure:
            raise DatabaseError(
                f"database {DATABASE} at {self.idl.session_name()}: connection lost while {what}: "
                f"{failure}; check the database and its certificates"
            ) from failure
        return True

    def wait_for_news(self) -> None:
        """After a lost race: until the winner's change has come in, then a short random pause against lock-step."""
        self._wait(
            lambda: self.idl.change_seqno != self._seqno, "waiting for other writers", until=time.monotonic() + 1.0
        )
        pause = time.monotonic() + random.uniform(0, 0.02)
        self._wait(lambda: False, "waiting for other writers", until=pause)

    # Reading

    def read(self) -> tuple[_model.State, int]:
        """The intent as it is now, and its generation (0 when nothing was ever written)."""
        self._wait(self._synchronised, "reading the intent")
        if self._pods is not None:
            self._read_addresses()
        self._seqno = self.idl.change_seqno
        self._rows = _rows.Rows()
        try:
            state = self._rows.read(lambda table: self.idl.tables[table].rows.values())
        except _rows.RowUnreadable as error:
            raise DatabaseError(
                f"database {DATABASE}: {error}; it was not written by this collection: correct or delete it with "
                "ovsdb-client and run again"
            ) from error
        return state, self._generation()

    def _read_addresses(self) -> None:
        """Of the pods that have been read: only now it is known which rows are theirs."""
        wanted = [["pod", "==", ["uuid", str(row.uuid)]] for row in self.idl.tables["Pod"].rows.values()]
        if not wanted:
            return
        self.idl.cond_change("Pod_Address", wanted)
        condition = self.idl.tables["Pod_Address"].condition_state  # what cond_change returns may never be reached
        self._wait(lambda: self._synchronised() and condition.acked == wanted, "reading the addresses of pods")

    def _synchronised(self) -> bool:
        return bool(self.idl.state == ovs.db.idl.Idl.IDL_S_MONITORING)

    def _globals(self) -> t.Iterable[t.Any]:
        rows: t.Iterable[t.Any] = self.idl.tables["QNet_Global"].rows.values()
        return rows

    def _generation(self) -> int:
        return next((int(row.generation) for row in self._globals()), 0)

    def is_newer(self) -> bool:
        """Whether the change is of a newer revision of the inventory than the intent. Raises IntentRefused if older."""
        given, there = self.connection.revision, int(self._options().get(REVISION, "0"))
        if given is not None and given < there:
            raise _model.IntentRefused(
                [
                    f"revision: {given} is older than {there}, which the intent is of already; nothing was changed; "
                    "update this checkout of the inventory, or, to go back on purpose, give it a higher qnet_revision"
                ]
            )
        return given is not None and given > there

    def _options(self) -> dict[str, str]:
        return next((dict(row.options) for row in self._globals()), {})

    # Writing

    def commit(self, plan: _plan.Plan, dry_run: bool) -> int:
        """Apply a plan to what :meth:`read` returned last; returns the generation that is then in the database.

        Raises DatabaseError when the database refuses.
        """
        transaction = ovs.db.idl.Transaction(self.idl)
        transaction.dry_run = dry_run
        transaction.add_comment(
            "qnet: " + ", ".join(f"{change.action} {change.kind} {change.key}" for change in plan.changes[:20])
        )
        generation = self._generation()
        following = generation + 1 if plan.changed else generation
        self._advance(transaction, following)
        try:
            self._rows.write(plan.changes, lambda table: transaction.insert(self.idl.tables[table]))
        except _rows.ValueNotAllowed as refusal:
            transaction.abort()
            raise DatabaseError(
                f"database {DATABASE}: {refusal}; nothing was changed; update the database (role database) or this "
                "collection so that they match"
            ) from refusal
        status = transaction.commit()
        if status == transaction.INCOMPLETE:
            self._wait(lambda: transaction.commit() != transaction.INCOMPLETE, "writing the intent")
            status = transaction.commit()
        if status in (transaction.SUCCESS, transaction.UNCHANGED):
            return generation if dry_run else following
        if status in (transaction.TRY_AGAIN, transaction.ABORTED):
            raise _Retry
        self._refused(transaction.get_error())
        raise _Retry

    def _advance(self, transaction: t.Any, generation: int) -> None:
        row, newer, options = next(iter(self._globals()), None), self.is_newer(), self._options()
        if row is None:
            row = transaction.insert(self.idl.tables["QNet_Global"])
        else:
            row.verify("generation")
            row.verify("options")
        row.generation = generation
        if newer:
            row.options = {**options, REVISION: str(self.connection.revision)}

    def _refused(self, answer: str) -> None:
        """Raise DatabaseError for a refusal that planning again will not cure; return if it may."""
        if "cluster error" in answer or "not leader" in answer:
            return
        # Another writer that does not keep the generation, or two that both create its row: the news tells.
        self._refusals += 1
        soon = min(self.deadline, time.monotonic() + 0.5)
        news = self._wait(lambda: self.idl.change_seqno != self._seqno, "writing the intent", until=soon)
        if news and self._refusals < _MAX_REFUSALS:
            return
        if "read only mode" in answer:
            raise DatabaseError(
                f"database {DATABASE}: whoever asks over the network may only read; nothing was changed; delegate the "
                f"task to a host of the database and let it use {DEFAULT_REMOTE} there (no option 'database')"
            )
        names = self._rows.names()
        named = re.sub(
            r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", lambda match: names.get(match[0], "of this change"), answer
        )
        raise DatabaseError(
            f"database {DATABASE} refused the change: {named}; nothing was changed; remove the cause and run again"
        )
