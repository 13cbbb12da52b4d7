# SPDX-License-Identifier: Apache-2.0
"""What a controller says, read from the bytes alone by a decoder that shares nothing with the controller's encoder.

It reads what verification needs (key, cookie and instructions of flows, outputs, tunnel destinations, resubmits) and
refuses whatever is not well-formed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from . import wire

ADD, DELETE_STRICT = 0, 4
_APPLY, _GOTO = 4, 1
_OUTPUT, _GROUP, _SET_FIELD, _METER, _COPY_FIELD, _EXPERIMENTER = 0, 22, 25, 29, 28, 0xFFFF
_NICIRA = 0x2320
_FLOW_MOD = struct.Struct("!QQBBHHHIIIHH")


class Malformed(ValueError):
    """The controller has said something that is no OpenFlow."""


class Key(NamedTuple):
    """What makes two flows the same entry; `match` are the bytes of its OXM fields in order."""

    table: int
    priority: int
    match: tuple[tuple[int, bytes], ...]

    def value(self, header: int) -> bytes | None:
        """The body of the field with this OXM header, without length and mask bit."""
        return next((body for head, body in self.match if head & 0xFFFFFE00 == header), None)


@dataclass(frozen=True, slots=True)
class Action:
    """One action: its type (and Nicira subtype), and its body."""

    kind: int
    subtype: int
    body: bytes


@dataclass(frozen=True, slots=True)
class FlowMod:
    """An entry added or deleted; `goto` is the next table."""

    command: int
    key: Key
    cookie: int
    idle: int
    hard: int
    actions: tuple[Action, ...]
    goto: int | None

    @property
    def drops(self) -> bool:
        """Whether packets end here."""
        return not self.actions and self.goto is None


@dataclass(frozen=True, slots=True)
class PacketOut:
    """A packet sent back into the switch."""

    in_port: int | None
    actions: tuple[Action, ...]
    data: bytes


def messages(data: bytes | bytearray) -> Iterator[tuple[int, int, bytes]]:
    """The (type, xid, body) of each whole message."""
    offset = 0
    while offset + 8 <= len(data):
        _, kind, length, xid = struct.unpack_from("!BBHI", data, offset)
        if length < 8:
            raise Malformed(f"a message of type {kind} has length {length}")
        if offset + length > len(data):
            return
        yield kind, xid, bytes(data[offset + 8 : offset + length])
        offset += length


def _fields(data: bytes, offset: int) -> tuple[tuple[tuple[int, bytes], ...], int]:
    kind, length = struct.unpack_from("!HH", data, offset)
    end, after = offset + length, offset + (length + 7) // 8 * 8
    if kind != 1 or length < 4 or after > len(data):
        raise Malformed(f"a match of type {kind} and length {length}")
    found = []
    position = offset + 4
    while position < end:
        (head,) = struct.unpack_from("!I", data, position)
        size = head & 0xFF
        if size == 0 or position + 4 + size > end:
            raise Malformed(f"the OXM field {head:#x} leads out of its match")
        found.append((head, data[position + 4 : position + 4 + size]))
        position += 4 + size
    if any(data[end:after]):
        raise Malformed("the padding of a match is not zero")
    return tuple(found), after


def actions(data: bytes) -> Iterator[Action]:
    """The actions of a list."""
    offset = 0
    while offset < len(data):
        if offset + 8 > len(data):
            raise Malformed("an action is cut short")
        kind, size = struct.unpack_from("!HH", data, offset)
        if size < 8 or size % 8 or offset + size > len(data):
            raise Malformed(f"an action of type {kind} has length {size}")
        subtype = 0
        start = offset + 4
        if kind == _EXPERIMENTER:
            vendor, subtype = struct.unpack_from("!IH", data, start)
            start += 6
            if vendor != _NICIRA:
                raise Malformed(f"an action of vendor {vendor:#x}")
        elif kind not in (_OUTPUT, _GROUP, _SET_FIELD, _METER, _COPY_FIELD):
            raise Malformed(f"an action of type {kind}")
        yield Action(kind, subtype, data[start : offset + size])
        offset += size


def flow_mod(body: bytes) -> FlowMod:
    """FLOW_MOD (the same layout in 1.3 and 1.5)."""
    cookie, _, table, command, idle, hard, priority, *_ = _FLOW_MOD.unpack_from(body)
    fields, offset = _fields(body, _FLOW_MOD.size)
    done: tuple[Action, ...] = ()
    goto = None
    while offset < len(body):
        kind, size = struct.unpack_from("!HH", body, offset)
        if size < 8 or size % 8 or offset + size > len(body):
            raise Malformed(f"an instruction of type {kind} has length {size}")
        if kind == _APPLY:
            done = tuple(actions(body[offset + 8 : offset + size]))
        elif kind == _GOTO:
            goto = body[offset + 4]
        else:
            raise Malformed(f"an instruction of type {kind}")
        offset += size
    return FlowMod(command, Key(table, priority, fields), cookie, idle, hard, done, goto)


def packet_out(body: bytes, version: int) -> PacketOut:
    """PACKET_OUT: 1.5 names the port in a match, 1.3 in a field of its own."""
    if version == wire.OPENFLOW_13:
        _, port, size = struct.unpack_from("!IIH6x", body)
        return PacketOut(port, tuple(actions(body[16 : 16 + size])), body[16 + size :])
    _, size = struct.unpack_from("!IHxx", body)
    fields, offset = _fields(body, 8)
    number = next((int.from_bytes(value, "big") for head, value in fields if head == 0x80000004), None)
    return PacketOut(number, tuple(actions(body[offset : offset + size])), body[offset + size :])


def output_port(action: Action) -> int | None:
    """The port of an output action."""
    return int.from_bytes(action.body[:4], "big") if action.kind == _OUTPUT else None


def resubmit_table(action: Action) -> int | None:
    """The table of a resubmit (NXAST_RESUBMIT_TABLE)."""
    return action.body[2] if action.kind == _EXPERIMENTER and action.subtype == 14 else None


def written(flow: FlowMod, header: int) -> int | None:
    """The value that a set-field action of the flow writes into the field with this OXM header."""
    for action in flow.actions:
        if action.kind == _SET_FIELD:
            head = int.from_bytes(action.body[:4], "big")
            if head & 0xFFFFFE00 == header:
                size = (head & 0xFF) // (2 if head & 0x100 else 1)
                return int.from_bytes(action.body[4 : 4 + size], "big")
    return None
