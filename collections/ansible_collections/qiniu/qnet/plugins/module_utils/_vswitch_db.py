# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: qnet contributors
"""One connection to one OVSDB database, through the ``ovs`` library of the target.

Everything here blocks with a deadline and raises :class:`DatabaseError` with a text made for the operator.
"""

from __future__ import annotations

import errno
import os
import time
import traceback
import typing as t

try:
    import ovs.db.data
    import ovs.db.error
    import ovs.db.idl
    import ovs.jsonrpc
    import ovs.poller
    import ovs.stream
except ImportError:
    OVS_IMPORT_ERROR: str | None = traceback.format_exc()
else:
    OVS_IMPORT_ERROR = None

Result = t.TypeVar("Result")


class DatabaseError(Exception):
    """The database refused something, or answered with something unusable."""


class DatabaseUnavailable(DatabaseError):
    """Nothing answered at the address of the database in time."""


class Database:
    """A replica of the named columns of one database, and transactions on it.

    Args:
        remote: where the server listens, as ``unix:PATH`` or another method of ovsdb(7).
        name: name of the database, as in its schema.
        tables: table name to the columns wanted, an empty list means all columns.
        timeout_seconds: how long connecting, and each later call, may take.

    Raises:
        DatabaseUnavailable: nobody is there.
        DatabaseError: somebody is there, but does not answer.
    """

    def __init__(self, remote: str, name: str, tables: dict[str, list[str]], timeout_seconds: float = 10.0) -> None:
        self.remote = remote
        self.name = name
        self.timeout_seconds = timeout_seconds
        helper = ovs.db.idl.SchemaHelper(schema_json=self._fetch_schema())
        for table, columns in tables.items():
            if columns:
                helper.register_columns(table, columns)
            else:
                helper.register_table(table)
        self.idl = ovs.db.idl.Idl(remote, helper, leader_only=False)
        if not self.wait_for(lambda: self.idl.change_seqno > 0, timeout_seconds):
            raise DatabaseUnavailable(
                f"the database {name} at {remote} sent no contents within {timeout_seconds:g} s: "
                "see the log of its ovsdb-server"
            )

    def close(self) -> None:
        """Close the connection."""
        self.idl.close()

    def rows(self, table: str) -> list[t.Any]:
        """All rows of a table, in no particular order."""
        return list(self.idl.tables[table].rows.values())

    def wait_for(self, condition: t.Callable[[], bool], timeout_seconds: float) -> bool:
        """Follow the database until ``condition`` holds; false when it does not hold within the time."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            self.idl.run()
            if condition():
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            poller = ovs.poller.Poller()
            self.idl.wait(poller)
            poller.timer_wait(max(1, int(left * 1000)))
            poller.block()

    def transact(self, build: t.Callable[[t.Any], Result], dry_run: bool = False) -> tuple[Result, t.Any]:
        """Run ``build(transaction)`` and commit what it wrote, again from the start when others wrote meanwhile.

        ``build`` reads rows, calls ``verify`` on what its result depends on, and assigns through :func:`assign`.
        With ``dry_run`` the server does everything and then throws it away.

        Returns:
            what ``build`` returned the last time, and the finished transaction.

        Raises:
            DatabaseError: the server refused the transaction, or did not answer.
        """
        deadline = time.monotonic() + self.timeout_seconds
        while True:
            seqno = self.idl.change_seqno
            transaction = ovs.db.idl.Transaction(self.idl)
            transaction.dry_run = dry_run
            try:
                result = build(transaction)
            except BaseException:
                transaction.abort()
                raise
            status = self._commit(transaction, deadline)
            if status in (transaction.SUCCESS, transaction.UNCHANGED):
                return result, transaction
            if status != transaction.TRY_AGAIN:
                raise DatabaseError(f"the database {self.name} refused the transaction: {transaction.get_error()}")
            left = deadline - time.monotonic()
            if left <= 0 or not self.wait_for(lambda seen=seqno: self.idl.change_seqno != seen, left):  # type: ignore[misc]
                raise DatabaseError(
                    f"the database {self.name} at {self.remote} took no transaction within "
                    f"{self.timeout_seconds:g} s: it is being changed by others all the time, or lost its leader"
                )

    def _commit(self, transaction: t.Any, deadline: float) -> str:
        while True:
            status = transaction.commit()
            if status != transaction.INCOMPLETE:
                return t.cast(str, status)
            self.idl.run()
            poller = ovs.poller.Poller()
            self.idl.wait(poller)
            transaction.wait(poller)
            left = deadline - time.monotonic()
            if left <= 0:
                raise DatabaseError(
                    f"the database {self.name} at {self.remote} did not answer a transaction within "
                    f"{self.timeout_seconds:g} s: it may or may not have been done, run again"
                )
            poller.timer_wait(max(1, int(left * 1000)))
            poller.block()

    def _fetch_schema(self) -> dict[str, t.Any]:
        deadline = time.monotonic() + self.timeout_seconds
        problem, stream = ovs.stream.Stream.open_block(
            ovs.stream.Stream.open(self.remote), timeout=int(self.timeout_seconds * 1000)
        )
        if problem:
            raise DatabaseUnavailable(f"{self.remote}: {os.strerror(problem)}")
        connection = ovs.jsonrpc.Connection(stream)
        try:
            reply = self._ask(connection, ovs.jsonrpc.Message.create_request("get_schema", [self.name]), deadline)
        finally:
            connection.close()
        if reply.error:
            raise DatabaseUnavailable(f"{self.remote}: {reply.error}")
        return t.cast("dict[str, t.Any]", reply.result)

    def _ask(self, connection: t.Any, request: t.Any, deadline: float) -> t.Any:
        """The reply to a request; the library's own way to wait for one has no deadline."""
        problem = connection.send(request)
        while not problem:
            connection.run()
            problem, message = connection.recv()
            if message is not None and message.id == request.id:
                return message
            if problem == errno.EAGAIN:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise DatabaseError(
                        f"the database server at {self.remote} gives no answer within {self.timeout_seconds:g} s: "
                        "look at it with 'systemctl status ovsdb-server'"
                    )
                poller = ovs.poller.Poller()
                connection.wait(poller)
                connection.recv_wait(poller)
                poller.timer_wait(max(1, int(left * 1000)))
                poller.block()
                problem = connection.get_status()
        # The library says end of file as -1.
        raise DatabaseUnavailable(
            f"{self.remote}: {os.strerror(problem) if problem > 0 else 'it closed the connection'}"
        )


def assign(row: t.Any, column: str, value: t.Any) -> None:
    """Write one column, on condition that nobody else changed it since it was read.

    The library logs a value of the wrong type and goes on without it; here that is an error.

    Raises:
        DatabaseError: the value does not fit the type of the column.
    """
    column_type = row._table.columns[column].type
    try:
        ovs.db.data.Datum.from_python(column_type, value, lambda item: getattr(item, "uuid", item))
    except (ovs.db.error.Error, TypeError, AttributeError) as error:
        raise DatabaseError(f"{row._table.name}.{column}: {value!r} does not fit the column: {error}") from error
    row.verify(column)
    setattr(row, column, value)
