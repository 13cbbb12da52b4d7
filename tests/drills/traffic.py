# SPDX-License-Identifier: Apache-2.0
"""Traffic of the drills, run on the hosts of the lab as root; stdlib only, and no thread that could be late.

`target NAMESPACE` echoes datagrams and lines of TCP until its standard input ends. `caller ADDRESS SECONDS CONNECTIONS
NAMESPACE...` keeps a flow of datagrams and many connections going, asks for a new pair every few milliseconds, and
ends by itself with one line of JSON. Times are the machine's monotonic clock, which the hosts of the lab and the
control node share.
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
PAIR_SECONDS = 0.01  # between two datagrams to new pairs
FLOW_SECONDS = 0.005  # between two datagrams of an established pair
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
        self.pairs = [(pod, prefix + bytes([last])) for last in range(1, 250) for pod in self.pods]
        self.flow, self.new = Series(), Series()
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
        """Call `send(n)` at each tick until `end`, or until it returns False; late ticks are made up for."""
        began, number = CLOCK(), 0
        while CLOCK() < end and send(number) is not False:  # type: ignore[operator]
            number += 1
            await asyncio.sleep(max(0.0, began + number * seconds - CLOCK()))

    def send_flow(self, number: int) -> None:
        """The next datagram of the established pair of a pod."""
        self.flow.sent.append(CLOCK())
        self.pods[number % len(self.pods)].send(self.known, struct.pack("!cI", b"f", number))

    def send_new(self, number: int) -> bool:
        """A datagram to a pair that nobody has asked for in this drill."""
        if number >= len(self.pairs):
            return False
        pod, address = self.pairs[number]
        self.new.sent.append(CLOCK())
        pod.send(address, struct.pack("!cI", b"n", number))
        return True

    async def connection(self, address: str, index: int, total: int, end: float) -> None:
        """One connection that is used now and then; it must neither be reset nor lose a line."""
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection(address, TCP_PORT), 10)
            self.open += 1
            await asyncio.sleep(LINE_SECONDS * index / max(total, 1))
            while CLOCK() < end:
                began = CLOCK()
                writer.write(b"%d\n" % self.lines)
                await asyncio.wait_for(reader.readline(), 30)
                self.lines += 1
                self.slowest = max(self.slowest, CLOCK() - began)
                await asyncio.sleep(LINE_SECONDS)
            writer.transport.abort()
        except (OSError, TimeoutError) as error:
            self.resets.append(str(error) or type(error).__name__)

    async def run(self, address: str, seconds: float, connections: int) -> dict[str, object]:
        """Warm up, say `ready`, then ask for new pairs until the time is over."""
        loop = asyncio.get_running_loop()
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
        await self.every(PAIR_SECONDS, CLOCK() + seconds, self.send_new)
        await asyncio.gather(*held)
        flow.cancel()
        await asyncio.sleep(PATIENCE_SECONDS)
        return {
            "flow": self.flow.rows(), "new": self.new.rows(), "connections": self.open, "lines": self.lines,
            "slowest": self.slowest, "resets": self.resets,
        }  # fmt: skip


def main(argv: list[str]) -> None:
    """Entry point."""
    if argv[0] == "target":
        threading.Thread(target=end_with_input, daemon=True).start()
        asyncio.run(target(argv[1]))
    else:
        address, seconds, connections, *namespaces = argv[1:]
        caller = Caller(address, namespaces)
        print(json.dumps(asyncio.run(caller.run(address, float(seconds), int(connections)))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
