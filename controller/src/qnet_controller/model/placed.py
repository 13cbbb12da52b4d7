# SPDX-License-Identifier: Apache-2.0
"""The pods among what a change has touched, sorted by switch: every switch asks, and few of them have any."""

from __future__ import annotations

from typing import NamedTuple

from .model import Model, Touches
from .objects import Pod


class Placed(NamedTuple):
    """Pods that a change has touched, by datapath id: those that are `here` now, and those that have just `came`."""

    here: dict[int, list[Pod]]
    came: dict[int, list[Pod]]


def placed(model: Model, touched: Touches) -> Placed:
    """Where the pods that a change has touched are now; worked out once for all switches."""
    return model.recall(("placed", touched), lambda: _placed(model, touched))


def _placed(model: Model, touched: Touches) -> Placed:
    found = Placed({}, {})
    for what, key in touched:
        if what == "pod" and (pod := model.pods.get(str(key))) and (location := model.location(pod)):
            found.here.setdefault(location.datapath_id, []).append(pod)
        elif what == "moved" and isinstance(key, tuple) and (pod := model.pods.get(key[1])):
            found.came.setdefault(key[0], []).append(pod)
    return found
