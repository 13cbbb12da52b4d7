#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Sends echo requests from pods of this host to pods of others, all the time, and counts what is not answered.

Usage: qnet-loss-probe PAIRS REPORT

PAIRS is a JSON list of objects with namespace, source, target and address (IPv4 or IPv6). REPORT is written anew every
second and at the end: a JSON list with source, target, sent, lost, longest_ms, the longest time without an answer, and
lost_at, the UTC times at which the first ones that were lost had been sent.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import socket
import struct
import sys
import time
from typing import Any

EVERY_SECONDS = 0.02
LATE_SECONDS = 2.0  # an answer that takes longer is lost
MOST_TIMES = 8
# Answers wait there while this process does not run, and nothing else: what is lost is then lost by the network.
SOCKET_BYTES = 8 << 20
ICMP_FILTER, ICMP6_FILTER = 1, 1  # linux/icmp.h, linux/icmpv6.h: a set bit is a type that is not received
MOST_BEHIND = 3  # rounds that are made up for; more would be a burst, which loses packets where nothing else does
CLONE_NEWNET = 0x40000000
SOL_RAW, SO_RCVBUFFORCE = 255, 33  # linux/socket.h, asm-generic/socket.h; the socket module has neither
REQUESTS = {socket.AF_INET: 8, socket.AF_INET6: 128}
REPLIES = {socket.AF_INET: 0, socket.AF_INET6: 129}
SEQUENCES = 1 << 16
_libc = ctypes.CDLL(None, use_errno=True)


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def only(family: int) -> tuple[int, int, bytes]:
    """The socket option that lets in replies to echo requests, and no other message of ICMP."""
    blocked = [0xFFFFFFFF] * (1 if family == socket.AF_INET else 8)
    blocked[REPLIES[family] // 32] &= ~(1 << REPLIES[family] % 32)
    level, option = (SOL_RAW, ICMP_FILTER) if family == socket.AF_INET else (socket.IPPROTO_ICMPV6, ICMP6_FILTER)
    return level, option, struct.pack(f"={len(blocked)}I", *blocked)


class Pair:
    """One direction between two pods."""

    def __init__(self, about: dict[str, str], identifier: int) -> None:
        self.source, self.target, self.address = about["source"], about["target"], about["address"]
        self.identifier = identifier
        self.family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        self.sent = self.lost = self.next = 0
        self.longest = 0.0
        self.waiting: dict[int, float] = {}
        self.lost_at: list[str] = []
        self.answered_at: float | None = None
        protocol = socket.IPPROTO_ICMPV6 if self.family == socket.AF_INET6 else socket.IPPROTO_ICMP
        descriptor = os.open(f"/run/netns/{about['namespace']}", os.O_RDONLY)
        if _libc.setns(descriptor, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter {about['namespace']}")
        os.close(descriptor)
        self.socket = socket.socket(self.family, socket.SOCK_RAW, protocol)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, SOCKET_BYTES)
        self.socket.setsockopt(*only(self.family))

    def send(self, now: float) -> None:
        """One more request. Where it cannot even be sent, it is lost."""
        self.next = (self.next + 1) % SEQUENCES
        head = struct.pack("!BBHHH", REQUESTS[self.family], 0, 0, self.identifier, self.next)
        if self.family == socket.AF_INET:  # for ICMPv6 the kernel does it
            head = head[:2] + struct.pack("!H", checksum(head)) + head[4:]
        self.sent += 1
        self.waiting[self.next] = now
        with contextlib.suppress(OSError):  # nobody answers: counted as lost in time
            self.socket.sendto(head, (self.address, 0))

    def receive(self, now: float) -> None:
        """Take the answers that are there."""
        while True:
            try:
                data = self.socket.recv(512)
            except OSError:
                return
            start = (data[0] & 15) * 4 if self.family == socket.AF_INET else 0
            kind, _, _, identifier, sequence = struct.unpack_from("!BBHHH", data, start)
            if (kind, identifier) == (REPLIES[self.family], self.identifier) and self.waiting.pop(sequence, None):
                self.longest = max(self.longest, now - (self.answered_at or now))
                self.answered_at = now

    def expire(self, now: float) -> None:
        """Give up what has waited for too long."""
        late = [sequence for sequence, at in self.waiting.items() if now - at > LATE_SECONDS]
        for sequence in late:
            sent_at = time.time() - (now - self.waiting.pop(sequence))
            if len(self.lost_at) < MOST_TIMES:
                self.lost_at.append(time.strftime("%H:%M:%S", time.gmtime(sent_at)) + f"{sent_at % 1:.3f}"[1:])
        self.lost += len(late)

    def report(self) -> dict[str, Any]:
        """What has been seen so far."""
        longest = round(max(self.longest - EVERY_SECONDS, 0.0) * 1000)
        return {"source": self.source, "target": self.target, "sent": self.sent, "lost": self.lost,
                "longest_ms": longest, "lost_at": self.lost_at}  # fmt: skip


def write(path: str, pairs: list[Pair]) -> None:
    """The report, whole or not at all."""
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        json.dump([pair.report() for pair in pairs], file)
    os.replace(f"{path}.new", path)


def main(argv: list[str]) -> None:
    """Entry point."""
    with open(argv[1], encoding="utf-8") as file:
        pairs = [Pair(about, os.getpid() + number & 0xFFFF) for number, about in enumerate(json.load(file))]
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stop.append(number))
    selector = selectors.DefaultSelector()
    for pair in pairs:
        selector.register(pair.socket, selectors.EVENT_READ, pair)
    following = report_at = time.monotonic()
    ending: float | None = None
    while ending is None or time.monotonic() < ending:
        now = time.monotonic()
        if stop and ending is None:
            ending = now + LATE_SECONDS + 0.1  # for the last answers
        if now >= following and ending is None:
            following = max(following + EVERY_SECONDS, now - MOST_BEHIND * EVERY_SECONDS)
            for pair in pairs:
                pair.send(now)
        for key, _ in selector.select(max(0.0, min(following - time.monotonic(), EVERY_SECONDS))):
            key.data.receive(time.monotonic())
        if time.monotonic() >= report_at:
            report_at += 1.0
            for pair in pairs:
                pair.expire(time.monotonic())
            write(argv[2], pairs)
    for pair in pairs:
        pair.expire(time.monotonic())
    write(argv[2], pairs)


if __name__ == "__main__":
    main(sys.argv)
