# SPDX-License-Identifier: Apache-2.0
"""Long answers are worked out in a child process, so that no switch waits for them.

A fork is a copy of everything as it is at that moment: the answer is about one state of the model, whatever happens
meanwhile, and nothing has to be locked. The child only computes; it has no connection of the controller's open, so a
controller that dies is noticed at once by those at the other ends (docs/adr/0034-answers-apart.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import pickle
import signal
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

Result = TypeVar("Result")

LONGEST_SECONDS = 120
_OURS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PIPE, _LAST = 3, 1 << 20


class Failed(RuntimeError):
    """The child ended without an answer; the text says how."""


class Apart:
    """Runs functions in children, one at a time: each may take as much memory as it touches of the model."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def run(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """What `work` returns, or raises; both have to be picklable.

        Raises:
            Failed: there is no memory or descriptor for a child, it was killed, or took longer than `LONGEST_SECONDS`.
        """
        async with self._turn:
            try:
                found: Result = await _run(work, arguments)
            except OSError as error:
                raise Failed(f"the answer could not be worked out: no process for it: {error}") from error
            return found


async def _run(work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    loop = asyncio.get_running_loop()
    theirs, ours = os.pipe()
    try:
        child = os.fork()
    except OSError:
        os.close(theirs)
        os.close(ours)
        raise
    if child == 0:
        _compute(ours, work, arguments)
    os.close(ours)
    stream = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(theirs, "rb", buffering=0)
    )
    said = b""
    try:
        said = await stream.read(-1)
    finally:
        transport.close()
        if not said:  # nobody waits any more, or there is nothing to wait for
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        status = await asyncio.shield(asyncio.to_thread(_status_of, child))
    if status or not said:
        raise Failed(f"the answer could not be worked out: its process ended with status {status}")
    good, result = pickle.loads(said)
    if not good:
        raise result
    return result


def _status_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _compute(pipe: int, work: Callable[..., Any], arguments: tuple[Any, ...]) -> NoReturn:
    """The whole life of a child."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in _OURS:
            signal.signal(number, signal.SIG_DFL)
        signal.alarm(LONGEST_SECONDS)
        os.dup2(pipe, _PIPE)
        os.closerange(_PIPE + 1, _LAST)
        gc.disable()
        with os.fdopen(_PIPE, "wb", closefd=False) as out:
            out.write(_answer(work, arguments))
        status = 0
    finally:
        os._exit(status)


def _answer(work: Callable[..., Any], arguments: tuple[Any, ...]) -> bytes:
    try:
        return pickle.dumps((True, work(*arguments)))
    except Exception as error:  # whoever asked deals with it
        return pickle.dumps((False, error))
