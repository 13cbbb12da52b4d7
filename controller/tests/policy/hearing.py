# SPDX-License-Identifier: Apache-2.0
"""Runs inside a pod's network namespace: sends to all when told to, and says what it has heard of others.

Each line on standard input is "send ADDRESS TEXT", answered by true, or "heard", answered by the list of texts that
have come since the last time. Standard library only.
"""

from __future__ import annotations

import json
import queue
import socket
import struct
import sys
import threading

PORT = 5353
IPV4_GROUPS, IPV6_GROUPS = ("224.0.0.251", "239.1.2.3"), ("ff02::fb", "ff0e::101")


def ears() -> tuple[socket.socket, socket.socket]:
    """A socket of each family that hears all."""
    four, six = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    four.bind(("", PORT))
    six.bind(("::", PORT))
    return four, six


def join(four: socket.socket, six: socket.socket, index: int) -> None:
    """Hear the groups at an interface."""
    for group in IPV4_GROUPS:
        of = struct.pack("=4s4si", socket.inet_aton(group), bytes(4), index)
        four.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, of)
    for group in IPV6_GROUPS:
        of = struct.pack("=16si", socket.inet_pton(socket.AF_INET6, group), index)
        six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, of)


def send(source: str, target: str, text: str) -> bool:
    """Send a text to all, from an address of the pod's own."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        index = socket.if_nametoindex("eth0")
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", bytes(4), bytes(4), index))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        sock.bind((source, 0))
        sock.sendto(text.encode(), (target, PORT, 0, index) if family == socket.AF_INET6 else (target, PORT))
    return True


def listen(ear: socket.socket, heard: queue.SimpleQueue[str]) -> None:
    """Note whatever comes in."""
    while True:
        heard.put(ear.recv(2048).decode())


def main() -> None:
    """Do what the lines say, until the input ends."""
    heard: queue.SimpleQueue[str] = queue.SimpleQueue()
    four, six = ears()
    for ear in (four, six):
        threading.Thread(target=listen, args=(ear, heard), daemon=True).start()
    joined = 0
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        words = line.split()
        if joined != (index := socket.if_nametoindex("eth0")):  # it is another one after a move
            join(four, six, index)
            joined = index
        if words[0] == "send":
            print(json.dumps(send(*words[1:])), flush=True)
        else:
            print(json.dumps(sorted(heard.get() for _ in range(heard.qsize()))), flush=True)


if __name__ == "__main__":
    main()
