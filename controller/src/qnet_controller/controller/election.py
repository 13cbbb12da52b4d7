# SPDX-License-Identifier: Apache-2.0
"""Which controller is master of which switch: rendezvous hashing over the live controllers.

Every controller computes the same answer from the same names, and a controller that comes or goes moves only the
switches that it gains or had.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection


def master_of(datapath_id: int, live: Collection[str]) -> str | None:
    """The name of the highest-ranked of the `live` controllers for a switch; None when there is none."""
    return max(live, key=lambda name: (_rank(datapath_id, name), name), default=None)


def _rank(datapath_id: int, name: str) -> bytes:
    return hashlib.sha256(f"{datapath_id:016x} {name}".encode()).digest()
