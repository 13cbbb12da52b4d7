# SPDX-License-Identifier: Apache-2.0
"""How Open vSwitch chooses the bucket of a select group (group_setup_dp_hash_table and pick_*_select_group there).

`dp_hash` deals slots to the buckets by Webster's method, as many as total weight by least weight asks for, 16 to 256;
above that it silently becomes the default, which hashes no UDP ports. `hash` and the default take the bucket with the
largest product of its weight and 16 bits of a hash of its id and the fields.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from qnet_controller.pipeline import messages as m

from .packets import UDP, Packet

FEWEST_SLOTS, MOST_SLOTS = 16, 256
_64_BITS = (1 << 64) - 1


def slots(buckets: Sequence[m.Bucket]) -> list[m.Bucket] | None:
    """The bucket of every slot of a dp_hash group; None when there would be too many slots."""
    total, least = sum(bucket.weight for bucket in buckets), min(bucket.weight for bucket in buckets)
    count = max(FEWEST_SLOTS, 1 << (math.ceil(total / least) - 1).bit_length())
    if count > MOST_SLOTS:
        return None
    divisors = [1] * len(buckets)
    dealt = []
    for _ in range(count):
        winner = max(range(len(buckets)), key=lambda index: (buckets[index].weight / divisors[index], -index))
        divisors[winner] += 2
        dealt.append(buckets[winner])
    return dealt


class Selector:
    """Chooses among the buckets of one group."""

    def __init__(self, group: m.Group) -> None:
        self._buckets = [bucket for bucket in group.buckets if bucket.weight]
        self._by_fields = bool(group.hashed)
        self._dealt = slots(self._buckets) if self._buckets and not group.hashed else None

    def choose(self, packet: Packet, values: Sequence[int]) -> m.Bucket | None:
        """The bucket for a packet with these `values` of the group's own fields; None without a live bucket."""
        if not self._buckets:
            return None
        if self._by_fields:
            return self._largest(tuple(values))
        pair = (packet.ip_proto, packet.source, packet.target)
        ports = (packet.src_port, packet.dst_port)
        if self._dealt is not None:
            return self._dealt[_hash((*pair, *ports)) % len(self._dealt)]
        return self._largest(pair if packet.ip_proto == UDP else (*pair, *ports))

    def _largest(self, basis: tuple[int, ...]) -> m.Bucket:
        return max(self._buckets, key=lambda bucket: (_hash((bucket.id, *basis)) & 0xFFFF) * bucket.weight)


def _hash(values: tuple[int, ...]) -> int:
    mixed = hash(values) & _64_BITS  # of integers: the same in every process
    for _ in range(2):
        mixed = (mixed ^ mixed >> 29) * 0x9E3779B97F4A7C15 & _64_BITS
    return mixed >> 16
