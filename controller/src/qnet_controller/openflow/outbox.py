# SPDX-License-Identifier: Apache-2.0
"""Commands on their way to a switch: singly or as bundles, always in the order in which they were given."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from ..pipeline.messages import (
    AddFlow,
    AddMeter,
    Command,
    Commands,
    DeleteMeter,
    FlushConnection,
    FlushZone,
    PacketOut,
    PutGroup,
)
from . import wire
from .codec import SwitchError
from .events import CommitFailed

_BUNDLES = 0xFFFFFFFF
_REMEMBERED = 1024
_AFTERWARDS = (DeleteMeter, FlushZone, FlushConnection)


class Line(Protocol):
    """What the outbox needs of its connection."""

    def next_xid(self) -> int:
        """A transaction id that no outstanding message has."""

    def write(self, data: bytes) -> None:
        """Send bytes."""

    def write_barrier(self, data: bytes, passed: Callable[[], None]) -> None:
        """Send bytes and a barrier; `passed` is called when the switch has done everything."""


@dataclass(slots=True, eq=False)
class _Commit:
    """Commands on their way as one bundle, and what the switch refused of them."""

    commands: tuple[Command, ...]
    future: asyncio.Future[None]
    bundle: int = 0
    xids: list[int] = field(default_factory=list)
    failures: list[tuple[Command | None, SwitchError]] = field(default_factory=list)

    def of(self, *kinds: type) -> list[Command]:
        """The commands of these kinds, in order."""
        return [command for command in self.commands if isinstance(command, kinds)]


class Outbox:
    """The commands of one connection."""

    def __init__(self, line: Line, loop: asyncio.AbstractEventLoop) -> None:
        self._line = line
        self._loop = loop
        self._bundle = 0
        self._in_commit: dict[int, tuple[_Commit, Command | None]] = {}
        self._commits: dict[_Commit, None] = {}
        self._staging: _Commit | None = None
        self._backlog: deque[bytes | _Commit] = deque()
        self._recent: dict[int, Command] = {}
        self._said: deque[Commands] = deque(maxlen=_REMEMBERED)

    @property
    def backlog(self) -> int:
        """How many messages wait for a bundle to be staged."""
        return len(self._backlog)

    def expects(self, xid: int) -> bool:
        """Whether a reply to this message of a bundle may come."""
        return xid in self._in_commit

    def refused(self, error: SwitchError) -> bool:
        """Take an error that belongs to a commit; False when it does not."""
        commit, command = self._in_commit.get(error.xid, (None, None))
        if commit is None:
            return False
        commit.failures.append((command, error))
        return True

    def command_of(self, error: SwitchError) -> Command | None:
        """The single command that an error is about, if it was sent lately."""
        if error.xid != wire.SAID_AGAIN:
            return self._recent.get(error.xid)
        found = (command for commands in reversed(self._said) for command in commands)
        return next((command for command in found if _begins(command, error.data)), None)

    def fail(self, error: Exception) -> None:
        """The connection is gone: nothing that waits will be done."""
        for commit in list(self._commits):
            self._over(commit, error)
        self._backlog.clear()

    def send(self, commands: Commands, packet: PacketOut | None = None) -> None:
        """Send commands one by one, in order, then `packet`; errors come as `refused`."""
        out: list[bytes] = []
        for command in commands:
            if isinstance(command, AddFlow):
                out.append(wire.flow_message(command.flow))
            elif isinstance(command, PutGroup) and not command.exists:
                out += wire.group_messages(command.group)
            else:
                for kind, body in wire.encode_command(command):
                    xid = self._line.next_xid()
                    self._remember(xid, command)
                    out.append(wire.message(kind, body, xid))
        if packet is not None:
            out.append(wire.encode_packet_out(packet, self._line.next_xid()))
        if out:
            self._said.append(commands)
            self.emit(b"".join(out))

    def _remember(self, xid: int, command: Command) -> None:
        self._recent[xid] = command
        if len(self._recent) > _REMEMBERED:
            del self._recent[next(iter(self._recent))]

    def commit(self, commands: Iterable[Command]) -> asyncio.Future[None]:
        """Send commands as one atomic, ordered bundle; new meters go before it, meters that end and flushes after it.

        Calls of `send` and `commit` keep their order. The future ends when the switch has done everything, or with
        `CommitFailed` or `SessionClosed`.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        commit = _Commit(tuple(commands), future)
        self._commits[commit] = None
        self.emit(commit)
        return future

    def emit(self, item: bytes | _Commit) -> None:
        """Send now, or after the bundle that is being staged: the switch sees everything in the order of the calls."""
        if self._staging is not None:
            self._backlog.append(item)
        elif isinstance(item, bytes):
            self._line.write(item)
        else:
            try:
                self._stage(item)
            except Exception as error:  # a command that cannot be encoded; nothing of the bundle has been sent
                self._staging = None
                self._over(item, error)

    def _stage(self, commit: _Commit) -> None:
        """Send the bundle up to its commit.

        Open vSwitch leaves a message that it cannot take out of the bundle and commits the rest; so the commit waits
        until every message is known to have been taken.
        """
        out: list[bytes] = []
        self._plain(commit, commit.of(AddMeter), out)
        bundled = [c for c in commit.commands if not isinstance(c, (AddMeter, *_AFTERWARDS))]
        if not bundled:
            self._finish(commit, out)
            return
        self._bundle = commit.bundle = self._bundle % _BUNDLES + 1
        out.append(wire.bundle_control(commit.bundle, wire.BUNDLE_OPEN, self._xid_of(commit, None)))
        for command in bundled:
            for kind, body in wire.encode_command(command):
                out.append(wire.bundle_add(commit.bundle, kind, body, self._xid_of(commit, command)))
        self._staging = commit
        self._barrier(commit, out, self._staged)

    def _staged(self, commit: _Commit) -> None:
        """Every message of the bundle has been taken or refused: commit or discard it, then let others go on."""
        what = wire.BUNDLE_DISCARD if commit.failures else wire.BUNDLE_COMMIT
        self._staging = None
        self._finish(commit, [wire.bundle_control(commit.bundle, what, self._xid_of(commit, None))])
        while self._backlog and self._staging is None:
            self.emit(self._backlog.popleft())

    def _finish(self, commit: _Commit, out: list[bytes]) -> None:
        if not commit.failures:
            self._plain(commit, commit.of(*_AFTERWARDS), out)
        self._barrier(commit, out, self._ended)

    def _plain(self, commit: _Commit, commands: list[Command], out: list[bytes]) -> None:
        for command in commands:
            for kind, body in wire.encode_command(command):
                out.append(wire.message(kind, body, self._xid_of(commit, command)))

    def _xid_of(self, commit: _Commit, command: Command | None) -> int:
        xid = self._line.next_xid()
        commit.xids.append(xid)
        self._in_commit[xid] = (commit, command)
        return xid

    def _barrier(self, commit: _Commit, out: list[bytes], then: Callable[[_Commit], None]) -> None:
        self._line.write_barrier(b"".join(out), lambda: then(commit))

    def _ended(self, commit: _Commit) -> None:
        self._over(commit, CommitFailed(commit.commands, commit.failures) if commit.failures else None)

    def _over(self, commit: _Commit, error: Exception | None) -> None:
        """The commit is over, well or not."""
        self._commits.pop(commit, None)
        for xid in commit.xids:
            self._in_commit.pop(xid, None)
        if commit.future.done():
            return
        if error is None:
            commit.future.set_result(None)
        else:
            commit.future.set_exception(error)


def _begins(command: Command, data: bytes) -> bool:
    """Whether a command that is kept as bytes begins like this; a switch repeats the first 64 bytes at least."""
    kept: tuple[bytes, ...] = ()
    if isinstance(command, AddFlow):
        kept = (command.flow.encoded,)
    elif isinstance(command, PutGroup):
        kept = command.group.encoded
    return bool(data) and any(one.startswith(data) for one in kept)
