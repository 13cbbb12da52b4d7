# SPDX-License-Identifier: Apache-2.0
"""How new connections are shared out over backends: the buckets of a select group, from weights.

Open vSwitch has two ways to choose a bucket (ofproto-dpif.c, ofproto-dpif-xlate.c). `dp_hash` deals a power of two of
slots, 256 at most, to the buckets by their weights and picks a slot by a hash that the datapath makes of addresses and
ports: the second connection through a slot needs no upcall. `hash` gives each bucket a random number made of its id and
the named fields, times its weight, and takes the largest: every new value of the fields is an upcall, any number of
buckets is served, and one that comes or goes moves no connections but its own. That product is no fair share where
weights differ, so there a backend gets several buckets of one weight instead, its *tickets*.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ..model.objects import Address
from .family import IPV4, Family, family
from .fields import IP_PROTO, SCTP_DST, SCTP_SRC, TCP_DST, TCP_SRC, UDP_DST, UDP_SRC, Field
from .messages import object_hash

FEWEST_SLOTS, MOST_SLOTS = 16, 256
"""Slots of a dp_hash group in Open vSwitch. Each one in use is a flow of the datapath, so: no more than needed."""

EXACT, TOLERABLE = 0.03, 0.10
"""How far a backend may be off its share, relative to it: what is aimed for, and what is taken to avoid upcalls."""

MOST_TICKETS = 8192
TICKETS_OF_A_PART = 2500
"""A group of more than 4,093 buckets cannot be read back: its statistics exceed a message, and Open vSwitch 3.1 then
sends one with a wrong length. So a large one is made of parts, which a backend is put into by its address alone."""

_TRANSPORT = (IP_PROTO, TCP_SRC, TCP_DST, UDP_SRC, UDP_DST, SCTP_SRC, SCTP_DST)

_LARGEST_ID = 0xFFFFFF00


class Share(NamedTuple):
    """A bucket-to-be: `id` is stable for its backend, `weight` is what Open vSwitch is told."""

    id: int
    address: Address
    weight: int


class Spread(NamedTuple):
    """The buckets of a group in one or more parts; `hashed`: the fields of the method `hash`, none with `dp_hash`."""

    parts: tuple[tuple[Share, ...], ...]
    hashed: tuple[Field, ...]

    @property
    def shares(self) -> tuple[Share, ...]:
        """All buckets."""
        return tuple(share for part in self.parts for share in part)


def spread(weights: Sequence[tuple[Address, int]], declared: Iterable[int], *, by_client: bool) -> Spread:
    """Share new connections out over backends (address, weight > 0).

    `declared` are the weights of all pods of the service, in rotation or not: as long as they stay, backends that come
    and go move no client but their own. `by_client`: all connections of a client go to one backend.
    """
    ip = family(weights[0][0]) if weights else IPV4
    slots = None if by_client else _slots([weight for _, weight in weights])
    if slots is not None:
        return Spread((tuple(_dealt(weights, slots)),), ())
    return Spread(tuple(_tickets(weights, list(declared))), (ip.source,) if by_client else connection(ip))


def connection(ip: Family) -> tuple[Field, ...]:
    """The fields that tell connections apart."""
    return (ip.source, ip.target, *_TRANSPORT)


# -- dp_hash: slots ------------------------------------------------------------------------------------------------


def _slots(weights: list[int]) -> list[int] | None:
    """How many slots each backend gets; None when even the most are too few."""
    if not weights:
        return []
    count = FEWEST_SLOTS
    while count <= MOST_SLOTS:
        slots = apportion(weights, count)
        if _worst_error(weights, slots) <= (TOLERABLE if count == MOST_SLOTS else EXACT):
            return slots
        count *= 2
    return None


def apportion(weights: list[int], count: int) -> list[int]:
    """Deal `count` slots by weight, the largest remainders getting those left over."""
    total = sum(weights)
    slots = [weight * count // total for weight in weights]
    order = sorted(range(len(weights)), key=lambda index: (-(weights[index] * count % total), index))
    for index in order[: count - sum(slots)]:
        slots[index] += 1
    return slots


def _worst_error(weights: list[int], slots: list[int]) -> float:
    total, count = sum(weights), sum(slots)
    return max(abs(slot * total / (weight * count) - 1) for weight, slot in zip(weights, slots, strict=True))


def _dealt(weights: Sequence[tuple[Address, int]], slots: list[int]) -> Iterator[Share]:
    """Weights that make Open vSwitch deal exactly these slots.

    It takes total by least weight, made a power of two and at least 16, as the number of slots. So the weights are the
    slots themselves, and where none of them is 1 the largest backend gets a second bucket with one of its slots.
    """
    ids = _Ids()
    split = slots.index(max(slots)) if slots and min(slots) > 1 and sum(slots) > FEWEST_SLOTS else None
    for index, ((address, _), slot) in enumerate(zip(weights, slots, strict=True)):
        if index == split:
            yield Share(ids.take(address, 1), address, 1)
            slot -= 1
        yield Share(ids.take(address, 0), address, slot)


# -- hash: tickets -------------------------------------------------------------------------------------------------


def _tickets(weights: Sequence[tuple[Address, int]], declared: list[int]) -> Iterator[tuple[Share, ...]]:
    unit = max(math.gcd(*declared) or 1, sum(declared) / MOST_TICKETS)
    count = 1 << (math.ceil(sum(declared) / unit / TICKETS_OF_A_PART) - 1).bit_length()
    parts: list[list[Share]] = [[] for _ in range(count)]
    ids = _Ids()
    for address, weight in weights:
        part = parts[object_hash(f"part {address.hex()}") % count]
        part += [Share(ids.take(address, ticket), address, 1) for ticket in range(max(1, round(weight / unit)))]
    return (tuple(part) for part in parts if part or count == 1)


class _Ids:
    """Bucket ids: the address where it is a number that small, else a hash, moved on when it is taken."""

    def __init__(self) -> None:
        self._taken: set[int] = set()

    def take(self, address: Address, ticket: int) -> int:
        short = len(address) == 4 and ticket == 0
        number = int.from_bytes(address, "big") if short else object_hash(f"bucket {address.hex()} {ticket}")
        while number in self._taken or number > _LARGEST_ID:
            number = (number + 1) % _LARGEST_ID
        self._taken.add(number)
        return number
