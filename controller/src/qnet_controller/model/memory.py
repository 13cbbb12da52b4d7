# SPDX-License-Identifier: Apache-2.0
"""What has been worked out from the model, for as long as the model does not change."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, TypeVar

_V = TypeVar("_V")
MOST = 1 << 18
FREED_AT_ONCE = 4
"""More than is remembered at once, so that what is forgotten does not pile up."""


class Memory:
    """Values by key. To forget all of them takes no time: they are freed little by little while others are kept.

    With 10,000 services worked out, freeing them at once took 20 ms, with which a change of intent began.
    """

    def __init__(self) -> None:
        self.known: dict[Hashable, Any] = {}
        self._forgotten: list[dict[Hashable, Any]] = []

    def copy(self) -> Memory:
        """The same values, which are forgotten on their own."""
        twin = Memory()
        twin.known = dict(self.known)
        return twin

    def keep(self, key: Hashable, value: _V) -> _V:
        """Remember a value; returns it."""
        if len(self.known) >= MOST:
            self.forget()
        if self._forgotten:
            self._free()
        self.known[key] = value
        return value

    def forget(self) -> None:
        """Nothing is known any more."""
        if self.known:
            self._forgotten.append(self.known)
            self.known = {}

    def _free(self) -> None:
        last = self._forgotten[-1]
        for _ in range(min(FREED_AT_ONCE, len(last))):
            last.popitem()
        if not last:
            self._forgotten.pop()

    @property
    def waiting(self) -> int:
        """How many values are forgotten and not freed yet."""
        return sum(map(len, self._forgotten))
