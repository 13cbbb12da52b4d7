# SPDX-License-Identifier: Apache-2.0
"""Asks a host which connections its switch tracks. OpenFlow has no message for that (see ADR 0009).

On every host systemd listens on `READER_PORT` and starts a small program (role `openvswitch`) for each question. It
answers controllers only, with the text that `ovs-appctl dpctl/dump-conntrack` or `dpctl/ct-get-limits` prints.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
import ssl
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..openflow.session import common_name
from ..pipeline.connections import Connection
from ..pipeline.messages import Tuple

READER_PORT = 6655
ANSWER_SECONDS = 5.0
_CHUNK = 1 << 16
_PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132}
_ENTRY = re.compile(r"(\w+),orig=\(([^)]*)\),reply=\(([^)]*)\)(.*)")
_PAIR = re.compile(r"(\w+)=([^,()]*)")
# The states of TCP in which a connection is open, as Open vSwitch prints them for both datapaths.
_OPEN = frozenset({"SYN_RECV", "ESTABLISHED", "CLOSE_WAIT", "FIN_WAIT_1", "FIN_WAIT_2"})


_SHARE = re.compile(r"zone=(\d+),limit=(\d+),count=(\d+)")


class Share(NamedTuple):
    """The connections of a zone: how many it may have (0: any number), and has."""

    zone: int
    limit: int
    number: int

    @property
    def full(self) -> bool:
        """Whether it may have no more."""
        return 0 < self.limit <= self.number


class Unreadable(Exception):
    """A host does not say which connections it tracks; the text says why."""


async def read(address: str, host: str, context: ssl.SSLContext, zones: list[int]) -> list[Connection]:
    """The connections in these zones of the switch of `host`, asked at its `address`.

    Raises:
        Unreadable: the host does not answer, or not in time, or is not the one.
    """
    return list(parse(await _lines(address, host, context, zones)))


async def shares(address: str, host: str, context: ssl.SSLContext, zones: list[int]) -> list[Share]:
    """How many connections are in these zones, and how many may be.

    Raises:
        Unreadable: as with `read`; a host whose program is an older one does not answer.
    """
    lines = await _lines(address, host, context, {"shares": zones})
    return [Share(*map(int, found.groups())) for line in lines if (found := _SHARE.match(line))]


async def _lines(address: str, host: str, context: ssl.SSLContext, question: object) -> list[str]:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            text = await _ask(address, host, context, json.dumps(question).encode() + b"\n")
    except TimeoutError:
        raise Unreadable(f"no answer within {ANSWER_SECONDS:g} s") from None
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from None
    lines = text.splitlines()
    if not lines or lines[-1] != "end":
        raise Unreadable("an incomplete answer")
    return lines[:-1]


async def _ask(address: str, host: str, context: ssl.SSLContext, question: bytes) -> str:
    reader, writer = await asyncio.open_connection(address, READER_PORT, ssl=context)
    try:
        name = common_name(writer.get_extra_info("peercert"))
        if name != host:
            raise Unreadable(f"{address} is {name!r}, not {host!r}")
        writer.write(question)
        parts = []
        while part := await reader.read(_CHUNK):
            parts.append(part)
        return b"".join(parts).decode()
    finally:
        writer.transport.abort()


def parse(lines: Iterable[str]) -> Iterator[Connection]:
    """Connections from the text of `dpctl/dump-conntrack`; protocols that exports cannot name are left out."""
    for line in lines:
        entry = _ENTRY.match(line)
        protocol = _PROTOCOLS.get(entry[1]) if entry else None
        if entry is None or protocol is None:
            continue
        rest = dict(_PAIR.findall(entry[4]))
        live = "state" not in rest or rest["state"] in _OPEN
        mark = int(rest.get("mark", "0"), 0)
        opened, answered = _tuple(protocol, entry[2]), _tuple(protocol, entry[3])
        yield Connection(int(rest.get("zone", "0")), opened, answered, mark, live)


def protocol_name(number: int) -> str:
    """An IP protocol as exports name it."""
    return next((name for name, known in _PROTOCOLS.items() if known == number), str(number))


def _tuple(protocol: int, text: str) -> Tuple:
    values = dict(_PAIR.findall(text))
    source, target = (ipaddress.ip_address(values[name]).packed for name in ("src", "dst"))
    if "id" in values:
        kind = int(values.get("type", "0")) << 8 | int(values.get("code", "0"))
        return Tuple(protocol, source, target, int(values["id"]), kind)
    return Tuple(protocol, source, target, int(values["sport"]), int(values["dport"]))
