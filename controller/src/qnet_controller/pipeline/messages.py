# SPDX-License-Identifier: Apache-2.0
"""Flows, groups, meters, actions and commands as plain immutable data.

`openflow` turns them into bytes and back; the simulated switch of the tests executes them.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Literal, NamedTuple

from .fields import Bits, Field
from .tables import Table

PORT_IN_PORT = 0xFFFFFFF8
PORT_CONTROLLER = 0xFFFFFFFD

Match = tuple[tuple[str, int, int], ...]
"""(field name, value, mask) sorted by field name; the value has no bit outside of the mask."""


def match(*terms: tuple[Field | Bits, int] | tuple[Field | Bits, int, int]) -> Match:
    """Build a match from (field or bits, value[, mask]) terms; parts of one register are joined.

    Raises:
        ValueError: a value does not fit its field or mask, or two terms claim the same bits.
    """
    merged: dict[str, tuple[str, int, int]] = {}
    for term in terms:
        what, value = term[0], term[1]
        if isinstance(what, Bits):
            name, mask = what.field.name, what.mask
            value <<= what.offset
        else:
            name, mask = what.name, term[2] if len(term) == 3 else what.full
        if value & ~mask:
            raise ValueError(f"{what.name}={value:#x} does not fit mask {mask:#x}")
        if name in merged:
            _, old_value, old_mask = merged[name]
            if old_mask & mask:
                raise ValueError(f"{name} is matched twice")
            merged[name] = (name, old_value | value, old_mask | mask)
        else:
            merged[name] = (name, int(value), mask)
    return tuple(sorted(map(_shared, merged.values())))


_SHARED_TERMS = 1 << 16
_terms: dict[tuple[str, int, int], tuple[str, int, int]] = {}


def _shared(term: tuple[str, int, int]) -> tuple[str, int, int]:
    """The same tuple for the same term: most of the terms of many flows are alike, and there are many flows."""
    if len(_terms) >= _SHARED_TERMS:
        _terms.clear()
    return _terms.setdefault(term, term)


@dataclass(frozen=True, slots=True)
class Set:
    """Write an immediate `value` into `target` (OpenFlow 1.5 set-field, masked when a part)."""

    target: Bits
    value: int


@dataclass(frozen=True, slots=True)
class Move:
    """Copy `source` to `target`; both have the same width."""

    source: Bits
    target: Bits


@dataclass(frozen=True, slots=True)
class Output:
    """Send out of a port by number."""

    port: int


@dataclass(frozen=True, slots=True)
class OutputTo:
    """Send out of the port whose number is in `port`."""

    port: Bits


@dataclass(frozen=True, slots=True)
class ToController:
    """Send the packet to the controller, whole."""


@dataclass(frozen=True, slots=True)
class UseGroup:
    """Hand the packet to a group."""

    group: int


@dataclass(frozen=True, slots=True)
class UseMeter:
    """Pass a meter; packets above its rate are dropped here."""

    meter: int


@dataclass(frozen=True, slots=True)
class Goto:
    """Continue in a later table; always the last action."""

    table: Table


@dataclass(frozen=True, slots=True)
class Resubmit:
    """Look the packet up in `table` now (packet-outs only)."""

    table: Table


@dataclass(frozen=True, slots=True)
class Nat:
    """NAT of a ct action: `lookup` applies an existing translation; `source`/`destination` commits one to `address`."""

    kind: Literal["lookup", "source", "destination"]
    address: bytes = b""


@dataclass(frozen=True, slots=True)
class Ct:
    """Connection tracking (`ct()` of ovs-actions(7)); continues in `table` after recirculation, if given.

    With `commit` the connection gets `mark` as its ct_mark, if given.
    """

    zone: int | Bits
    table: Table | None = None
    commit: bool = False
    nat: Nat | None = None
    mark: Bits | None = None


Action = Set | Move | Output | OutputTo | ToController | UseGroup | UseMeter | Goto | Resubmit | Ct
Actions = tuple[Action, ...]


class Feature(IntEnum):
    """What a flow is there for; the second byte of its cookie."""

    FRAME = 1  # the static skeleton
    POD = 2
    NETWORK = 3
    PLAN = 4
    PORTS = 5
    SERVICE = 6
    LOCATION = 7
    IDENTITY = 8
    HAIRPIN = 9
    REFUSED = 10
    ANSWERS = 11
    HEALTH = 12
    ARRIVED = 13
    SCOPE = 14  # a refusal that covers more than a pair
    ASKS = 15  # what it leaves open
    OUTSIDE = 16
    BROADCAST = 17
    KEPT = 18  # by a client: the pod that it was given
    # Reasons to drop that are counted apart; all of them have the bit of DROP_REASONS.
    SPOOFED_MAC = 64
    SPOOFED_IP = 65
    SPOOFED_ARP = 66
    SPOOFED_ND = 67
    ROUTER = 68
    DHCP = 69
    GROUP_ADDRESS = 70
    NOT_IP = 71
    FORGED_TUNNEL = 72
    QUARANTINED = 73


COOKIE_MAGIC = 0x71  # "q"
DROP_REASONS = 0x40


@lru_cache(1 << 16)
def object_hash(key: str) -> int:
    """The 32-bit hash by which a cookie names its object, e.g. `pod fop/image-1` or `export alice/resize->entry`."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")


