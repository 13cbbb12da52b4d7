# SPDX-License-Identifier: Apache-2.0
"""Hostile peers: every known shape that makes a parser loop, and mutations of what switches say."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from . import wire

_MATCH = wire.match(wire.in_port(7), wire.registers((100, 1, 0, 7)))
_FRAME = wire.frame(bytes(6), bytes(6), bytes(32))
_STATISTICS = struct.pack("!HH4x", 0, 4)


def _flow_desc(matched: bytes, instructions: bytes) -> bytes:
    body = struct.pack("!BxHHHHHQ", 2, 100, 0, 0, 0, 0, 1) + matched + _STATISTICS + instructions
    return struct.pack("!HH", 4 + len(body), 0) + body


def _multipart(kind: int, body: bytes) -> bytes:
    return wire.message(wire.MULTIPART_REPLY, struct.pack("!HH4x", kind, 0) + body)


HELLO_ELEMENT_0 = wire.message(wire.HELLO, struct.pack("!HH4x", 1, 0))
"""Sixteen bytes that hang Ryu 4.34 and os-ken 4.2.2 for good."""

KNOWN = {
    "hello element of length 0": HELLO_ELEMENT_0,
    "packet-in with an OXM field of length 0": wire.message(
        wire.PACKET_IN, bytes(16) + struct.pack("!HHI", 1, 8, 0x80000000) + bytes(2) + _FRAME
    ),
    "packet-in with a match of length 0": wire.message(wire.PACKET_IN, bytes(16) + bytes(8) + bytes(2) + _FRAME),
    "flow-mod sent to a controller": wire.message(wire.FLOW_MOD, bytes(40) + struct.pack("!HH4x", 1, 4) + bytes(8)),
    "flow description of length 0": _multipart(wire.FLOW_DESC, bytes(48)),
    "instruction of length 0": _multipart(wire.FLOW_DESC, _flow_desc(_MATCH, struct.pack("!HH4x", 4, 0))),
    "action of length 0": _multipart(wire.FLOW_DESC, _flow_desc(_MATCH, struct.pack("!HH4x", 4, 16) + bytes(8))),
    "statistics of length 0": _multipart(
        wire.FLOW_DESC, struct.pack("!HHBxHHHHHQ", 40, 0, 2, 0, 0, 0, 0, 0, 0) + struct.pack("!HH4x", 1, 4) + bytes(8)
    ),
    "group of length 0": _multipart(wire.GROUP_STATS, bytes(40)),
    "meter band of length 0": _multipart(wire.METER_DESC, struct.pack("!HHI", 24, 0, 1) + bytes(16)),
    "port of length 0": _multipart(wire.PORT_DESC, bytes(40)),
    "port property of length 0": _multipart(
        wire.PORT_DESC, struct.pack("!IH2x6s2x16sII", 5, 48, b"", b"", 0, 0) + bytes(8)
    ),
    "table features of length 0": _multipart(12, bytes(64)),
    "queue description of length 0": _multipart(15, bytes(16)),
    "queue configuration of length 0": wire.message(23, bytes(24)),
    "bundle property of length 0": wire.message(wire.BUNDLE_CONTROL, struct.pack("!IHH", 1, 1, 0) + bytes(8)),
    "bundle with a message of length 0": wire.message(wire.BUNDLE_ADD, bytes(24)),
    "role property of length 0": wire.message(wire.ROLE_STATUS, bytes(16) + bytes(8)),
    "experimenter error of 4 bytes": wire.message(wire.ERROR, struct.pack("!HH", 0xFFFF, 0)),
    "header of length 0": struct.pack("!BBHI", wire.OPENFLOW_15, wire.ECHO_REQUEST, 0, 0),
    "header of length 7": struct.pack("!BBHI", wire.OPENFLOW_15, wire.ECHO_REQUEST, 7, 0),
    "64 KiB that never come": struct.pack("!BBHI", wire.OPENFLOW_15, wire.PACKET_IN, 0xFFFF, 0),
}

SAMPLES = (
    wire.hello(wire.OPENFLOW_15),
    wire.features(1, 3, wire.OPENFLOW_15),
    wire.packet_in(3, _MATCH, _FRAME, wire.OPENFLOW_15),
    wire.message(wire.FLOW_REMOVED, struct.pack("!BBHHHQ", 3, 0, 100, 300, 0, 9) + _MATCH + _STATISTICS),
    wire.port_status(wire.Port(5, "qn0123456789ab"), 0),
    wire.multipart(wire.PORT_DESC, [wire.port(wire.Port(5, "a"), 6), wire.port(wire.Port(6, "b"), 6)], 4, 6),
    _multipart(wire.FLOW_DESC, _flow_desc(_MATCH, struct.pack("!HH4xHHIH6x", 4, 24, 0, 16, 1, 0)) * 2),
    _multipart(wire.GROUP_STATS, struct.pack("!H2xI32x", 40, 9)),
    _multipart(wire.METER_DESC, struct.pack("!HHIHHII4x", 24, 0, 1, 1, 16, 300, 300)),
    wire.message(wire.ERROR, struct.pack("!HH", 4, 9) + bytes(64), 77),
    wire.message(wire.BUNDLE_CONTROL, struct.pack("!IHH", 1, 1, 3), 77),
    wire.message(wire.ROLE_STATUS, struct.pack("!IB3xQ", 2, 0, 1)),
    wire.message(wire.ROLE_REPLY, struct.pack("!I4xQ", 2, 1), 77),
    wire.message(wire.ECHO_REQUEST, b"payload"),
)


def mutated(chance: random.Random) -> bytes:
    """A sample with some of its bytes, its length or its end changed; the frame of the stream mostly stays whole."""
    data = bytearray(chance.choice(SAMPLES))
    for _ in range(chance.randrange(1, 5)):
        position = chance.randrange(1, len(data))
        if position not in (2, 3) or chance.random() < 0.05:
            data[position] = chance.choice((0, 1, 4, 7, 8, 255, chance.randrange(256)))
    if chance.random() < 0.3:
        cut = chance.randrange(8, len(data) + 9)
        data = data[:cut] + bytes(max(0, cut - len(data)))
        data[2:4] = len(data).to_bytes(2, "big")
    return bytes(data)


@dataclass(slots=True)
class Report:
    """What hostile peers did, and what the bystander noticed: round trips in seconds."""

    connections: int = 0
    messages: int = 0
    dropped: int = 0
    turned_away: int = 0
    round_trips: list[float] = field(default_factory=list)


class Bystander:
    """An honest peer that asks for echoes all the time and takes the time."""

    def __init__(self, port: int, context: ssl.SSLContext, datapath_id: int, report: Report) -> None:
        self._port, self._context, self._datapath_id, self._report = port, context, datapath_id, report
        self.ready = asyncio.Event()

    async def run(self, pause: float = 0.005) -> None:
        """Until cancelled. A connection that ends raises."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, ssl=self._context)
        await greet(reader, writer, self._datapath_id)
        self.ready.set()
        number = 0
        while True:
            number += 1
            began = time.perf_counter()
            writer.write(wire.message(wire.ECHO_REQUEST, b"", number))
            while True:
                kind, xid, _ = await read(reader)
                if kind == wire.ECHO_REQUEST:
                    writer.write(wire.message(wire.ECHO_REPLY, b"", xid))
                elif kind == wire.ECHO_REPLY and xid == number:
                    break
            self._report.round_trips.append(time.perf_counter() - began)
            await asyncio.sleep(pause)


