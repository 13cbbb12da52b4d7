# SPDX-License-Identifier: Apache-2.0
"""Traffic of the drills, run on the hosts of the lab as root; stdlib only, and no thread that could be late.

`target NAMESPACE` echoes datagrams and lines of TCP until its standard input ends. `caller ADDRESS SECONDS CONNECTIONS
PERIOD NAMESPACE...` keeps a flow of datagrams and many connections going and asks for a new pair every PERIOD seconds,
until its time is over or its standard input ends, and says what it has seen as one line of JSON. When it knows all
pairs it begins again with the first: by then that one must be forgotten. Every tenth new pair is a new connection.
Times are the machine's monotonic clock, which the hosts of the lab and the control node share.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import socket
import struct
import sys
import threading
import time

UDP_PORT, TCP_PORT = 7000, 7001
CLONE_NEWNET = 0x40000000
IP_PKTINFO = 8  # linux/in.h; the socket module learns it with Python 3.14
PAIR_SECONDS = 0.01  # between two datagrams to new pairs, in the drills
CONNECT_EVERY = 10  # new pairs; the neighbours of these are looked up, so there are few of them
CONNECTS = 40
CONNECT_SECONDS = 10.0
FLOW_SECONDS = 0.005  # between two datagrams of an established pair
MOST_LATE = 10  # ticks
LINE_SECONDS = 1.0  # between two lines of one connection
PATIENCE_SECONDS = 2.0  # for the last echoes
VIRTUAL_MAC = bytes.fromhex("0a0000000001")
CLOCK = time.monotonic
_libc = ctypes.CDLL(None, use_errno=True)


def enter(namespace: str) -> None:
    """Make the network namespace the one that new sockets of this thread belong to."""
    descriptor = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
    os.close(descriptor)


def end_with_input() -> None:
    """End the process with its standard input: nothing is left on a host when a drill is broken off."""
    sys.stdin.buffer.read()
    os._exit(0)


# -- the target -------------------------------------------------------------------------------------------------------


class _Echo(asyncio.Protocol):
    """Sends back what comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[attr-defined]


def echo_datagrams(listener: socket.socket) -> None:
    """Answer every datagram from the address it was sent to."""
    while True:
        try:
            data, ancillary, _, peer = listener.recvmsg(2048, 256)
        except BlockingIOError:
            return
        info = next(value for _, kind, value in ancillary if kind == IP_PKTINFO)
        source = struct.pack("=I4s4s", 0, info[8:12], b"\0" * 4)
        try:
            listener.sendmsg([data], [(socket.IPPROTO_IP, IP_PKTINFO, source)], 0, peer)
        except OSError:
            continue  # its port is down: the caller counts it


async def target(namespace: str) -> None:
    """Serve until the input ends."""
    enter(namespace)
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    listener.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    listener.bind(("0.0.0.0", UDP_PORT))
    listener.setblocking(False)
    loop = asyncio.get_running_loop()
    loop.add_reader(listener, echo_datagrams, listener)
    await loop.create_server(_Echo, "0.0.0.0", TCP_PORT, backlog=4096)
    print("ready", flush=True)
    await asyncio.Event().wait()


# -- the caller -------------------------------------------------------------------------------------------------------


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


class Pod:
    """A pod that datagrams are sent from, as frames: no neighbour has to be found first."""

    def __init__(self, namespace: str) -> None:
        enter(namespace)
        self.frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.frames.bind(("eth0", 0))
        self.mac = self.frames.getsockname()[4]
        self.answers = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.answers.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.answers.bind(("0.0.0.0", UDP_PORT))
        self.answers.setblocking(False)
        probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        probe.connect(("10.30.255.1", 1))
        self.address = socket.inet_aton(probe.getsockname()[0])
        probe.close()

    def send(self, address: bytes, payload: bytes) -> None:
        """Send a datagram to the echo port of `address` (packed)."""
        datagram = struct.pack("!HHHH", UDP_PORT, UDP_PORT, 8 + len(payload), 0) + payload
        size = 20 + len(datagram)
        header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, size, 0, 0x4000, 64, 17, 0, self.address, address)
        header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
        self.frames.send(VIRTUAL_MAC + self.mac + b"\x08\x00" + header + datagram)


class Series:
    """Datagrams by number: when each was sent and when its echo came."""

    def __init__(self) -> None:
        self.sent: list[float] = []
        self.came: dict[int, float] = {}

    def rows(self) -> list[tuple[float, float | None]]:
        """(when sent, seconds until the echo or null)."""
        return [(at, self.came[n] - at if n in self.came else None) for n, at in enumerate(self.sent)]


