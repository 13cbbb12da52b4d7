# SPDX-License-Identifier: Apache-2.0
"""Runs inside a pod's network namespace: answers on its ports, and tries connections when told to.

Each line on standard input is a JSON list of [address, protocol, port]; the answer is one JSON line with, for each of
them, what came back: [pod, address it saw], ["?", ""] for a ping, or null. Standard library only.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
from typing import cast

TCP_PORTS, UDP_PORTS = (80, 81), (53, 54)
TRIES, WAIT_SECONDS, CONNECT_SECONDS = 3, 0.5, 1.6
Answer = list[str] | None


class Echo(asyncio.DatagramProtocol):
    """Says who it is and whom it sees."""

    def __init__(self, name: str) -> None:
        self.name = name

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self.transport.sendto(json.dumps([self.name, address[0]]).encode(), address)


async def serve(name: str) -> None:
    """Answer on every port."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(json.dumps([name, writer.get_extra_info("peername")[0]]).encode())
        await writer.drain()
        writer.close()

    loop = asyncio.get_running_loop()
    for port in TCP_PORTS:
        await asyncio.start_server(greet, "0.0.0.0", port)
    for port in UDP_PORTS:
        await loop.create_datagram_endpoint(lambda: Echo(name), local_addr=("0.0.0.0", port))


async def try_tcp(address: str, port: int) -> Answer:
    """Connect and read the greeting."""
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection(address, port), CONNECT_SECONDS)
        data = await asyncio.wait_for(reader.read(), CONNECT_SECONDS)
        writer.close()
        answer: Answer = json.loads(data) if data else None
        return answer
    except (TimeoutError, OSError):
        return None


async def _ask(sock: socket.socket, data: bytes, address: tuple[str, int]) -> bytes | None:
    loop = asyncio.get_running_loop()
    for _ in range(TRIES):
        try:
            await loop.sock_sendto(sock, data, address)
            while True:
                got, sender = await asyncio.wait_for(loop.sock_recvfrom(sock, 2048), WAIT_SECONDS)
                if sender[0] == address[0]:
                    return bytes(got)
        except TimeoutError:
            continue
        except OSError:
            return None
    return None


async def try_udp(address: str, port: int) -> Answer:
    """Ask over UDP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        data = await _ask(sock, b"who", (address, port))
        answer: Answer = json.loads(data) if data else None
        return answer


async def try_ping(address: str) -> Answer:
    """Ping; the kernel checks that the answer is for this socket."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as sock:
        sock.setblocking(False)
        data = await _ask(sock, struct.pack("!BBHHH", 8, 0, 0, 0, 1), (address, 0))
        return ["?", ""] if data else None


async def try_one(address: str, protocol: int, port: int | None) -> Answer:
    """Try one destination."""
    if protocol == 1:
        return await try_ping(address)
    return await (try_tcp if protocol == 6 else try_udp)(address, port or 0)


async def main(name: str) -> None:
    """Serve, and try what the lines say, until the input ends."""
    await serve(name)
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print(json.dumps("ready"), flush=True)
    while line := await reader.readline():
        print(json.dumps(await asyncio.gather(*(try_one(*item) for item in json.loads(line)))), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
