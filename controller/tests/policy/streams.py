# SPDX-License-Identifier: Apache-2.0
"""Runs inside a pod's network namespace: streams of small numbered records, and when the last one of each arrived.

Every pod answers on one TCP and one UDP port. Each line on standard input is a JSON object:
`{"open": [[id, protocol, address, mode, milliseconds], …]}` opens streams and answers `{id: opened}`;
`{"report": true}` answers what arrived here, `{id: [side, last arrival, records, lost, reset]}`;
`{"close": true}` forgets all streams. `mode`: 1 the client sends, 2 the server, 3 both. Times are those at which the
kernel received a packet, however late it is read, in seconds of the wall clock. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import struct
import sys
import time
from dataclasses import dataclass

TCP, UDP = 6, 17
PORT = 7000
CLIENT_SENDS, SERVER_SENDS = 1, 2
RECORD = struct.Struct("!IBBxxQ")
CONNECT_SECONDS, HELLO_SECONDS = 3.0, 0.05
STAMPED, STAMP, STAMP_SPACE = 35, struct.Struct("@qq"), 64  # SO_TIMESTAMPNS and its message, socket(7)
ADDRESS = tuple[str, int]


@dataclass(slots=True)
class Stream:
    """One end of a stream."""

    number: int
    protocol: int
    mode: int
    milliseconds: int
    client: bool
    sock: socket.socket
    peer: ADDRESS | None = None  # of a server's UDP stream, which shares its socket
    sent: int = 0
    due: float = 0.0
    last: float = 0.0
    records: int = 0
    lost: int = 0
    expected: int = 0
    reset: bool = False
    rest: bytes = b""

    def sends(self) -> bool:
        """Whether this end goes on sending; a client says hello until it was heard."""
        return bool(self.mode & (CLIENT_SENDS if self.client else SERVER_SENDS)) or (self.client and not self.records)

    def arrived(self, sequence: int, when: float) -> None:
        """Count a record."""
        self.last = max(self.last, when)
        self.records += 1
        self.lost += max(0, sequence - self.expected)
        self.expected = max(self.expected, sequence + 1)

    def send(self, now: float) -> None:
        """Send the next record. What cannot be sent now is lost, as far as UDP goes."""
        step = self.milliseconds / 1000
        greeting = self.client and not self.records and not self.mode & CLIENT_SENDS
        self.due = max(self.due + step, now - 10 * step) if not greeting else now + HELLO_SECONDS
        if greeting and self.protocol == TCP and self.sent:
            return
        record = RECORD.pack(self.number, self.mode, self.milliseconds, self.sent)
        try:
            if self.peer is not None:
                self.sock.sendto(record, self.peer)
            else:
                self.sock.send(record)
            self.sent += not greeting or self.protocol == TCP
        except BlockingIOError:
            pass
        except OSError:
            self.reset = True


class Pod:
    """All streams of a pod."""

    def __init__(self) -> None:
        self.select = selectors.DefaultSelector()
        self.streams: list[Stream] = []
        self.by_peer: dict[ADDRESS, Stream] = {}
        self.listener = socket.create_server(("", PORT), backlog=512)
        self.listener.setblocking(False)
        self.datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.datagrams.bind(("", PORT))
        self.datagrams.setblocking(False)
        self.datagrams.setsockopt(socket.SOL_SOCKET, STAMPED, 1)
        self.datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.select.register(self.listener, selectors.EVENT_READ, self.accept)
        self.select.register(self.datagrams, selectors.EVENT_READ, self.serve_datagrams)
        os.set_blocking(sys.stdin.fileno(), False)
        self.select.register(sys.stdin, selectors.EVENT_READ, self.command)
        self.input = b""
        self.ended = False

    def run(self) -> None:
        """Until the input ends."""
        print(json.dumps("ready"), flush=True)
        while not self.ended:
            now = time.monotonic()
            active = [stream for stream in self.streams if stream.sends() and not stream.reset]
            for stream in active:
                if stream.due <= now:
                    stream.send(now)
            wait = min((stream.due for stream in active), default=now + 1) - time.monotonic()
            for key, _ in self.select.select(max(0.0005, wait)):
                key.data()

    def command(self) -> None:
        """Take lines from the input."""
        data = os.read(sys.stdin.fileno(), 1 << 16)
        self.ended = not data
        self.input += data
        while b"\n" in self.input:
            line, _, self.input = self.input.partition(b"\n")
            asked = json.loads(line)
            print(json.dumps(self.answer(asked)), flush=True)

    def answer(self, asked: dict[str, list[tuple[int, int, str, int, int]]]) -> object:
        """Do what a line asks for."""
        if "report" in asked:
            return self.report()
        if "close" in asked:
            return self.close()
        return {item[0]: self.open(*item) for item in asked["open"]}

    def close(self) -> int:
        """Forget all streams, without a word to the other side."""
        count = len(self.streams)
        for stream in self.streams:
            if stream.peer is None:
                with contextlib.suppress(KeyError, ValueError):
                    self.select.unregister(stream.sock)
                stream.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                stream.sock.close()
        self.streams.clear()
        self.by_peer.clear()
        return count

    def report(self) -> dict[int, list[object]]:
        """What has arrived."""
        return {
            s.number: ["client" if s.client else "server", s.last, s.records, s.lost, s.reset] for s in self.streams
        }

    def open(self, number: int, protocol: int, address: str, mode: int, milliseconds: int) -> bool:
        """Open a stream."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM if protocol == TCP else socket.SOCK_DGRAM)
        sock.settimeout(CONNECT_SECONDS)
        try:
            sock.connect((address, PORT))
        except OSError:
            return False
        self.add(Stream(number, protocol, mode, milliseconds, True, sock))
        return True

    def add(self, stream: Stream) -> Stream:
        """Follow a stream."""
        stream.due = time.monotonic()
        self.streams.append(stream)
        if stream.peer is None:
            stream.sock.setblocking(False)
            stream.sock.setsockopt(socket.SOL_SOCKET, STAMPED, 1)
            if stream.protocol == TCP:
                stream.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.select.register(stream.sock, selectors.EVENT_READ, lambda: self.receive(stream))
        return stream

    def accept(self) -> None:
        """A client connects; its first record says what it wants."""
        sock, _ = self.listener.accept()
        self.add(Stream(-1, TCP, CLIENT_SENDS, 0, False, sock))

    def receive(self, stream: Stream) -> None:
        """Records of a stream with a socket of its own."""
        if stream.sock.fileno() < 0:  # closed by a line that came in the same round
            return
        when = 0.0
        try:
            data, notes, *_ = stream.sock.recvmsg(1 << 16, STAMP_SPACE)
            when = stamp(notes)
        except BlockingIOError:
            return
        except OSError:
            data, stream.reset = b"", True
        if not data:
            if stream.protocol == TCP or stream.reset:
                stream.reset = True
                self.select.unregister(stream.sock)
            return
        data = stream.rest + data
        whole = len(data) // RECORD.size * RECORD.size
        for number, mode, milliseconds, sequence in RECORD.iter_unpack(data[:whole]):
            if not stream.client and stream.number < 0:
                stream.number, stream.mode, stream.milliseconds = number, mode, milliseconds
            stream.arrived(sequence, when)
        stream.rest = data[whole:]

    def serve_datagrams(self) -> None:
        """Records of all UDP streams of other pods."""
        with contextlib.suppress(BlockingIOError):
            while True:
                data, notes, _, peer = self.datagrams.recvmsg(2048, STAMP_SPACE)
                number, mode, milliseconds, sequence = RECORD.unpack(data)
                stream = self.by_peer.get(peer)
                if stream is None or stream.number != number:
                    new = Stream(number, UDP, mode, milliseconds, False, self.datagrams, peer)
                    stream = self.by_peer[peer] = self.add(new)
                stream.arrived(sequence, stamp(notes))


def stamp(notes: list[tuple[int, int, bytes]]) -> float:
    """When the kernel received it, in seconds of the wall clock."""
    for level, kind, data in notes:
        if (level, kind) == (socket.SOL_SOCKET, STAMPED):
            seconds, nanoseconds = STAMP.unpack_from(data)
            return float(seconds) + nanoseconds / 1e9
    return time.time()


if __name__ == "__main__":
    Pod().run()