class Caller:
    """All that one drill sends."""

    def __init__(self, target_address: str, namespaces: list[str]) -> None:
        prefix = socket.inet_aton(target_address)[:3]
        self.known = prefix + b"\xfa"  # the established flow goes to .250, new pairs to .1 … .249
        self.pods = [Pod(namespace) for namespace in namespaces]
        self.pairs = [(pod, prefix + bytes([last])) for last in range(1, 200) for pod in self.pods]
        self.flow, self.new = Series(), Series()
        self.connects: list[tuple[float, float | None]] = []
        self.connecting: set[asyncio.Task[None]] = set()
        self.stopped = asyncio.Event()
        self.resets: list[str] = []
        self.lines = 0
        self.slowest = 0.0
        self.open = 0

    def receive(self, answers: socket.socket) -> None:
        """Take what echoes there are."""
        while True:
            try:
                data = answers.recv(64)
            except BlockingIOError:
                return
            kind, number = struct.unpack("!cI", data[:5])
            series = self.flow if kind == b"f" else self.new
            series.came.setdefault(number, CLOCK())

    async def every(self, seconds: float, end: float, send: object) -> None:
        """Call `send(n)` at each tick until `end`, or until told to stop. A few late ticks are made up for.

        More would be a burst that overflows the queue of the pod's own port, after this process had no CPU for a while.
        """
        began, number = CLOCK(), 0
        while CLOCK() < end and not self.stopped.is_set():
            send(number)  # type: ignore[operator]
            number += 1
            late = CLOCK() - (began + number * seconds)
            began += max(0.0, late - MOST_LATE * seconds)
            await asyncio.sleep(max(0.0, -late))

    def send_flow(self, number: int) -> None:
        """The next datagram of the established pair of a pod."""
        self.flow.sent.append(CLOCK())
        self.pods[number % len(self.pods)].send(self.known, struct.pack("!cI", b"f", number))

    def send_new(self, number: int) -> None:
        """A datagram to a pair that nobody has asked for lately; now and then, a connection too."""
        pod, address = self.pairs[number % len(self.pairs)]
        self.new.sent.append(CLOCK())
        pod.send(address, struct.pack("!cI", b"n", number))
        if number % CONNECT_EVERY == 0:
            task = asyncio.create_task(self.connect(address[:3] + bytes([200 + number // CONNECT_EVERY % CONNECTS])))
            self.connecting.add(task)
            task.add_done_callback(self.connecting.discard)

    async def connect(self, address: bytes) -> None:
        """One connection from the last pod: how long it took, or null."""
        began = CLOCK()
        try:
            where = asyncio.open_connection(socket.inet_ntoa(address), TCP_PORT)
            _, writer = await asyncio.wait_for(where, CONNECT_SECONDS)
            writer.transport.abort()
            self.connects.append((began, CLOCK() - began))
        except (OSError, TimeoutError):
            self.connects.append((began, None))

    async def connection(self, address: str, index: int, total: int, end: float) -> None:
        """One connection that is used now and then; it must neither be reset nor lose a line."""
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection(address, TCP_PORT), 10)
            self.open += 1
            await asyncio.sleep(LINE_SECONDS * index / max(total, 1))
            while CLOCK() < end and not self.stopped.is_set():
                began = CLOCK()
                writer.write(b"%d\n" % self.lines)
                await asyncio.wait_for(reader.readline(), 30)
                self.lines += 1
                self.slowest = max(self.slowest, CLOCK() - began)
                await asyncio.sleep(LINE_SECONDS)
            writer.transport.abort()
        except (OSError, TimeoutError) as error:
            self.resets.append(str(error) or type(error).__name__)

    async def run(self, address: str, seconds: float, connections: int, period: float) -> dict[str, object]:
        """Warm up, say `ready`, then ask for new pairs until the time is over."""
        loop = asyncio.get_running_loop()
        loop.add_reader(sys.stdin, self.stopped.set)
        for pod in self.pods:
            loop.add_reader(pod.answers, self.receive, pod.answers)
        end = CLOCK() + seconds + 60
        flow = asyncio.create_task(self.every(FLOW_SECONDS, end, self.send_flow))
        held = [
            asyncio.create_task(self.connection(address, index, connections, CLOCK() + seconds))
            for index in range(connections)
        ]
        deadline = CLOCK() + 20
        while (self.open < connections or len(self.flow.came) < 20) and CLOCK() < deadline:
            await asyncio.sleep(0.05)
        self.flow = Series()  # what comes before the pairs are known does not count
        flow.cancel()
        flow = asyncio.create_task(self.every(FLOW_SECONDS, end, self.send_flow))
        print("ready", flush=True)
        await self.every(period, CLOCK() + seconds, self.send_new)
        await asyncio.gather(*held, *self.connecting)
        loop.remove_reader(sys.stdin)
        flow.cancel()
        await asyncio.sleep(PATIENCE_SECONDS)
        return {
            "flow": self.flow.rows(), "new": self.new.rows(), "connections": self.open, "lines": self.lines,
            "slowest": self.slowest, "resets": self.resets, "connects": self.connects,
        }  # fmt: skip


async def call(argv: list[str]) -> None:
    """The caller, from its arguments to its line of JSON."""
    address, seconds, connections, period, *namespaces = argv
    caller = Caller(address, namespaces)
    print(json.dumps(await caller.run(address, float(seconds), int(connections), float(period))), flush=True)


def main(argv: list[str]) -> None:
    """Entry point."""
    if argv[0] == "target":
        threading.Thread(target=end_with_input, daemon=True).start()
        asyncio.run(target(argv[1]))
    else:
        asyncio.run(call(argv[1:]))


if __name__ == "__main__":
    main(sys.argv[1:])
