# SPDX-License-Identifier: Apache-2.0
"""Runs inside a pod's network namespace: answers on its ports, and tries connections when told to.

Each line on standard input is a JSON list of [address, protocol, port, source port or null]; the answer is one JSON
line with, for each of them, what came back: [pod, address it saw], ["?", ""] for a ping, or null. The line "hold
ADDRESS" opens a connection over which the server keeps talking, "listen" says how many bytes came over it within a
second, "arrivals" how many IP packets come in within a few, "big ADDRESS PORT" asks with a datagram in fragments and
says how long the answer was. Standard library only.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import sys
from typing import cast

TCP_PORTS, UDP_PORTS, TALKING_PORT = (80, 81), (53, 54), 82
ETHERTYPE_ALL, ETHERTYPE_IP, ETHERTYPE_IPV6 = 0x0003, 0x0800, 0x86DD
ICMPV6, NEIGHBOUR_TYPES = 58, range(133, 138)
TICK_SECONDS, LISTEN_SECONDS, ARRIVAL_SECONDS = 0.05, 1.0, 2.5
BIG = 4000
TRIES, WAIT_SECONDS, CONNECT_SECONDS = 3, 0.5, 1.6
Answer = list[str] | None


class Echo(asyncio.DatagramProtocol):
    """Says who it is and whom it sees."""

    def __init__(self, name: str) -> None:
        self.name = name

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        # As long as the question, so that a question in fragments has an answer in fragments.
        self.transport.sendto(json.dumps([self.name, address[0]]).encode().ljust(len(data)), address)


async def serve(name: str) -> None:
    """Answer on every port."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The client closes first: what is left in TIME_WAIT is on its side, and no server refuses its port for that.
        writer.write(json.dumps([name, writer.get_extra_info("peername")[0]]).encode() + b"\n")
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while True:
                writer.write(b".")
                await writer.drain()
                await asyncio.sleep(TICK_SECONDS)

    loop = asyncio.get_running_loop()
    for any_address in ("0.0.0.0", "::"):
        await asyncio.start_server(talk, any_address, TALKING_PORT)
        for port in TCP_PORTS:
            await asyncio.start_server(greet, any_address, port)
        for port in UDP_PORTS:
            sock = socket.socket(family_of(any_address), socket.SOCK_DGRAM)
            if sock.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((any_address, port))
            await loop.create_datagram_endpoint(lambda: Echo(name), sock=sock)


def family_of(address: str) -> socket.AddressFamily:
    """The family of an address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


async def try_tcp(address: str, port: int, source: int | None) -> Answer:
    """Connect and read the greeting."""
    sock = socket.socket(family_of(address))
    sock.setblocking(False)
    try:
        if source:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("", source))
        connecting = asyncio.get_running_loop().sock_connect(sock, (address, port))
        await asyncio.wait_for(connecting, CONNECT_SECONDS)
        reader, writer = await asyncio.open_connection(sock=sock)
        data = await asyncio.wait_for(reader.readline(), CONNECT_SECONDS)
        writer.close()
        answer: Answer = json.loads(data) if data else None
        return answer
    except (TimeoutError, OSError):
        return None


async def _ask(sock: socket.socket, data: bytes, address: tuple[str, int], longest: int = 2048) -> bytes | None:
    loop = asyncio.get_running_loop()
    for _ in range(TRIES):
        try:
            await loop.sock_sendto(sock, data, address)
            while True:
                got, sender = await asyncio.wait_for(loop.sock_recvfrom(sock, longest), WAIT_SECONDS)
                if sender[0] == address[0]:
                    return bytes(got)
        except TimeoutError:
            continue
        except OSError:
            return None
    return None


async def try_udp(address: str, port: int) -> Answer:
    """Ask over UDP."""
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        data = await _ask(sock, b"who", (address, port))
        answer: Answer = json.loads(data) if data else None
        return answer


async def try_big(address: str, port: int) -> int:
    """Ask over UDP with a datagram that needs fragments; returns how long the answer was."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        return len(await _ask(sock, bytes(BIG), (address, port), BIG) or b"")


async def try_ping(address: str) -> Answer:
    """Ping; the kernel checks that the answer is for this socket."""
    six = ":" in address
    protocol, request = (socket.IPPROTO_ICMPV6, 128) if six else (socket.IPPROTO_ICMP, 8)
    with socket.socket(family_of(address), socket.SOCK_DGRAM, protocol) as sock:
        sock.setblocking(False)
        data = await _ask(sock, struct.pack("!BBHHH", request, 0, 0, 0, 1), (address, 0))
        return ["?", ""] if data else None


async def try_one(address: str, protocol: int, port: int | None, source: int | None = None) -> Answer:
    """Try one destination."""
    if protocol == 1:
        return await try_ping(address)
    if protocol == 17:
        return await try_udp(address, port or 0)
    return await try_tcp(address, port or 0, source)


class Held:
    """A connection over which the server keeps talking."""

    def __init__(self) -> None:
        self.reader: asyncio.StreamReader | None = None

    async def open(self, address: str) -> bool:
        """Open it."""
        connecting = asyncio.open_connection(address, TALKING_PORT)
        reader, self.writer = await asyncio.wait_for(connecting, CONNECT_SECONDS)
        self.reader = reader
        return bool(await reader.read(1))

    async def listen(self) -> int:
        """How many bytes come within a second, those that are here already not counted."""
        assert self.reader is not None
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.reader.read(1 << 20), TICK_SECONDS / 10)
        end, count = asyncio.get_running_loop().time() + LISTEN_SECONDS, 0
        with contextlib.suppress(asyncio.TimeoutError):
            while (left := end - asyncio.get_running_loop().time()) > 0:
                count += len(await asyncio.wait_for(self.reader.read(1 << 20), left))
        return count


def is_traffic(data: bytes, place: tuple[str, int, int]) -> bool:
    """Whether a packet is IP that came in, and no answer about a neighbour."""
    _, ether_type, kind = place[:3]
    asked = ether_type == ETHERTYPE_IPV6 and data[6] == ICMPV6 and data[40] in NEIGHBOUR_TYPES
    return ether_type in (ETHERTYPE_IP, ETHERTYPE_IPV6) and kind != socket.PACKET_OUTGOING and not asked


async def arrivals() -> int:
    """How many IP packets come in within a few seconds, whoever they are for: enough for TCP to send again."""
    end, count = asyncio.get_running_loop().time() + ARRIVAL_SECONDS, 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETHERTYPE_ALL)) as sock:
        while (left := end - asyncio.get_running_loop().time()) > 0:
            sock.setblocking(False)
            with contextlib.suppress(asyncio.TimeoutError):
                found = await asyncio.wait_for(asyncio.get_running_loop().sock_recvfrom(sock, 2048), left)
                count += is_traffic(*found)
    return count


async def main(name: str) -> None:
    """Serve, and try what the lines say, until the input ends."""
    await serve(name)
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print(json.dumps("ready"), flush=True)
    held = Held()
    while line := (await reader.readline()).decode():
        result: object
        if line.startswith("hold "):
            result = await held.open(line.split()[1])
        elif line.startswith("listen"):
            result = await held.listen()
        elif line.startswith("big "):
            result = await try_big(line.split()[1], int(line.split()[2]))
        elif line.startswith("arrivals"):
            result = await arrivals()
        else:
            result = await asyncio.gather(*(try_one(*item) for item in json.loads(line)))
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
