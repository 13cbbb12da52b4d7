# SPDX-License-Identifier: Apache-2.0
"""How much of a switch one pod's asking may fill: whoever asks for too many destinations gives up its oldest.

A demand counts for the pod whose packet made it. Nothing is refused by this: what is given up is asked for again when
it is needed, through the meter of the pod that needs it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from ..model.model import copied
from .demands import Demand


class Shares:
    """The demands of each port of a switch, oldest first, and the ports that have been told to have too many."""

    def __init__(self) -> None:
        self._of: dict[int, dict[Demand, None]] = defaultdict(dict)
        self._maker: dict[Demand, int] = {}
        self._full: set[int] = set()

    def copy(self) -> Shares:
        """The same shares, which go their own way from now on."""
        twin = Shares()
        twin._of, twin._maker, twin._full = copied(self._of), dict(self._maker), set(self._full)
        return twin

    def made(self, port: int, demands: Iterable[Demand], most: int) -> tuple[list[Demand], bool]:
        """A pod has made these; what it gives up for them, and whether it begins to have too many."""
        mine = self._of[port]
        for demand in demands:
            mine[demand] = None
            self._maker[demand] = port
        excess = list(mine)[: len(mine) - most] if len(mine) > most else []
        begins = bool(excess) and port not in self._full
        if begins:
            self._full.add(port)
        return excess, begins

    def ended(self, demand: Demand) -> None:
        """A demand is no more."""
        port = self._maker.pop(demand, None)
        if port is None:
            return
        mine = self._of[port]
        del mine[demand]
        # Told again only after it has had none for once.
        if not mine:
            del self._of[port]
            self._full.discard(port)

    def count(self, port: int) -> int:
        """How many demands a port has made that are alive."""
        return len(self._of.get(port, ()))
