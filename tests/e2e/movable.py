# SPDX-License-Identifier: Apache-2.0
"""A TCP server whose open connections move to another host, as live migration does it (TCP_REPAIR, tcp(7)).

`serve` echoes one connection on each of its ports until told to freeze; it then prints the connections' states as JSON
and goes away without a packet. `resume` makes the same connections again from those, elsewhere, and goes on echoing.
"""

from __future__ import annotations

import fcntl
import json
import select
import socket
import struct
import subprocess
import sys
import termios
import time
from typing import Any

# linux/tcp.h
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ, TCP_REPAIR_OPTIONS, TCP_TIMESTAMP, TCP_REPAIR_WINDOW = (
    19,
    20,
    21,
    22,
    24,
    29,
)
RECEIVE_QUEUE, SEND_QUEUE = 1, 2
OPTION_MSS, OPTION_WINDOW, OPTION_SACK, OPTION_TIMESTAMP = 2, 3, 4, 8
HAS_TIMESTAMPS, HAS_SACK, HAS_WSCALE = 1, 2, 4
SIOCOUTQ = termios.TIOCOUTQ
WINDOW_BYTES = 20


def option(connection: socket.socket, name: int) -> int:
    """An unsigned TCP socket option."""
    return int.from_bytes(connection.getsockopt(socket.IPPROTO_TCP, name, 4), sys.byteorder)


def set_option(connection: socket.socket, name: int, value: int | bytes) -> None:
    """Set a TCP socket option, an unsigned number or a structure."""
    data = value if isinstance(value, bytes) else struct.pack("=I", value)
    connection.setsockopt(socket.IPPROTO_TCP, name, data)


def queued(connection: socket.socket, request: int) -> int:
    """Bytes in a queue of the socket."""
    return int.from_bytes(fcntl.ioctl(connection, request, b"\0" * 4), sys.byteorder)


def settle(connections: list[socket.socket], device: str) -> None:
    """Take the network device down in a moment when the peers have acknowledged all that was sent.

    From then on nobody answers them, until the connections are elsewhere.
    """
    while any(queued(connection, SIOCOUTQ) for connection in connections):
        time.sleep(0.001)
    subprocess.run(["ip", "link", "set", device, "down"], check=True)


def freeze(connection: socket.socket) -> dict[str, Any]:
    """Take the state of a connection that has nothing left to send."""
    unread = connection.recv(65536, socket.MSG_DONTWAIT) if queued(connection, termios.FIONREAD) else b""
    set_option(connection, TCP_REPAIR, 1)
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)
    state: dict[str, Any] = {
        "unread": unread.decode(),
        "local": connection.getsockname(),
        "peer": connection.getpeername(),
        "mss": option(connection, socket.TCP_MAXSEG),
        "options": info[5],
        "scales": [info[6] & 15, info[6] >> 4],
        "timestamp": option(connection, TCP_TIMESTAMP),
        "window": connection.getsockopt(socket.IPPROTO_TCP, TCP_REPAIR_WINDOW, WINDOW_BYTES).hex(),
    }
    for name, queue in (("receive", RECEIVE_QUEUE), ("send", SEND_QUEUE)):
        set_option(connection, TCP_REPAIR_QUEUE, queue)
        state[name] = option(connection, TCP_QUEUE_SEQ)
    connection.close()
    return state


def thaw(state: dict[str, Any]) -> socket.socket:
    """The connection that `state` describes, alive in this network namespace."""
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    set_option(connection, TCP_REPAIR, 1)
    connection.bind(tuple(state["local"]))
    for name, queue in (("receive", RECEIVE_QUEUE), ("send", SEND_QUEUE)):
        set_option(connection, TCP_REPAIR_QUEUE, queue)
        set_option(connection, TCP_QUEUE_SEQ, state[name])
    connection.connect(tuple(state["peer"]))
    options = [(OPTION_MSS, state["mss"])]
    if state["options"] & HAS_SACK:
        options.append((OPTION_SACK, 0))
    if state["options"] & HAS_WSCALE:
        options.append((OPTION_WINDOW, state["scales"][0] | state["scales"][1] << 16))
    if state["options"] & HAS_TIMESTAMPS:
        options.append((OPTION_TIMESTAMP, 0))
    set_option(connection, TCP_REPAIR_OPTIONS, b"".join(struct.pack("=II", *item) for item in options))
    set_option(connection, TCP_TIMESTAMP, state["timestamp"])
    set_option(connection, TCP_REPAIR_QUEUE, 0)
    set_option(connection, TCP_REPAIR_WINDOW, bytes.fromhex(state["window"]))
    set_option(connection, TCP_REPAIR, 0)
    return connection


def echo(connections: list[socket.socket], seconds: float) -> bool:
    """Send back what comes until all peers have closed (False), a line comes on standard input (True), or time is up.

    Whoever closes first ends nothing for the others.
    """
    end, open_ones = time.monotonic() + seconds, list(connections)
    while open_ones and (left := end - time.monotonic()) > 0:
        readable, _, _ = select.select([*open_ones, sys.stdin], [], [], left)
        if sys.stdin in readable:
            return True
        for connection in (one for one in list(open_ones) if one in readable):
            data = connection.recv(4096)
            if data:
                connection.sendall(data)
            else:
                open_ones.remove(connection)
    return False


def main(verb: str, *rest: str) -> None:
    """Entry point: `movable.py serve NAME PORT,… DEVICE SECONDS` or `movable.py resume STATES SECONDS`."""
    if verb == "serve":
        name, device, seconds = rest[0], rest[2], float(rest[3])
        servers = [socket.create_server(("0.0.0.0", int(port))) for port in rest[1].split(",")]
        print("ready", flush=True)
        connections = []
        for server in servers:
            server.settimeout(seconds)
            connection, peer = server.accept()
            connection.sendall(f"{name} {peer[0]} {peer[1]}\n".encode())
            connections.append(connection)
            server.close()
        if echo(connections, seconds):
            settle(connections, device)
            print(json.dumps([freeze(connection) for connection in connections]), flush=True)
    else:
        states = json.loads(rest[0])
        connections = [thaw(state) for state in states]
        print("ready", flush=True)
        for connection, state in zip(connections, states, strict=True):
            connection.sendall(state["unread"].encode())
        echo(connections, float(rest[1]))


if __name__ == "__main__":
    main(*sys.argv[1:])
