# SPDX-License-Identifier: Apache-2.0
"""Runs in a pod: opens TCP connections and ends them with a reset, so that none of them is left. Standard library only.

`serve PORT`: accepts and closes. `rate ADDRESS PORT SECONDS FLIGHT`: as many as possible, FLIGHT at a time; prints
[connections, failures, seconds]. `times ADDRESS PORT COUNT PAUSE`: one after the other; prints a list of seconds, null
for a failure.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import time

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
PATIENCE_SECONDS = 3.0
ACCEPTORS = 4


def serve(port: int) -> None:
    """Accept and close, in a few processes."""
    listener = socket.create_server(("0.0.0.0", port), backlog=4096)
    print("ready", flush=True)
    for _ in range(ACCEPTORS - 1):
        if os.fork() == 0:
            break
    while True:
        accepted, _ = listener.accept()
        accepted.close()


def connect(address: str, port: int) -> float | None:
    """The seconds that a connection took, None when it failed."""
    with socket.socket() as sock:
        sock.settimeout(PATIENCE_SECONDS)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        began = time.perf_counter()
        try:
            sock.connect((address, port))
        except OSError:
            return None
        return time.perf_counter() - began


def rate(address: str, port: int, seconds: float, flight: int) -> None:
    """As many as possible, each of `flight` processes one at a time."""
    began = time.monotonic()
    pipes = []
    for _ in range(flight):
        reading, writing = os.pipe()
        if os.fork() == 0:
            done = failed = 0
            while time.monotonic() < began + seconds:
                failed += connect(address, port) is None
                done += 1
            os.write(writing, json.dumps([done, failed]).encode())
            os._exit(0)
        os.close(writing)
        pipes.append(reading)
    counts = [json.loads(os.read(pipe, 100)) for pipe in pipes]
    done, failed = (sum(count[index] for count in counts) for index in (0, 1))
    print(json.dumps([done, failed, time.monotonic() - began]), flush=True)


def times(address: str, port: int, count: int, pause: float) -> None:
    """One after the other."""
    found = []
    for _ in range(count):
        time.sleep(pause)
        found.append(connect(address, port))
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    verb, *rest = sys.argv[1:]
    if verb == "serve":
        serve(int(rest[0]))
    elif verb == "rate":
        rate(rest[0], int(rest[1]), float(rest[2]), int(rest[3]))
    else:
        times(rest[0], int(rest[1]), int(rest[2]), float(rest[3]))
