# SPDX-License-Identifier: Apache-2.0
"""What the fleet tests run inside pods: small servers and clients that say what they saw, as JSON. Stdlib only.

Every server and client ends by itself after its time, servers and watchers also with their standard input.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
import sys
import threading
import time

TIMEOUT_SECONDS = 2.0
ECHO_REQUEST = 8
ETH_P_ALL = 3


def serve_tcp(name: str, port: int, seconds: float) -> None:
    """Greet each connection with a line `name peer-address peer-port`, then send back every byte."""

    def talk(connection: socket.socket, peer: tuple[str, int]) -> None:
        with connection, contextlib.suppress(OSError):
            connection.sendall(f"{name} {peer[0]} {peer[1]}\n".encode())
            while data := connection.recv(4096):
                connection.sendall(data)

    with socket.create_server(("0.0.0.0", port), backlog=512) as server:
        server.settimeout(0.2)
        print("ready", flush=True)
        end = time.monotonic() + seconds
        while time.monotonic() < end and not told_to_stop():
            with contextlib.suppress(TimeoutError):
                connection, peer = server.accept()
                connection.settimeout(seconds)
                threading.Thread(target=talk, args=(connection, peer), daemon=True).start()


def serve_udp(name: str, port: int, seconds: float) -> None:
    """Answer each datagram with `name peer-address peer-port`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("0.0.0.0", port))
        server.settimeout(0.2)
        print("ready", flush=True)
        end = time.monotonic() + seconds
        while time.monotonic() < end and not told_to_stop():
            with contextlib.suppress(TimeoutError):
                _, peer = server.recvfrom(4096)
                server.sendto(f"{name} {peer[0]} {peer[1]}".encode(), peer)


def ask_tcp(address: str, port: int) -> str:
    """Connect, and return the greeting of serve_tcp."""
    with socket.create_connection((address, port), TIMEOUT_SECONDS) as connection:
        connection.settimeout(TIMEOUT_SECONDS)
        return connection.makefile("r").readline().strip()


