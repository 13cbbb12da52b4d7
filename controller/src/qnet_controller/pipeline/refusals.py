# SPDX-License-Identifier: Apache-2.0
"""Which pairs are refused at present, so that a group that asks for many of them is refused its scope instead."""

from __future__ import annotations

from collections import defaultdict

from ..model.model import Model, copied
from .demands import WHOLE, Demand, Pair
from .scopes import scope_of
from .wanted import Program

WIDENS_AFTER = 1  # refused pair of a group; the next one makes it a scope


class Refusals:
    """The refused pairs of a switch, by what they have in common: all but the address."""

    def __init__(self) -> None:
        self._pairs: dict[Pair, set[Pair]] = defaultdict(set)

    def copy(self) -> Refusals:
        """The same pairs, which come and go on their own."""
        twin = Refusals()
        twin._pairs = copied(self._pairs)
        return twin

    def note(self, owner: object, program: Program) -> None:
        """This is wanted now."""
        if isinstance(owner, Pair) and _refuses(program):
            self._pairs[_kin(owner)].add(owner)

    def forget(self, owner: object, program: Program) -> None:
        """It no longer is."""
        if isinstance(owner, Pair) and _refuses(program):
            alike = self._pairs[_kin(owner)]
            alike.discard(owner)
            if not alike:
                del self._pairs[_kin(owner)]

    def widened(self, model: Model, pair: Pair) -> Demand:
        """The demand that refuses a pair: itself, or all of its scope when its group has asked for another such."""
        alike = self._pairs.get(_kin(pair), ())
        if pair in alike or len(alike) < WIDENS_AFTER:
            return pair
        return scope_of(model, pair.origin, pair.vni, pair.group, pair.address) or pair


def _kin(pair: Pair) -> Pair:
    return pair._replace(address=bytes(len(pair.address)), prefix=WHOLE)


def _refuses(program: Program) -> bool:
    return program.root is not None and bool(program.flows[program.root].hard_timeout)
