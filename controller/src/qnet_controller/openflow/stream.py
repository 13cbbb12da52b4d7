# SPDX-License-Identifier: Apache-2.0
"""A connection as a stream of messages: framed and guarded, handled in turns that are fair among switches.

A switch that has much to say is heard for `TURN` messages or `TURN_SECONDS`; then come the others, and whatever else
the event loop has to do. While too much waits unheard, nothing more is read: the switch's own queue fills, not ours.
What is said to a switch in one round of the event loop, whoever's turn it was, goes out in one piece in the next.
"""

from __future__ import annotations

import asyncio
import logging
from time import perf_counter

from . import guard
from .events import Limits
from .guard import Violation

LOG = logging.getLogger(__name__)

TURN, TURN_SECONDS = 64, 0.00025
"""Messages of one connection, and time spent on them, after which others have their turn."""


class Stream(asyncio.Protocol):
    """The input and output of one connection. `closing` is why it ends, once it does."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.closing = ""
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._input = bytearray()
        self._output: list[bytes] = []
        self._turn_due = self._deaf = False
        self._heard = self._loop.time()

    # -- to be defined ---------------------------------------------------------------------------------------------

    def _check_header(self, version: int, kind: int, length: int) -> None:
        """Raise `Violation` when no such message may come now."""
        raise NotImplementedError

    def _handle(self, kind: int, message: bytes) -> None:
        """Take one message that has passed the guard."""
        raise NotImplementedError

    def _skips(self, data: bytearray, offset: int, length: int) -> bool:
        """Whether the message there is left unread, not even looked at by the guard."""
        return False

    def _skipped(self, messages: int) -> None:
        """So many messages of a turn have been left unread."""

    def _violated(self, reason: str) -> None:
        """The peer has broken the protocol: drop it."""
        raise NotImplementedError

    # -- input -----------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take bytes; handle the messages that are complete, now or when it is this connection's turn."""
        self._heard = self._loop.time()
        self._input += data
        # TLS may hand over bytes before it hands over the connection.
        if self._transport is not None and not self._turn_due:
            self._turn()

    def _turn(self) -> None:
        self._turn_due = False
        if self._transport is None or self._transport.is_closing():
            return
        try:
            more = self._hear()
        except Violation as violation:
            self._violated(str(violation))
            return
        if more:
            self._turn_due = True
            self._loop.call_soon(self._turn)
        if (len(self._input) > self.limits.max_unheard) != self._deaf:
            self._deaf = not self._deaf
            (self._transport.pause_reading if self._deaf else self._transport.resume_reading)()

    def _hear(self) -> bool:
        """Handle the messages of one turn; tells whether there are more."""
        data, offset, heard, skipped, until = self._input, 0, 0, 0, perf_counter() + TURN_SECONDS
        try:
            while len(data) - offset >= guard.HEADER_SIZE and not self.closing:
                version, kind, length, _ = guard.HEADER.unpack_from(data, offset)
                self._check_header(version, kind, length)
                if len(data) - offset < length:
                    return False
                if heard and (heard == TURN or perf_counter() > until):
                    return True
                heard += 1
                if self._skips(data, offset, length):
                    skipped += 1
                    offset += length
                    continue
                message = bytes(data[offset : offset + length])
                offset += length
                guard.check(kind, message)
                self._handle(kind, message)
        finally:
            del data[:offset]
            if skipped:
                self._skipped(skipped)
        return False

    # -- output ----------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send bytes, in the next round of the event loop; a switch that does not read them is dropped.

        Connections are written to in the order in which they were first given something in a round.
        """
        if not self._output:
            self._loop.call_soon(self._flush_output)
        self._output.append(data)

    def _flush_output(self) -> None:
        if self._output:
            output, self._output = self._output, []
            self._send(output[0] if len(output) == 1 else b"".join(output))

    def _send(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() > self.limits.max_queued:
            LOG.warning("dropped %s: does not read, %d bytes are queued", self, self.limits.max_queued)
            self.drop("does not read what it is sent")
            return
        self._transport.write(data)

    def close(self, reason: str) -> None:
        """End the connection after what is queued has been sent."""
        if self._transport and not self.closing:
            self.closing = reason
            self._flush_output()
            self._transport.close()

    def drop(self, reason: str) -> None:
        """End the connection now."""
        if self._transport and not self._transport.is_closing():
            self.closing = self.closing or reason
            self._flush_output()
            self._transport.abort()