def cookie(feature: Feature, key: str, content: object) -> int:
    """64 bits: magic 8, feature 8, digest of the content 16, object 32.

    The digest lets adoption compare a flow read from a switch with the wanted one without comparing actions.
    """
    digest = zlib.crc32(_canonical(content).encode()) & 0xFFFF
    return COOKIE_MAGIC << 56 | feature << 48 | digest << 32 | object_hash(key)


@lru_cache(1 << 16)
def _canonical(content: object) -> str:
    """The same text for what is equal, in every process: an enumeration is its number."""
    if isinstance(content, int):
        return str(int(content))
    if isinstance(content, tuple):
        return f"({','.join(map(_canonical, content))})"
    if is_dataclass(content):
        parts = (_canonical(getattr(content, one.name)) for one in fields(content) if one.compare)
        return f"{type(content).__name__}({','.join(parts)})"
    return repr(content)


FlowKey = tuple[Table, int, Match]


@dataclass(frozen=True, slots=True)
class Flow:
    """One flow entry. Timeouts in seconds, 0 is never; `notify`: the switch says when the flow has expired."""

    table: Table
    priority: int
    match: Match
    actions: Actions
    cookie: int
    idle_timeout: int = 0
    hard_timeout: int = 0
    notify: bool = False
    encoded: bytes = field(default=b"", init=False, repr=False, compare=False)
    """Kept by `openflow.wire`: the same flow is sent to many switches."""

    @property
    def key(self) -> FlowKey:
        """What makes two flows the same entry to a switch."""
        return (self.table, self.priority, self.match)


def flow(
    table: Table,
    priority: int,
    matching: Match,
    actions: Actions,
    feature: Feature,
    owner: str,
    *,
    idle: int = 0,
    hard: int = 0,
    notify: bool = False,
) -> Flow:
    """A flow whose cookie is derived from its content and the object `owner` it serves."""
    mark = cookie(feature, owner, (actions, idle, hard, notify))
    return Flow(table, priority, matching, actions, mark, idle, hard, notify)


@dataclass(frozen=True, slots=True)
class Bucket:
    """One bucket of a select group; `id` is stable for its backend."""

    id: int
    weight: int
    actions: Actions


@dataclass(frozen=True, slots=True)
class Group:
    """A select group.

    A connection takes the bucket that a hash of its addresses, protocol and ports picks (`dp_hash`). With `hashed` only
    those fields count (`hash`), and a bucket that comes or goes moves no more than its own share. See `balance`.
    """

    id: int
    buckets: tuple[Bucket, ...]
    hashed: tuple[Field, ...] = ()
    encoded: tuple[bytes, ...] = field(default=(), init=False, repr=False, compare=False)
    """Kept by `openflow.wire`, as with flows."""

    @property
    def has_parts(self) -> bool:
        """Whether it hands on to other groups, which must be there before it."""
        return any(isinstance(action, UseGroup) for bucket in self.buckets for action in bucket.actions)


