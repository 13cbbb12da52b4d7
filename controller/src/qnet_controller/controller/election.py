# SPDX-License-Identifier: Apache-2.0
"""Which controller is master of which switch: rendezvous hashing over the live controllers of the switch's set.

Every controller computes the same answer from the same names, and a controller that comes or goes moves only the
switches that it gains or had.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Standing:
    """What this controller knows of all of them.

    `live`: those that can be masters. `lacks`: for each of them the switches that do not answer it. `cut_off`: fewer
    than half of our set can be heard, and nothing proves that the others have ended, so it may be us who is apart.
    """

    live: frozenset[str]
    lacks: Mapping[str, frozenset[int]] = field(default_factory=dict)
    cut_off: bool = False


def master_of(datapath_id: int, live: Collection[str]) -> str | None:
    """The name of the highest-ranked of the `live` controllers for a switch; None when there is none."""
    return max(live, key=lambda name: (_rank(datapath_id, name), name), default=None)


def elected(datapath_id: int, members: Collection[str], standing: Standing) -> str | None:
    """The master that a switch is to have: one of the members of its set that lives and that it answers.

    When it answers none of them, the switch is at fault, and all that live are as good as each other.
    """
    live = standing.live.intersection(members)
    answered = {name for name in live if datapath_id not in standing.lacks.get(name, ())}
    return master_of(datapath_id, answered or live)


def _rank(datapath_id: int, name: str) -> bytes:
    return hashlib.sha256(f"{datapath_id:016x} {name}".encode()).digest()
