# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: qnet contributors
"""Find out by real packets what is reached from network namespaces of this host.

One thread for each namespace, since a thread is in one namespace only, with one event loop over all of its sockets.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import errno
import heapq
import ipaddress
import os
import resource
import selectors
import socket
import struct
import time

from ansible_collections.qiniu.qnet.plugins.module_utils import _netns

REACHABLE, REFUSED, TIMEOUT, UNREACHABLE = "reachable", "refused", "timeout", "unreachable"

_PAYLOAD = b"qnet-probe"
_ECHO = {4: (8, 0), 6: (128, 129)}  # ICMP types of echo request and reply, by IP version
_ICMP = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_SPARE_DESCRIPTORS = 100
_MAX_OUTSTANDING = 1024


@dataclasses.dataclass(frozen=True)
class Probe:
    """One question: is ``address`` reached with ``protocol`` (``icmp``, ``tcp/PORT``, ``udp/PORT``)?"""

    target: str
    address: str
    protocol: str

    @property
    def version(self) -> int:
        """IP version of the address."""
        return 6 if ":" in self.address else 4


@dataclasses.dataclass
class Answer:
    """What came of a probe. ``reason`` is the error of the system for :data:`UNREACHABLE`."""

    probe: Probe
    result: str
    attempts: int
    rtt_milliseconds: float | None = None
    reason: str | None = None

    @property
    def reached(self) -> bool:
        """Whether a packet came to the address and one came back; a refusal comes from there too."""
        return self.result in (REACHABLE, REFUSED)


@dataclasses.dataclass(frozen=True)
class Manner:
    """How to probe: time for each attempt, number of attempts, pace of each namespace, namespaces at a time."""

    timeout_seconds: float
    attempts: int
    probes_per_second: int
    parallelism: int


def parse_protocol(text: str) -> tuple[str, int]:
    """Protocol and port (0 for icmp) of ``icmp``, ``tcp/PORT`` or ``udp/PORT``.

    Raises:
        ValueError: it is none of these.
    """
    name, slash, port = text.partition("/")
    if name == "icmp" and not slash:
        return name, 0
    if name in ("tcp", "udp") and port.isascii() and port.isdigit() and 0 < int(port) < 65536:
        return name, int(port)
    raise ValueError(f"{text!r} is no protocol to probe: write icmp, tcp/PORT or udp/PORT with a port from 1 to 65535")


def probe_all(questions: dict[str, list[Probe]], manner: Manner) -> dict[str, list[Answer]]:
    """Ask from every namespace (path to its probes); the answers are in the order of the probes.

    Raises:
        NamespaceError: a namespace cannot be entered.
    """
    workers = max(1, min(manner.parallelism, len(questions)))
    outstanding = _descriptors_for_each(workers)
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        tasks = {
            path: pool.submit(_probe_from, path, probes, manner, outstanding) for path, probes in questions.items()
        }
        return {path: task.result() for path, task in tasks.items()}


def _descriptors_for_each(workers: int) -> int:
    """Sockets that a worker may hold open; raises the limit of this process as far as it is allowed to."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    if soft == resource.RLIM_INFINITY:
        return _MAX_OUTSTANDING
    return max(1, min(_MAX_OUTSTANDING, (soft - _SPARE_DESCRIPTORS) // workers))


def _probe_from(path: str, probes: list[Probe], manner: Manner, outstanding: int) -> list[Answer]:
    _netns.enter(path)
    loop = _Loop(manner, outstanding)
    try:
        return loop.run(probes)
    finally:
        loop.close()


class _Task:
    """A probe under way."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.kind, self.port = parse_protocol(probe.protocol)
        self.attempts = 0
        self.sent = 0.0
        self.socket: socket.socket | None = None
        self.answer: Answer | None = None


class _Loop:
    """The event loop of one namespace."""

    def __init__(self, manner: Manner, outstanding: int) -> None:
        self._manner = manner
        self._outstanding = outstanding
        self._selector = selectors.DefaultSelector()
        self._deadlines: list[tuple[float, int, int]] = []
        self._tasks: list[_Task] = []
        self._active = 0
        self._echo: dict[int, socket.socket] = {}
        # Tells our echoes from those of other processes of the pod, and from late ones of an earlier call.
        self._token = os.urandom(8)
        self._identifier = int.from_bytes(os.urandom(2), "big")

    def run(self, probes: list[Probe]) -> list[Answer]:
        """Ask everything and wait for the answers."""
        self._tasks = [_Task(probe) for probe in probes]
        waiting = collections.deque(range(len(self._tasks)))
        pause = 1.0 / self._manner.probes_per_second
        next_start = time.monotonic()
        while waiting or self._active:
            now = time.monotonic()
            while waiting and self._active < self._outstanding and next_start <= now:
                self._active += 1
                self._attempt(waiting.popleft())
                next_start = max(next_start + pause, now - pause)
            wakeups = [self._deadlines[0][0]] if self._deadlines else []
            if waiting and self._active < self._outstanding:
                wakeups.append(next_start)
            if wakeups:
                for key, _events in self._selector.select(max(0.0, min(wakeups) - time.monotonic())):
                    self._ready(key.data)
            self._expire(time.monotonic())
        return [task.answer for task in self._tasks if task.answer is not None]

    def close(self) -> None:
        """Close what is still open."""
        for task in self._tasks:
            self._drop(task)
        for handle in self._echo.values():
            handle.close()
        self._selector.close()

    def _attempt(self, index: int) -> None:
        task = self._tasks[index]
        task.attempts += 1
        task.sent = time.monotonic()
        try:
            getattr(self, f"_send_{task.kind}")(index, task)
        except OSError as error:
            self._failed(task, error.errno or errno.EIO)
        if task.answer is None:
            heapq.heappush(self._deadlines, (task.sent + self._manner.timeout_seconds, index, task.attempts))

    def _send_tcp(self, index: int, task: _Task) -> None:
        handle = self._open(index, task, socket.SOCK_STREAM, selectors.EVENT_WRITE)
        code = handle.connect_ex((task.probe.address, task.port))
        if code not in (0, errno.EINPROGRESS):
            self._failed(task, code)

    def _send_udp(self, index: int, task: _Task) -> None:
        handle = self._open(index, task, socket.SOCK_DGRAM, selectors.EVENT_READ)
        handle.connect((task.probe.address, task.port))
        handle.send(_PAYLOAD)

    def _send_icmp(self, index: int, task: _Task) -> None:
        version = task.probe.version
        if version not in self._echo:
            handle = socket.socket(_FAMILY[version], socket.SOCK_RAW, _ICMP[version])
            handle.setblocking(False)
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            self._echo[version] = handle
            self._selector.register(handle, selectors.EVENT_READ, -version)
        payload = self._token + struct.pack("!I", index)
        # One identifier for each target: with one for all, the echo to a Service IP and the echo to the pod that it is
        # balanced to would be the same connection to connection tracking.
        identifier = (self._identifier + index) & 0xFFFF
        header = struct.pack("!BBHHH", _ECHO[version][0], 0, 0, identifier, task.attempts)
        if version == 4:
            checksum = _checksum(header + payload)
            header = header[:2] + struct.pack("!H", checksum) + header[4:]
        self._echo[version].sendto(header + payload, (task.probe.address, 0))

    def _open(self, index: int, task: _Task, kind: int, events: int) -> socket.socket:
        self._drop(task)
        task.socket = socket.socket(_FAMILY[task.probe.version], kind)
        task.socket.setblocking(False)
        self._selector.register(task.socket, events, index)
        return task.socket

    def _drop(self, task: _Task) -> None:
        if task.socket is not None:
            self._selector.unregister(task.socket)
            task.socket.close()
            task.socket = None

    def _ready(self, data: int) -> None:
        if data < 0:
            self._read_echoes(-data)
            return
        task = self._tasks[data]
        if task.socket is None:
            return
        code = task.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code == 0 and task.kind == "udp":
            try:
                task.socket.recv(1)
            except BlockingIOError:
                return
            except OSError as error:
                code = error.errno or errno.EIO
        if code == 0:
            self._finish(task, REACHABLE)
        else:
            self._failed(task, code)

    def _read_echoes(self, version: int) -> None:
        while True:
            try:
                packet, sender = self._echo[version].recvfrom(2048)
            except BlockingIOError:
                return
            message = packet[(packet[0] & 0x0F) * 4 :] if version == 4 else packet
            if len(message) < 20 or message[0] != _ECHO[version][1] or message[8:16] != self._token:
                continue
            index = struct.unpack("!I", message[16:20])[0]
            task = self._tasks[index] if index < len(self._tasks) else None
            if task is not None and ipaddress.ip_address(sender[0]) == ipaddress.ip_address(task.probe.address):
                self._finish(task, REACHABLE)

    def _failed(self, task: _Task, code: int) -> None:
        """An error of the system: a refusal is an answer; others are final when the attempts are used up."""
        if code == errno.ECONNREFUSED:
            self._finish(task, REFUSED)
        elif task.attempts >= self._manner.attempts:
            self._finish(task, UNREACHABLE, os.strerror(code))
        else:
            self._drop(task)

    def _finish(self, task: _Task, result: str, reason: str | None = None) -> None:
        if task.answer is not None:
            return
        self._drop(task)
        self._active -= 1
        answered = result in (REACHABLE, REFUSED)
        rtt = round((time.monotonic() - task.sent) * 1000, 3) if answered else None
        task.answer = Answer(task.probe, result, task.attempts, rtt, reason)

    def _expire(self, now: float) -> None:
        while self._deadlines and self._deadlines[0][0] <= now:
            _deadline, index, attempt = heapq.heappop(self._deadlines)
            task = self._tasks[index]
            if task.answer is not None or task.attempts != attempt:
                continue
            if task.attempts >= self._manner.attempts:
                self._finish(task, TIMEOUT)
            else:
                self._attempt(index)


def _checksum(data: bytes) -> int:
    """Internet checksum, RFC 1071."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
