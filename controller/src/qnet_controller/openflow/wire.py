# SPDX-License-Identifier: Apache-2.0
"""Commands as OpenFlow 1.5 bytes.

Hand-packed rather than left to the codec: these are the messages of the hot path, and the codec drops the padding of
a NAT action that is nested in a group bucket. Numbers are those of the OpenFlow 1.5.1 specification and, where they
begin with NX, of Open vSwitch (ovs-actions(7), nicira-ext.h).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from struct import Struct

from ..pipeline.fields import CT_MARK, IN_PORT, Bits, Field, whole
from ..pipeline.messages import (
    Action,
    Actions,
    AddFlow,
    AddMeter,
    Bucket,
    Command,
    Ct,
    DeleteFlow,
    DeleteGroup,
    DeleteMeter,
    Flow,
    FlushConnection,
    FlushZone,
    Goto,
    Group,
    Meter,
    Move,
    Nat,
    Output,
    OutputTo,
    PacketOut,
    PutGroup,
    Resubmit,
    Set,
    SetPassing,
    ToController,
    UseGroup,
    UseMeter,
    match,
)
from . import oxm

VERSION = 6
SAID_AGAIN = 0xFFFFFFFF
"""The transaction id of messages that are kept as bytes and sent to many switches, many times."""
NICIRA = 0x00002320
NO_BUFFER = 0xFFFFFFFF
ANY = 0xFFFFFFFF
MAX_LEN_WHOLE = 0xFFFF

# ofp_type
EXPERIMENTER, PACKET_OUT, FLOW_MOD, GROUP_MOD, PORT_MOD, METER_MOD = 4, 13, 14, 15, 16, 29
BUNDLE_CONTROL, BUNDLE_ADD = 33, 34
# ofp_flow_mod_command, ofp_flow_mod_flags
FLOW_ADD, FLOW_DELETE_STRICT = 0, 4
SEND_FLOW_REMOVED = 1
# ofp_group_mod_command, ofp_group_type, ofp_group_bucket
GROUP_ADD, GROUP_MODIFY, GROUP_DELETE, GROUP_INSERT_BUCKET = 0, 1, 2, 3
GROUP_SELECT = 1
BUCKET_LAST, BUCKET_ALL = 0xFFFFFFFE, 0xFFFFFFFF
# ofp_meter_mod_command, ofp_meter_flags, ofp_meter_band_type
METER_ADD, METER_MODIFY, METER_DELETE = 0, 1, 2
METER_PACKETS, METER_BURST = 2, 4
BAND_DROP = 1
# ofp_bundle_ctrl_type, ofp_bundle_flags
BUNDLE_OPEN, BUNDLE_COMMIT, BUNDLE_DISCARD = 0, 4, 6
BUNDLE_ATOMIC_ORDERED = 3
CT_FLUSH_ZONE, CT_FLUSH = 29, 32
PORT_NO_PACKET_IN = 1 << 6  # ofp_port_config
NETRONOME, NETRONOME_SELECTION = 0x0000154D, 1

MAX_BUCKET_BYTES = 24 * 1024
"""Buckets of one group-mod; a larger group is built in chunks (a message has at most 65535 bytes)."""

_HEADER = Struct("!BBHI")
_FLOW_MOD = Struct("!QQBBHHHIIIHH")
_FLOW_CONTENT = Struct("!HHHH")
_INSTRUCTION_APPLY = Struct("!HH4x")
_INSTRUCTION_GOTO = Struct("!HHB3x")
_GROUP_MOD = Struct("!HBxIHxxI")
_GROUP_DESC = Struct("!BxIH6x")
_BUCKET = Struct("!HHI")
_BUCKET_WEIGHT = Struct("!HHHxx")
_SELECTION = Struct("!HHII4x16sQ")
_METER_MOD = Struct("!HHIHHII4x")
_METER_DELETE = Struct("!HHI")
_PACKET_OUT = Struct("!IHxx")
_BUNDLE_CONTROL = Struct("!IHH")
_BUNDLE_ADD = Struct("!IxxH")
_FLUSH_ZONE = Struct("!II6xH")
_FLUSH = Struct("!IIB7x")
_FLUSH_OPENED = Struct("!HH4x")
_FLUSH_ADDRESS = Struct("!HH16s4x")
_FLUSH_PORT = Struct("!HHHxx")
_FLUSH_BYTE = Struct("!HHB3x")
# nx_ct_flush_tlv_type, nx_ct_flush_tuple_tlv_type
_FLUSH_ZONE_ID = 2
_FLUSH_SOURCE, _FLUSH_TARGET, _FLUSH_SPORT, _FLUSH_DPORT, _FLUSH_ICMP_ID, _FLUSH_ICMP_TYPE, _FLUSH_ICMP_CODE = range(7)
_ICMP_PROTOCOLS = (1, 58)
_MAPPED_IPV4 = bytes(10) + b"\xff\xff"
_PORT_MOD = Struct("!I4x6s2xII")

_OUTPUT = Struct("!HHIH6x")
_GROUP = Struct("!HHI")
_METER = Struct("!HHI")
_SET_FIELD = Struct("!HH")
_COPY_FIELD = Struct("!HHHHHxxII4x")
_NX = Struct("!HHIH")
_NX_OUTPUT_REG = Struct("!HIH6x")
_NX_RESUBMIT = Struct("!HB3x")
_NX_CT = Struct("!HIHB3xH")
_NX_NAT = Struct("!xxHH")

_NX_RESUBMIT_TABLE, _NX_OUTPUT_REG_SUBTYPE, _NX_CT_SUBTYPE, _NX_NAT_SUBTYPE = 14, 15, 35, 36
_NX_IN_PORT = 0xFFF8
_CT_COMMIT, _CT_NO_TABLE = 1, 0xFF
_NAT_SOURCE, _NAT_DESTINATION = 1, 2
_NAT_IPV4_MIN, _NAT_IPV6_MIN = 1, 4


def message(kind: int, body: bytes, xid: int) -> bytes:
    """A message with its header."""
    return _HEADER.pack(VERSION, kind, 8 + len(body), xid) + body


# -- actions ---------------------------------------------------------------------------------------------------


def _nicira(subtype: int, body: bytes) -> bytes:
    length = 10 + len(body)
    padding = -length % 8
    return _NX.pack(0xFFFF, length + padding, NICIRA, subtype) + body + bytes(padding)


def _set(action: Set) -> bytes:
    target = action.target
    if action.value >> target.width:
        raise ValueError(f"{action.value:#x} does not fit the {target.width} bits of {target.name}")
    body = oxm.encode_term(target.field.name, action.value << target.offset, target.mask)
    length = 4 + len(body)
    padding = -length % 8
    return _SET_FIELD.pack(25, length + padding) + body + bytes(padding)


def _move(action: Move) -> bytes:
    source, target = action.source, action.target
    if source.width != target.width:
        raise ValueError(f"{source.name} and {target.name} differ in width")
    heads = oxm.header(source.field.name), oxm.header(target.field.name)
    return _COPY_FIELD.pack(28, 24, source.width, source.offset, target.offset, *heads)


def _part(bits: Bits) -> int:
    """`ofs_nbits` of the Nicira extensions."""
    return bits.offset << 6 | (bits.width - 1)


def _output_to(action: OutputTo) -> bytes:
    body = _NX_OUTPUT_REG.pack(_part(action.port), oxm.header(action.port.field.name), MAX_LEN_WHOLE)
    return _nicira(_NX_OUTPUT_REG_SUBTYPE, body)


def _ct(action: Ct) -> bytes:
    if isinstance(action.zone, Bits):
        source, zone = oxm.header(action.zone.field.name), _part(action.zone)
    else:
        source, zone = 0, action.zone
    table = _CT_NO_TABLE if action.table is None else int(action.table)
    body = _NX_CT.pack(_CT_COMMIT if action.commit else 0, source, zone, table, 0)
    nested = _nat(action.nat) if action.nat else b""
    if action.mark is not None:
        nested += _move(Move(action.mark, whole(CT_MARK)))
    return _nicira(_NX_CT_SUBTYPE, body + nested)


def _nat(nat: Nat) -> bytes:
    if nat.kind == "lookup":
        return _nicira(_NX_NAT_SUBTYPE, _NX_NAT.pack(0, 0))
    direction = _NAT_SOURCE if nat.kind == "source" else _NAT_DESTINATION
    family = _NAT_IPV4_MIN if len(nat.address) == 4 else _NAT_IPV6_MIN
    return _nicira(_NX_NAT_SUBTYPE, _NX_NAT.pack(direction, family) + nat.address)


_ENCODERS: dict[type, Callable[..., bytes]] = {
    Set: _set,
    Move: _move,
    Output: lambda action: _OUTPUT.pack(0, 16, action.port, 0),
    OutputTo: _output_to,
    ToController: lambda _: _OUTPUT.pack(0, 16, 0xFFFFFFFD, MAX_LEN_WHOLE),
    UseGroup: lambda action: _GROUP.pack(22, 8, action.group),
    UseMeter: lambda action: _METER.pack(29, 8, action.meter),
    Resubmit: lambda action: _nicira(_NX_RESUBMIT_TABLE, _NX_RESUBMIT.pack(_NX_IN_PORT, action.table)),
    Ct: _ct,
}


@lru_cache(1 << 16)
def encode_action(action: Action) -> bytes:
    """One action of a list; `Goto` is an instruction and has no place in one."""
    return _ENCODERS[type(action)](action)


def encode_actions(actions: Actions) -> bytes:
    """An action list."""
    return b"".join(map(encode_action, actions))


_REMEMBERED_ACTIONS = 1 << 14
_instructions: dict[int, tuple[Actions, bytes]] = {}


def encode_instructions(actions: Actions) -> bytes:
    """The instructions of a flow: apply-actions and, when the last action is `Goto`, goto-table."""
    # By identity, as with the heads of packet-outs: flows of the plan share their actions.
    known = _instructions.get(id(actions))
    if known is not None:
        return known[1]
    if len(_instructions) >= _REMEMBERED_ACTIONS:
        _instructions.clear()
    encoded = _encode_instructions(actions)
    _instructions[id(actions)] = (actions, encoded)
    return encoded


def _encode_instructions(actions: Actions) -> bytes:
    goto = b""
    if actions and isinstance(actions[-1], Goto):
        goto = _INSTRUCTION_GOTO.pack(1, 8, actions[-1].table)
        actions = actions[:-1]
    if not actions:
        return goto
    body = encode_actions(actions)
    return _INSTRUCTION_APPLY.pack(4, 8 + len(body)) + body + goto


# -- commands --------------------------------------------------------------------------------------------------


def _add_flow(command: AddFlow) -> tuple[tuple[int, bytes]]:
    flow = command.flow
    return ((FLOW_MOD, flow.encoded[8:] or _encode_flow(flow)),)


def flow_message(flow: Flow) -> bytes:
    """The whole flow-mod that adds a flow, with the transaction id SAID_AGAIN; encoded once."""
    encoded = flow.encoded
    if not encoded:
        encoded = message(FLOW_MOD, _encode_flow(flow), SAID_AGAIN)
        object.__setattr__(flow, "encoded", encoded)
    return encoded


def group_messages(group: Group) -> tuple[bytes, ...]:
    """The whole group-mods that add a group, with the transaction id SAID_AGAIN; encoded once."""
    if not group.encoded:
        adding = _put_group(PutGroup(group, exists=False))
        object.__setattr__(group, "encoded", tuple(message(kind, body, SAID_AGAIN) for kind, body in adding))
    return group.encoded


def _encode_flow(flow: Flow) -> bytes:
    flags = SEND_FLOW_REMOVED if flow.notify else 0
    head = _FLOW_MOD.pack(
        flow.cookie, 0, flow.table, FLOW_ADD, flow.idle_timeout, flow.hard_timeout, flow.priority,
        NO_BUFFER, ANY, ANY, flags, 0,
    )  # fmt: skip
    return head + oxm.encode_match(flow.match) + encode_instructions(flow.actions)


def flow_content(flow: Flow) -> bytes:
    """What a flow does, in the bytes in which a switch describes it: idle and hard timeout, flags, instructions."""
    flags = SEND_FLOW_REMOVED if flow.notify else 0
    return _FLOW_CONTENT.pack(flow.idle_timeout, flow.hard_timeout, flags, 0) + encode_instructions(flow.actions)


def _delete_flow(command: DeleteFlow) -> Iterator[tuple[int, bytes]]:
    table, priority, matching = command.key
    head = _FLOW_MOD.pack(0, 0, table, FLOW_DELETE_STRICT, 0, 0, priority, NO_BUFFER, ANY, ANY, 0, 0)
    yield FLOW_MOD, head + oxm.encode_match(matching)


def _bucket(bucket: Bucket) -> bytes:
    actions = encode_actions(bucket.actions)
    return _BUCKET.pack(16 + len(actions), len(actions), bucket.id) + actions + _BUCKET_WEIGHT.pack(0, 8, bucket.weight)


def _group_mod(command: int, group: int, buckets: bytes, where: int, selection: bytes = b"") -> bytes:
    return _GROUP_MOD.pack(command, GROUP_SELECT, group, len(buckets), where) + buckets + selection


def _selection(hashed: tuple[Field, ...]) -> bytes:
    """How the bucket is chosen: the Netronome selection method property of Open vSwitch (ovs-ofctl(8), add-group).

    Said always: without it Open vSwitch hashes no UDP ports, and all of a pod's datagrams go to one backend.
    """
    fields = b"".join(oxm.encode_term(field.name, field.full, field.full) for field in hashed)
    method = b"hash" if hashed else b"dp_hash"
    length = _SELECTION.size + len(fields)
    head = _SELECTION.pack(0xFFFF, length, NETRONOME, NETRONOME_SELECTION, method, 0)
    return head + fields + bytes(-length % 8)


def _put_group(command: PutGroup) -> Iterator[tuple[int, bytes]]:
    group: Group = command.group
    verb, where = (GROUP_MODIFY if command.exists else GROUP_ADD), BUCKET_ALL
    chunk = bytearray()
    selection = _selection(group.hashed)
    for bucket in map(_bucket, group.buckets):
        if chunk and len(chunk) + len(bucket) > MAX_BUCKET_BYTES:
            yield GROUP_MOD, _group_mod(verb, group.id, bytes(chunk), where, selection)
            selection = b""
            verb, where = GROUP_INSERT_BUCKET, BUCKET_LAST
            chunk.clear()
        chunk += bucket
    yield GROUP_MOD, _group_mod(verb, group.id, bytes(chunk), where, selection)


def group_description(group: Group) -> bytes:
    """What a group does, in the bytes in which a switch describes it; without the length, which has 16 bits only."""
    buckets = b"".join(map(_bucket, group.buckets))
    return _GROUP_DESC.pack(GROUP_SELECT, group.id, len(buckets)) + buckets + _selection(group.hashed)


def _delete_group(command: DeleteGroup) -> Iterator[tuple[int, bytes]]:
    yield GROUP_MOD, _group_mod(GROUP_DELETE, command.id, b"", BUCKET_ALL)


def _add_meter(command: AddMeter) -> Iterator[tuple[int, bytes]]:
    meter: Meter = command.meter
    flags = METER_PACKETS | METER_BURST
    how = METER_MODIFY if command.exists else METER_ADD
    yield METER_MOD, _METER_MOD.pack(how, flags, meter.id, BAND_DROP, 16, meter.rate, meter.burst)


def _delete_meter(command: DeleteMeter) -> Iterator[tuple[int, bytes]]:
    yield METER_MOD, _METER_DELETE.pack(METER_DELETE, 0, command.id)


def _flush_zone(command: FlushZone) -> Iterator[tuple[int, bytes]]:
    yield EXPERIMENTER, _FLUSH_ZONE.pack(NICIRA, CT_FLUSH_ZONE, command.zone)


def _mapped(address: bytes) -> bytes:
    return address if len(address) == 16 else _MAPPED_IPV4 + address


def _flush_connection(command: FlushConnection) -> Iterator[tuple[int, bytes]]:
    # The tuple of the opener alone, complete: Open vSwitch then looks one connection up and does not walk through all.
    protocol, source, target, sport, dport = command.opened
    body = _FLUSH_ADDRESS.pack(_FLUSH_SOURCE, 20, _mapped(source))
    body += _FLUSH_ADDRESS.pack(_FLUSH_TARGET, 20, _mapped(target))
    if protocol in _ICMP_PROTOCOLS:
        body += _FLUSH_PORT.pack(_FLUSH_ICMP_ID, 8, sport)
        body += _FLUSH_BYTE.pack(_FLUSH_ICMP_TYPE, 5, dport >> 8) + _FLUSH_BYTE.pack(_FLUSH_ICMP_CODE, 5, dport & 0xFF)
    else:
        body += _FLUSH_PORT.pack(_FLUSH_SPORT, 8, sport) + _FLUSH_PORT.pack(_FLUSH_DPORT, 8, dport)
    head = _FLUSH.pack(NICIRA, CT_FLUSH, protocol) + _FLUSH_OPENED.pack(0, _FLUSH_OPENED.size + len(body))
    yield EXPERIMENTER, head + body + _FLUSH_PORT.pack(_FLUSH_ZONE_ID, 8, command.zone)


def _set_passing(command: SetPassing) -> Iterator[tuple[int, bytes]]:
    config = PORT_NO_PACKET_IN if command.passing else 0
    yield PORT_MOD, _PORT_MOD.pack(command.port, command.hardware, config, PORT_NO_PACKET_IN)


_COMMANDS: dict[type, Callable[..., Iterable[tuple[int, bytes]]]] = {
    AddFlow: _add_flow,
    DeleteFlow: _delete_flow,
    PutGroup: _put_group,
    DeleteGroup: _delete_group,
    AddMeter: _add_meter,
    DeleteMeter: _delete_meter,
    FlushZone: _flush_zone,
    FlushConnection: _flush_connection,
    SetPassing: _set_passing,
}


def encode_command(command: Command) -> list[tuple[int, bytes]]:
    """The messages of one command, each as (type, body)."""
    return list(_COMMANDS[type(command)](command))


def encode_packet_out(packet: PacketOut, xid: int) -> bytes:
    """A packet-out message."""
    return message(PACKET_OUT, _packet_out_head(packet.in_port, packet.actions) + packet.data, xid)


_REMEMBERED_HEADS = 1 << 16
_heads: dict[tuple[int, int], tuple[Actions, bytes]] = {}


def _packet_out_head(in_port: int, actions: Actions) -> bytes:
    # By the identity of the actions, which are shared (`pipeline.packet.again`): their hash would cost more than all
    # else. They are kept with the head, so that no others can come to have their identity.
    known = _heads.get((in_port, id(actions)))
    if known is not None:
        return known[1]
    if len(_heads) >= _REMEMBERED_HEADS:
        _heads.clear()
    encoded = encode_actions(actions)
    head = _PACKET_OUT.pack(NO_BUFFER, len(encoded)) + oxm.encode_match(match((IN_PORT, in_port))) + encoded
    _heads[in_port, id(actions)] = (actions, head)
    return head


def bundle_control(bundle: int, what: int, xid: int) -> bytes:
    """OFPT_BUNDLE_CONTROL for an atomic, ordered bundle."""
    return message(BUNDLE_CONTROL, _BUNDLE_CONTROL.pack(bundle, what, BUNDLE_ATOMIC_ORDERED), xid)


def bundle_add(bundle: int, kind: int, body: bytes, xid: int) -> bytes:
    """OFPT_BUNDLE_ADD_MESSAGE; the message inside carries the same xid (OpenFlow 1.5.1, 7.3.9.6)."""
    head = _BUNDLE_ADD.pack(bundle, BUNDLE_ATOMIC_ORDERED)
    return message(BUNDLE_ADD, head + message(kind, body, xid), xid)