@dataclass(frozen=True, slots=True)
class Meter:
    """A meter that drops above `rate` packets per second with a burst of `burst` packets."""

    id: int
    rate: int
    burst: int


@dataclass(frozen=True, slots=True)
class AddFlow:
    """Add a flow, or replace the one with the same key."""

    flow: Flow


@dataclass(frozen=True, slots=True)
class DeleteFlow:
    """Delete exactly one flow."""

    key: FlowKey


@dataclass(frozen=True, slots=True)
class PutGroup:
    """Add a group, or with `exists` replace its buckets."""

    group: Group
    exists: bool


@dataclass(frozen=True, slots=True)
class DeleteGroup:
    """Delete a group."""

    id: int


@dataclass(frozen=True, slots=True)
class AddMeter:
    """Add a meter, or with `exists` change it."""

    meter: Meter
    exists: bool = False


@dataclass(frozen=True, slots=True)
class DeleteMeter:
    """Delete a meter."""

    id: int


@dataclass(frozen=True, slots=True)
class FlushZone:
    """Forget every connection of a conntrack zone (NXT_CT_FLUSH_ZONE)."""

    zone: int


class Tuple(NamedTuple):
    """One direction of a connection on the wire. ICMP: `sport` is the identifier, `dport` is type << 8 | code."""

    protocol: int
    source: bytes
    target: bytes
    sport: int
    dport: int


@dataclass(frozen=True, slots=True)
class FlushConnection:
    """Forget one connection of a conntrack zone (NXT_CT_FLUSH): the one whose opener sends `opened`."""

    zone: int
    opened: Tuple


Flush = FlushZone | FlushConnection


@dataclass(frozen=True, slots=True)
class SetPassing:
    """Say with a port whether the pod behind it passes its health check; `hardware` is the port's own MAC address."""

    port: int
    hardware: bytes
    passing: bool


Command = AddFlow | DeleteFlow | PutGroup | DeleteGroup | AddMeter | DeleteMeter | Flush | SetPassing
Commands = tuple[Command, ...]


@dataclass(frozen=True, slots=True)
class PacketOut:
    """A packet that the controller puts back into the pipeline."""

    data: bytes
    in_port: int
    actions: Actions


@dataclass(frozen=True, slots=True)
class PacketIn:
    """A packet that missed in `table`. `fields`: pipeline fields the switch sent (in_port, tun_id, tun_src, reg0 …)."""

    table: int
    data: bytes
    fields: Mapping[str, int] = field(default_factory=dict)


class RemovalReason(IntEnum):
    """Why a flow went (OpenFlow 1.5, ofp_flow_removed_reason)."""

    IDLE_TIMEOUT = 0
    HARD_TIMEOUT = 1
    DELETE = 2
    GROUP_DELETE = 3
    METER_DELETE = 4
    EVICTION = 5


@dataclass(frozen=True, slots=True)
class FlowRemoved:
    """A flow with `notify` is gone."""

    key: FlowKey
    cookie: int
    reason: int


@dataclass(frozen=True, slots=True)
class InstalledFlow:
    """A flow as read back from a switch.

    The digest in the cookie says what it should do; `content`, in the bytes of the wire, what it does
    (`openflow.wire.flow_content`): others can change that and leave the cookie.
    """

    key: FlowKey
    cookie: int
    content: bytes = field(default=b"", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a flow has carried so far, in packets and bytes."""

    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Tampered:
    """Someone else has changed a flow (`key`), a group or a meter (`number`; None: all of them) of the switch.

    `gone`: it has been deleted; otherwise it is there, but nobody knows with what content.
    """

    kind: Literal["flow", "group", "meter"]
    gone: bool
    key: FlowKey | None = None
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Installed:
    """Everything read back from a switch when a master adopts it."""

    flows: tuple[InstalledFlow, ...]
    groups: frozenset[int]
    meters: Mapping[int, Meter]


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a switch as OpenFlow reports it.

    `live`: neither administratively down nor without link. `passing`: see `SetPassing`; `hardware` is its MAC address.
    """

    number: int
    name: str
    live: bool
    passing: bool = False
    hardware: bytes = b""