def ask_udp(address: str, port: int) -> str:
    """Send one datagram, and return the answer of serve_udp."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(TIMEOUT_SECONDS)
        client.connect((address, port))
        client.send(b"?")
        return client.recv(4096).decode()


def ask(protocol: str, address: str, port: int, times: int) -> dict[str, object]:
    """Ask `times` times; answers are [name, own address as seen there] (HTTP: [name]), errors are their text."""
    asking = {"tcp": ask_tcp, "udp": ask_udp, "http": ask_http}[protocol]
    answers, errors = [], []
    for _ in range(times):
        try:
            answers.append(asking(address, port).split()[:2])
        except OSError as error:
            errors.append(str(error) or type(error).__name__)
    return {"answers": answers, "errors": errors}


def ask_http(address: str, port: int, under_way: float = 0.0) -> str:
    """Fetch / over a new connection, which says nothing for `under_way` seconds; returns the workload that answered."""
    connection = http.client.HTTPConnection(address, port, timeout=TIMEOUT_SECONDS)
    with contextlib.closing(connection):
        connection.connect()
        time.sleep(under_way)
        connection.request("GET", "/", headers={"Connection": "close"})
        return connection.getresponse().headers["X-Qnet-Pod"]


def told_to_stop() -> bool:
    """Whether there is a line, or the end, on standard input."""
    return bool(select.select([sys.stdin], [], [], 0)[0])


def load(address: str, port: int, seconds: float, every: float, under_way: float = 0.0) -> dict[str, object]:
    """Ask over a new connection every `every` seconds, until told to stop or for `seconds`.

    Returns rows of [when (Unix seconds), name or null, error or null, seconds that it took beside `under_way`].
    """
    rows: list[tuple[float, str | None, str | None, float]] = []
    print("ready", flush=True)
    end = time.monotonic() + seconds
    while time.monotonic() < end and not told_to_stop():
        began = time.monotonic()
        when, name, failure = time.time(), None, None
        try:
            name = ask_http(address, port, under_way)
        except (OSError, http.client.HTTPException) as error:
            failure = str(error) or type(error).__name__
        rows.append((when, name, failure, time.monotonic() - began - under_way))
        time.sleep(max(0.0, every - (time.monotonic() - began)))
    return {"rows": rows}


def connect_to_listener(address: str, port: int, tries: int = 200) -> socket.socket:
    """Connect; where some backends do not listen, until one that does is chosen."""
    for _ in range(tries):
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection((address, port), TIMEOUT_SECONDS)
    raise ConnectionRefusedError(f"{address}:{port} refused {tries} times")


def hold(address: str, port: int, seconds: float, every: float) -> dict[str, object]:
    """Keep one connection, send a numbered line every `every` seconds and read it back, whatever time that takes.

    Until told to stop, or for `seconds`. Returns the server's greeting, the number of lines that came back in order,
    and the longest wait for one (seconds).
    """
    longest, lines = 0.0, 0
    with connect_to_listener(address, port) as connection:
        connection.settimeout(seconds)
        stream = connection.makefile("rw")
        greeting = stream.readline().strip()
        print("ready", flush=True)
        end = time.monotonic() + seconds
        while time.monotonic() < end and not told_to_stop():
            began = time.monotonic()
            stream.write(f"{lines}\n")
            stream.flush()
            if stream.readline() != f"{lines}\n":
                raise ConnectionError(f"line {lines} did not come back")
            lines += 1
            longest = max(longest, time.monotonic() - began)
            time.sleep(every)
    return {"greeting": greeting, "lines": lines, "longest": longest}


def watch_icmp(seconds: float) -> dict[str, object]:
    """The addresses from which echo requests come within `seconds`."""
    seen = set()
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sniffer:
        print("ready", flush=True)
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not told_to_stop():
            sniffer.settimeout(min(left, 0.2))
            with contextlib.suppress(TimeoutError):
                packet, (source, _) = sniffer.recvfrom(4096)
                if packet[(packet[0] & 15) * 4] == ECHO_REQUEST:
                    seen.add(source)
    return {"from": sorted(seen)}


def watch_frames(seconds: float) -> dict[str, object]:
    """Every frame that reaches the pod's interface within `seconds`, in hex."""
    frames = []
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as sniffer:
        sniffer.bind(("eth0", ETH_P_ALL))
        print("ready", flush=True)
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not told_to_stop():
            sniffer.settimeout(min(left, 0.2))
            with contextlib.suppress(TimeoutError):
                frame, where = sniffer.recvfrom(4096)
                if where[2] != socket.PACKET_OUTGOING:
                    frames.append(frame.hex())
    return {"frames": frames}


def knock(address: str, port: int, seconds: float, every: float) -> dict[str, object]:
    """Send a datagram every `every` seconds for `seconds` and expect nothing."""
    sent = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            client.sendto(b"?", (address, port))
            sent += 1
            time.sleep(every)
    return {"sent": sent}


def main(argv: list[str]) -> None:
    """Entry point: `probe.py VERB ARGUMENT...`."""
    verb, *rest = argv
    if verb == "serve-tcp":
        serve_tcp(rest[0], int(rest[1]), float(rest[2]))
    elif verb == "serve-udp":
        serve_udp(rest[0], int(rest[1]), float(rest[2]))
    elif verb == "ask":
        print(json.dumps(ask(rest[0], rest[1], int(rest[2]), int(rest[3]))))
    elif verb == "load":
        print(json.dumps(load(rest[0], int(rest[1]), *map(float, rest[2:]))))
    elif verb == "hold":
        print(json.dumps(hold(rest[0], int(rest[1]), float(rest[2]), float(rest[3]))))
    elif verb == "watch-icmp":
        print(json.dumps(watch_icmp(float(rest[0]))))
    elif verb == "watch-frames":
        print(json.dumps(watch_frames(float(rest[0]))))
    elif verb == "knock":
        print(json.dumps(knock(rest[0], int(rest[1]), float(rest[2]), float(rest[3]))))
    else:
        sys.exit(f"unknown verb {verb}")


if __name__ == "__main__":
    main(sys.argv[1:])
