# SPDX-License-Identifier: Apache-2.0
"""What is read without the codec: packets, removed flows, and the dumps that adoption compares.

These carry matches (see `oxm`), come in numbers, or hold actions that nobody needs to read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import cast

from ..pipeline.messages import (
    FlowKey,
    FlowRemoved,
    InstalledFlow,
    Match,
    Meter,
    PacketIn,
    RemovalReason,
    Tampered,
    Traffic,
)
from ..pipeline.tables import Table
from . import oxm
from .events import Dump
from .guard import GROUP_MOD, SHORT_UPDATE_EVENTS, Violation, elements
from .wire import BAND_DROP, METER_BURST, METER_PACKETS

_TABLE_AT, _MATCH_AT, _MATCH_LENGTH_AT = 15, 24, 26  # in a PACKET_IN
_REMEMBERED_MATCHES = 1 << 16
_fields_of: dict[bytes, dict[str, int]] = {}
_FLOW_REMOVED = Struct("!BBHHHQ")
_FLOW_DESC = Struct("!HxxBxHHHHHQ")
_METER, _BAND = Struct("!HHI"), Struct("!HHII4x")
_METER_STATS = 8  # ofp_meter_flags: Open vSwitch counts always

# ofp_oxs_class OPENFLOW_BASIC, OFPXST_OFB_PACKET_COUNT and _BYTE_COUNT
_OXS_PACKETS, _OXS_BYTES = 0x80020800, 0x80020A00

_REMOVED = 2  # ofp_flow_update_event
_DELETE = 2  # OFPGC_DELETE and OFPMC_DELETE
_ALL_GROUPS = 0xFFFFFF00

_TABLES: dict[int, Table] = {int(table): table for table in Table}
HIGHEST_METER = 0xFFFF0000


def key(table: int, priority: int, matching: Match) -> FlowKey:
    """The key of a flow. A table that the pipeline does not have stays a bare number."""
    return (_TABLES.get(table) or cast(Table, table), priority, matching)


def packet_in(data: bytes) -> PacketIn:
    """PACKET_IN: table, packet and pipeline fields."""
    # Packets of one pod come with the same fields over and over: their bytes are the key, so they are decoded once.
    length = data[_MATCH_LENGTH_AT] << 8 | data[_MATCH_LENGTH_AT + 1]
    matched = data[_MATCH_AT : _MATCH_AT + length]
    fields = _fields_of.get(matched)
    if fields is None:
        fields = _fields(matched)
    return PacketIn(data[_TABLE_AT], data[_MATCH_AT + length + -length % 8 + 2 :], fields)


def _fields(matched: bytes) -> dict[str, int]:
    """The pipeline fields of a match, which is remembered."""
    padded = matched + bytes(-len(matched) % 8)
    matching, _ = oxm.decode_match(padded, 0, len(padded))
    if len(_fields_of) >= _REMEMBERED_MATCHES:
        _fields_of.clear()
    found = _fields_of[matched] = {name: value for name, value, _ in matching}
    return found


def flow_removed(data: bytes) -> FlowRemoved:
    """FLOW_REMOVED."""
    table, reason, priority, _, _, cookie = _FLOW_REMOVED.unpack_from(data, 8)
    matching, _ = oxm.decode_match(data, 24, len(data))
    return FlowRemoved(key(table, priority, matching), cookie, reason)


def flows(data: bytes) -> Iterator[InstalledFlow]:
    """One part of a flow description."""
    for offset, length in elements(data, 16, len(data), what="flow", smallest=40, length_at=0):
        end = offset + length
        _, table, priority, _, _, _, _, cookie = _FLOW_DESC.unpack_from(data, offset)
        matching, after = oxm.decode_match(data, offset + 24, end)
        stop = _statistics_end(data, after, end)
        content = data[offset + 8 : offset + 16] + data[stop + (after - stop) % 8 : end]
        yield InstalledFlow(key(table, priority, matching), cookie, content)


def counted_flows(data: bytes, *, used: bool = False) -> Iterator[tuple[InstalledFlow, Traffic]]:
    """One part of a flow description, with what each flow has carried; `used`: none that has carried nothing."""
    for offset, length in elements(data, 16, len(data), what="flow", smallest=40, length_at=0):
        end, matched = offset + length, data[offset + 26] << 8 | data[offset + 27]
        traffic = _traffic(data, offset + 24 + matched + -matched % 8, end)
        if used and not traffic.packets:  # most flows that drop never do, and there are many
            continue
        _, table, priority, _, _, _, _, cookie = _FLOW_DESC.unpack_from(data, offset)
        matching, _ = oxm.decode_match(data, offset + 24, end)
        yield InstalledFlow(key(table, priority, matching), cookie), traffic


def _statistics_end(data: bytes, offset: int, end: int) -> int:
    """Where an ofp_stats ends, before its padding (OpenFlow 1.5.1, section 7.2.4)."""
    if offset + 4 > end or (stop := offset + int.from_bytes(data[offset + 2 : offset + 4], "big")) > end:
        raise Violation("the statistics of a flow lead out of it")
    return stop


def _traffic(data: bytes, offset: int, end: int) -> Traffic:
    """Read an ofp_stats: a header of 4 bytes, then OXS fields."""
    stop = _statistics_end(data, offset, end)
    found = {_OXS_PACKETS: 0, _OXS_BYTES: 0}
    position = offset + 4
    while position + 4 <= stop:
        head = int.from_bytes(data[position : position + 4], "big")
        after = position + 4 + (head & 0xFF)
        if after > stop:
            raise Violation("a statistic of a flow leads out of its list")
        found[head & 0xFFFFFE00] = int.from_bytes(data[position + 4 : after], "big")
        position = after
    return Traffic(found[_OXS_PACKETS], found[_OXS_BYTES])


def foreign_flows(data: bytes) -> Iterator[Tampered]:
    """What someone else did, in one part of a flow monitor's report.

    The switch abbreviates our own changes (OpenFlow 1.5.1, section 7.3.5.19.2); what expired is no one's doing.
    """
    for offset, length in elements(data, 16, len(data), what="flow update", smallest=8, length_at=0):
        event = int.from_bytes(data[offset + 2 : offset + 4], "big")
        if event in SHORT_UPDATE_EVENTS:
            continue
        table, reason, priority = data[offset + 4], data[offset + 5], data[offset + 10 : offset + 12]
        gone = event == _REMOVED
        if gone and reason in (RemovalReason.IDLE_TIMEOUT, RemovalReason.HARD_TIMEOUT):
            continue
        matching, _ = oxm.decode_match(data, offset + 24, offset + length)
        yield Tampered("flow", gone, key(table, int.from_bytes(priority, "big"), matching))


def foreign_request(data: bytes) -> Tampered:
    """The change of a group or a meter by someone else that a REQUESTFORWARD carries."""
    command = int.from_bytes(data[16:18], "big")
    number = int.from_bytes(data[20:24], "big")
    if data[9] == GROUP_MOD:
        return Tampered("group", command == _DELETE, number=None if number >= _ALL_GROUPS else number)
    return Tampered("meter", command == _DELETE, number=None if number >= HIGHEST_METER else number)


def groups(data: bytes) -> Iterator[tuple[int, int]]:
    """The groups in one part of group statistics and how many buckets each has.

    Descriptions of large groups exceed a message.
    """
    for offset, length in elements(data, 16, len(data), what="group", smallest=40, length_at=0):
        yield int.from_bytes(data[offset + 4 : offset + 8], "big"), (length - 40) // 16


def group_descriptions(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The groups in one part of a group description and what each does (`wire.group_description`)."""
    for offset, length in elements(data, 16, len(data), what="group", smallest=16, length_at=0):
        yield int.from_bytes(data[offset + 4 : offset + 8], "big"), data[offset + 2 : offset + length]


