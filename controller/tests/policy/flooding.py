# SPDX-License-Identifier: Apache-2.0
"""Runs inside a pod's network namespace: answers UDP, floods when told to, and asks as a bystander does.

Each line on standard input is "flood ADDRESS COUNT", which sends one datagram each from so many ports, or "ask ADDRESS
COUNT", answered by how many of so many questions, each from a new port, had an answer. Standard library only.
"""

from __future__ import annotations

import json
import socket
import sys
import threading

PORT, FIRST_PORT, PORTS = 53, 2000, 60000
WAIT_SECONDS, TRIES = 1.0, 3


def serve() -> None:
    """Answer every datagram with itself."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("", PORT))
        while True:
            data, sender = sock.recvfrom(2048)
            if data != b"flood":
                sock.sendto(data, sender)


def flood(address: str, count: int) -> int:
    """Open so many connections: one datagram each."""
    for number in range(count):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("", FIRST_PORT + number % PORTS))
            sock.sendto(b"flood", (address, PORT + number // PORTS))
    return count


def ask(address: str, count: int) -> int:
    """How many of so many questions had an answer."""
    answered = 0
    for number in range(count):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(WAIT_SECONDS)
            sock.connect((address, PORT))
            for _ in range(TRIES):
                try:
                    sock.send(str(number).encode())
                    answered += sock.recv(2048) == str(number).encode()
                    break
                except OSError:
                    continue
    return answered


def main() -> None:
    """Do what the lines say, until the input ends."""
    threading.Thread(target=serve, daemon=True).start()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        what, address, count = line.split()
        print(json.dumps((flood if what == "flood" else ask)(address, int(count))), flush=True)


if __name__ == "__main__":
    main()
