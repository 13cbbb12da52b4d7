# SPDX-License-Identifier: Apache-2.0
"""A TCP stream from one network namespace to another, and what it costs. Standard library only.

As a program it is one end, `stream.py receive PORT` or `stream.py send ADDRESS PORT SECONDS`, and prints JSON.
"""

from __future__ import annotations

import json
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PORT = 5201
CHUNK = 1 << 18
WAIT_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Cost:
    """What a stream achieved: gigabits a second, and CPU seconds of all that took part for a gigabyte."""

    gigabits: float
    cpu_per_gigabyte: float


def used() -> float:
    """CPU seconds of this process; most of what the kernel does for a stream over veth is done in its processes."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def receive(port: int) -> dict[str, float]:
    """Take one connection and read it to its end."""
    with socket.create_server(("", port)) as server:
        server.settimeout(WAIT_SECONDS)
        print("ready", flush=True)
        connection, _ = server.accept()
        with connection:
            connection.settimeout(WAIT_SECONDS)
            room, total, began = bytearray(CHUNK), 0, time.monotonic()
            while got := connection.recv_into(room):
                total += got
            return {"bytes": total, "seconds": time.monotonic() - began, "cpu": used()}


def send(address: str, port: int, seconds: float) -> dict[str, float]:
    """Send for a time."""
    data = bytes(CHUNK)
    with socket.create_connection((address, port), WAIT_SECONDS) as connection:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            connection.sendall(data)
    return {"cpu": used()}


def ends(receiver: str, sender: str, address: str, seconds: float) -> tuple[dict[str, float], dict[str, float]]:
    """Run both ends, each in a namespace; raises RuntimeError with the words of the end that failed."""

    def begin(namespace: str, *words: object) -> subprocess.Popen[str]:
        argv = ["ip", "netns", "exec", namespace, sys.executable, str(Path(__file__)), *map(str, words)]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    with begin(receiver, "receive", PORT) as taking:
        assert taking.stdout is not None
        taking.stdout.readline()
        with begin(sender, "send", address, PORT, seconds) as giving:
            results = []
            for process in (giving, taking):
                output, errors = process.communicate(timeout=seconds + 4 * WAIT_SECONDS)
                if process.returncode:
                    taking.kill()
                    raise RuntimeError(errors.strip().splitlines()[-1])
                results.append(json.loads(output.splitlines()[-1]))
    return results[0], results[1]


def cost(receiver: str, sender: str, address: str, seconds: float, others: Callable[[], float] = lambda: 0.0) -> Cost:
    """Stream from `sender` to `receiver`; `others` says how much CPU time has been used by what else takes part."""
    before = others()
    giving, taking = ends(receiver, sender, address, seconds)
    cpu = giving["cpu"] + taking["cpu"] + others() - before
    return Cost(taking["bytes"] * 8 / taking["seconds"] / 1e9, cpu / (taking["bytes"] / 1e9))


if __name__ == "__main__":
    if sys.argv[1] == "receive":
        print(json.dumps(receive(int(sys.argv[2]))))
    else:
        print(json.dumps(send(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))))