def meters(data: bytes) -> Iterator[Meter]:
    """One part of a meter description; the virtual meters of a switch are left out.

    A meter that does not just drop packets above a rate has the rate and burst 0, which none of ours has.
    """
    for offset, length in elements(data, 16, len(data), what="meter", smallest=8, length_at=0):
        _, flags, number = _METER.unpack_from(data, offset)
        if number > HIGHEST_METER:
            continue
        rate = burst = 0
        if length == _METER.size + _BAND.size and flags & ~_METER_STATS == METER_PACKETS | METER_BURST:
            kind, _, *limits = _BAND.unpack_from(data, offset + _METER.size)
            rate, burst = limits if kind == BAND_DROP else (0, 0)
        yield Meter(number, rate, burst)


@dataclass(frozen=True, slots=True)
class RawDump:
    """What a switch holds, as it has said it: parts of multipart replies."""

    flows: list[bytes]
    groups: list[bytes]
    descriptions: list[bytes]
    meters: list[bytes]

    def read(self) -> Dump:
        """The same, read. Takes about 10 µs for each flow."""
        return Dump(
            tuple(flow for part in self.flows for flow in flows(part)),
            {number: buckets for part in self.groups for number, buckets in groups(part)},
            {meter.id: meter for part in self.meters for meter in meters(part)},
            {number: does for part in self.descriptions for number, does in group_descriptions(part)},
        )
