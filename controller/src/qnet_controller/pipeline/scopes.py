# SPDX-License-Identifier: Apache-2.0
"""Refusals that cover more than a pair: who keeps asking for what is refused is refused everything at once.

A scope refuses a source group the whole of an address space and leaves open, with flows that ask, the blocks in which
something may be allowed. Those blocks are the addresses themselves as long as they are few. For a group that may reach
many they are as few blocks as `MOST_BLOCKS`, and a second refusal inside of one makes a scope of that block.

Nothing that is allowed is ever refused: whatever scopes there are, an address that their group may reach lies in a
block of each scope that covers it, and a block has precedence over the refusal of its own scope and of those above.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from ..decide.decide import Origin
from ..decide.reach import reach
from ..model.model import Model
from ..model.objects import Address
from .family import FAMILIES, Family, family, number
from .fields import ORIGIN, SOURCE_GROUP, VNI, Bits, Field
from .messages import Feature, Flow, Goto, Match, flow, match
from .tables import Table
from .wanted import Program

MOST_BLOCKS = 64
MOST_ADDRESSES = 1 << 14  # what a group may reach; beyond it every pair is refused by itself
_LEVELS = 3
_LOWEST = 20  # above the flows that ask, below those of pairs


class Block(NamedTuple):
    """Addresses with the same first `prefix` bits; `bits` is 32 or 128."""

    start: int
    prefix: int
    bits: int

    @property
    def mask(self) -> int:
        """The bits that count."""
        return (1 << self.bits) - (1 << self.bits - self.prefix)

    def has(self, address: int) -> bool:
        """Whether an address of the same family lies in the block."""
        return address & self.mask == self.start


class Scope(NamedTuple):
    """The demand that a wide refusal is: all that a group sends into a block, but for the blocks left open in it."""

    origin: Origin
    vni: int
    group: int
    level: int
    block: Block


def everything(ip: Family) -> Block:
    """All addresses of a family."""
    return Block(0, 0, ip.bytes * 8)


def _largest(model: Model, vni: int, group: int, ip: Family, target: int) -> Block | None:
    """All addresses of a family; for a group that goes outside, the subnet of its network that the target is in.

    Outside, such a group is refused by blocks that are treated alike, of which there are few (`decide/outside.py`).
    """
    found, network = model.group_by_number.get(group), model.network_by_vni.get(vni)
    if found is None or not any(family(rule.to.address) is ip for rule in found.egress):
        return everything(ip)
    subnets = (*network.pod_subnets, *network.service_subnets) if network else ()
    ours = (Block(number(s.address), s.prefix, ip.bytes * 8) for s in subnets if family(s.address) is ip)
    return next((block for block in ours if block.has(target)), None)


def scope_of(model: Model, origin: Origin, vni: int, group: int, address: Address) -> Scope | None:
    """The widest scope that may refuse an address to a group; None when only the pair can be refused."""
    target = number(address)
    block = _largest(model, vni, group, family(address), target)
    if block is None:
        return None
    for level in range(_LEVELS):
        scope = Scope(origin, vni, group, level, block)
        left = left_open(model, scope)
        if left is None:
            return None
        inside = next((one for one in left if one.has(target)), None)
        if inside is None:
            return scope
        if inside == block:
            return None
        block = inside
    return None


def left_open(model: Model, scope: Scope) -> tuple[Block, ...] | None:
    """The blocks of a scope in which something may be allowed; None when it cannot be told, so all may be."""
    key = ("left open", scope.vni, scope.group, scope.block)
    return model.recall(key, lambda: (_left_open(model, scope),))[0]


def _left_open(model: Model, scope: Scope) -> tuple[Block, ...] | None:
    network = model.network_by_vni.get(scope.vni)
    found = reach(model, network.name, scope.group) if network else None
    if found is None or len(found.addresses) > MOST_ADDRESSES:
        return None
    inside = (number(item) for item in found.addresses if len(item) * 8 == scope.block.bits)
    return cover((item for item in inside if scope.block.has(item)), scope.block.bits)


def cover(addresses: Iterable[int], bits: int, most: int = MOST_BLOCKS) -> tuple[Block, ...]:
    """At most `most` blocks that hold all of the addresses; none of them lies in another.

    The widest gaps between neighbours are left out; what lies between two of them becomes one block.
    """
    ordered = sorted(set(addresses))
    gaps = sorted(range(1, len(ordered)), key=lambda place: ordered[place - 1] - ordered[place])
    cuts = [0, *sorted(gaps[: most - 1]), len(ordered)]
    ends = [(ordered[start], ordered[stop - 1]) for start, stop in pairwise(cuts) if start < stop]
    found: list[Block] = []
    for first, last in ends:
        prefix = bits - (first ^ last).bit_length()
        block = Block(first >> bits - prefix << bits - prefix, prefix, bits)
        while found and block.has(found[-1].start) and block.prefix <= found[-1].prefix:
            found.pop()
        if not found or not found[-1].has(block.start):
            found.append(block)
    return tuple(found)


def scope_program(model: Model, scope: Scope, seconds: int) -> Program | None:
    """The refusal, for as many seconds, and the flows that ask; None when it makes no sense any more."""
    network = model.network_by_vni.get(scope.vni)
    found = reach(model, network.name, scope.group) if network else None
    left = left_open(model, scope)
    if found is None or left is None or scope.block in left:
        return None
    ip = next(one for one in FAMILIES if one.bytes * 8 == scope.block.bits)
    largest = _largest(model, scope.vni, scope.group, ip, scope.block.start)
    if largest is None or not largest.has(scope.block.start) or scope.block.prefix < largest.prefix:
        return None
    group = model.group_by_number.get(scope.group)
    owner = f"group {group.name}" if group else "nobody"
    program = Program(depends=set(found.depends) | ({("egress", group.name)} if group else set()))
    priority = _LOWEST + 2 * scope.level
    program.add_root(
        flow(Table.PLAN, priority, match(*_asked(scope, scope.block)), (), Feature.SCOPE, owner,
             hard=seconds, notify=True)
    )  # fmt: skip
    # There are up to `MOST_BLOCKS` of them, alike but for the block, and whoever has asked waits for them.
    asks = flow(Table.PLAN, priority + 1, (), (Goto(Table.ASK),), Feature.ASKS, owner)
    sent = match(*_asked(scope, everything(ip)))
    for block in left:
        program.add(Flow(asks.table, asks.priority, _towards(sent, ip, block), asks.actions, asks.cookie))
    return program


def _towards(sent: Match, ip: Family, block: Block) -> Match:
    """The match of what is sent into a block: `match(*_asked(scope, block))`, of one for all addresses."""
    ethernet, *sender = sent  # in the order of their names
    return (ethernet, (ip.target.name, block.start, block.mask), *sender) if block.prefix else sent


def recovered(
    origin: Origin, vni: int, group: int, priority: int, ip: Family, target: tuple[int, int] | None
) -> Scope | None:
    """The scope that the refusal with such a match belongs to; `target` is its value and mask."""
    value, mask = target or (0, 0)
    level, odd = divmod(priority - _LOWEST, 2)
    if odd or not 0 <= level < _LEVELS:
        return None
    return Scope(origin, vni, group, level, Block(value, mask.bit_count(), ip.bytes * 8))


def _asked(scope: Scope, block: Block) -> list[tuple[Field | Bits, int] | tuple[Field | Bits, int, int]]:
    ip = next(one for one in FAMILIES if one.bytes * 8 == block.bits)
    terms: list[tuple[Field | Bits, int] | tuple[Field | Bits, int, int]] = [
        (VNI, scope.vni), (ORIGIN, scope.origin), (SOURCE_GROUP, scope.group), ip.term,
    ]  # fmt: skip
    return [*terms, (ip.target, block.start, block.mask)] if block.prefix else terms
