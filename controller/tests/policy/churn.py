# SPDX-License-Identifier: Apache-2.0
"""Runs in a pod: TCP connections whose source ports are chosen, or as many as possible. Standard library only.

`serve PORT`: greets, and closes after its client, so that a port can be used again at once. `ports FIRST COUNT PAUSE
ADDRESS:PORT …`: from each source port to each of the addresses, one after the other with a pause; prints one JSON list
of [port, address, seconds or null]. `churn SECONDS FLIGHT ADDRESS:PORT …`: connections from any port, FLIGHT at a time;
prints [connections, failures].
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import time

PATIENCE_SECONDS = 5.0


async def serve(port: int) -> None:
    """Greet, and close after the client."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(greet, "0.0.0.0", port, backlog=4096)
    print("ready", flush=True)
    await server.serve_forever()


async def connect(address: str, port: int, source: int, patience: float) -> float | None:
    """Connect, read the greeting, close; returns the seconds that took, None when it failed."""
    began = time.monotonic()
    sock = socket.socket()
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    try:
        if source:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("0.0.0.0", source))
        async with asyncio.timeout(patience):
            await loop.sock_connect(sock, (address, port))
            await loop.sock_recv(sock, 4096)
        return time.monotonic() - began
    except (TimeoutError, OSError):
        return None
    finally:
        sock.close()


async def from_ports(first: int, count: int, pause: float, targets: list[tuple[str, int]]) -> None:
    """Every source port in turn, to all targets one after the other."""
    results = []
    for source in range(first, first + count):
        for address, port in targets:
            results.append((source, address, await connect(address, port, source, PATIENCE_SECONDS)))
            await asyncio.sleep(pause)
    print(json.dumps(results), flush=True)


async def churn(seconds: float, flight: int, targets: list[tuple[str, int]]) -> None:
    """As many connections as possible, `flight` at a time."""
    end, done = time.monotonic() + seconds, [0, 0]

    async def work(number: int) -> None:
        while time.monotonic() < end:
            address, port = targets[number % len(targets)]
            took = await connect(address, port, 0, PATIENCE_SECONDS)
            done[0] += 1
            done[1] += took is None
            number += 1

    await asyncio.gather(*(work(number) for number in range(flight)))
    print(json.dumps(done), flush=True)


def targets_of(texts: list[str]) -> list[tuple[str, int]]:
    """ADDRESS:PORT as pairs."""
    return [(address, int(port)) for address, _, port in (text.rpartition(":") for text in texts)]


if __name__ == "__main__":
    verb, *rest = sys.argv[1:]
    if verb == "serve":
        asyncio.run(serve(int(rest[0])))
    elif verb == "ports":
        asyncio.run(from_ports(int(rest[0]), int(rest[1]), float(rest[2]), targets_of(rest[3:])))
    else:
        asyncio.run(churn(float(rest[0]), int(rest[1]), targets_of(rest[2:])))
