# SPDX-License-Identifier: Apache-2.0
"""Which pairs and VTEPs are refused at present, so that many of them are refused as one instead."""

from __future__ import annotations

from collections import defaultdict
from typing import TypeVar

from ..model.model import Model, copied
from .demands import WHOLE, Demand, Pair
from .scopes import scope_of
from .strangers import EXACT, MOST_ALIKE, Source
from .wanted import Program

_K = TypeVar("_K", Pair, Source)
WIDENS_AFTER = 1  # refused pair of a group; the next one makes it a scope


class Refusals:
    """The refused pairs of a switch, by what they have in common: all but the address. Also what tunnels may not send.

    `wide`: what of the latter stands for many.
    """

    def __init__(self) -> None:
        self._pairs: dict[Pair, set[Pair]] = defaultdict(set)
        self._sources: dict[Source, set[Source]] = defaultdict(set)
        self.wide: set[Source] = set()

    def copy(self) -> Refusals:
        """The same pairs, which come and go on their own."""
        twin = Refusals()
        twin._pairs, twin._sources, twin.wide = copied(self._pairs), copied(self._sources), set(self.wide)
        return twin

    def note(self, owner: object, program: Program) -> None:
        """This is wanted now."""
        if not program.drops:
            return
        if isinstance(owner, Pair):
            self._pairs[_kin(owner)].add(owner)
        elif isinstance(owner, Source) and program.root is not None:
            wide = program.flows[program.root].priority < EXACT
            (self.wide if wide else self._sources[owner.alike]).add(owner)

    def forget(self, owner: object, program: Program) -> None:
        """It no longer is."""
        if not program.drops:
            return
        if isinstance(owner, Pair):
            _discard(self._pairs, _kin(owner), owner)
        elif isinstance(owner, Source):
            self.wide.discard(owner)
            _discard(self._sources, owner.alike, owner)

    def of_tunnel(self, source: Source) -> Source:
        """The demand that refuses what a tunnel brought: itself, or all that is like it when it is one of many."""
        known = self._sources.get(source.alike, ())
        return source if source in known or len(known) < MOST_ALIKE else source.alike

    def widened(self, model: Model, pair: Pair) -> Demand:
        """The demand that refuses a pair: itself, or all of its scope when its group has asked for another such."""
        alike = self._pairs.get(_kin(pair), ())
        if pair in alike or len(alike) < WIDENS_AFTER:
            return pair
        return scope_of(model, pair.origin, pair.vni, pair.group, pair.address) or pair


def _kin(pair: Pair) -> Pair:
    return pair._replace(address=bytes(len(pair.address)), prefix=WHOLE)


def _discard(known: dict[_K, set[_K]], alike: _K, owner: _K) -> None:
    if alike in known:
        known[alike].discard(owner)
        if not known[alike]:
            del known[alike]