async def read(reader: asyncio.StreamReader) -> tuple[int, int, bytes]:
    """The next message: type, xid and body."""
    _, kind, length, xid = struct.unpack("!BBHI", await reader.readexactly(8))
    return kind, xid, await reader.readexactly(length - 8)


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, datapath_id: int) -> None:
    """The handshake of an honest switch, up to the message that ends it."""
    writer.write(wire.hello(wire.OPENFLOW_15))
    while True:
        kind, xid, _ = await read(reader)
        if kind == wire.FEATURES_REQUEST:
            writer.write(wire.features(datapath_id, xid, wire.OPENFLOW_15))
        elif kind == wire.SET_ASYNC:
            return


async def attack(port: int, context: ssl.SSLContext | None, messages: Sequence[bytes], report: Report) -> int:
    """One connection that greets (with a certificate) and says these; returns how many it could say before its end."""
    report.connections += 1
    # An address of its own for each: one that has broken the protocol is turned away for a while.
    address = f"127.{1 + report.connections // 64000}.{report.connections // 250 % 256}.{1 + report.connections % 250}"
    try:
        async with asyncio.timeout(20):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=context, local_addr=(address, 0), server_hostname="" if context else None
            )
    except (OSError, TimeoutError):
        report.turned_away += 1
        return 0
    said = 0
    try:
        async with asyncio.timeout(20):
            if context is not None and messages[0][1] != wire.HELLO:
                await greet(reader, writer, 0xBAD)
            for message in messages:
                writer.write(message)
                await writer.drain()
                said += 1
            # A mark behind the last one: its answer says that all have been taken.
            writer.write(wire.message(wire.ECHO_REQUEST, b"", 0xFFFF0001))
            while (await read(reader))[:2] != (wire.ECHO_REPLY, 0xFFFF0001):
                pass
    except (OSError, asyncio.IncompleteReadError, TimeoutError, struct.error):
        report.dropped += 1
    finally:
        with contextlib.suppress(OSError):
            writer.transport.abort()
    report.messages += said
    return said
