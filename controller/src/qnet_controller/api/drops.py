# SPDX-License-Identifier: Apache-2.0
"""What has been dropped for a reason, at all switches: every controller knows those that it is master of."""

from __future__ import annotations

import asyncio
from typing import Any

from ..controller.controller import Controller
from .others import Others


async def own(controller: Controller) -> dict[str, Any]:
    """At the switches of this controller, as of now."""
    await asyncio.gather(controller.drops.look(), controller.full.look())
    return controller.drops.status()


async def whole(controller: Controller, others: Others) -> dict[str, Any]:
    """At all switches; what several controllers have counted one after the other is shown once, as the most of it."""
    answers = [await own(controller), *await others.ask("/v1/drops/own", {}, 0.0)]
    most: dict[tuple[str, str, str], int] = {}
    for row in (row for answer in answers for row in answer["drops"]):
        place = (row["host"], row["sender"], row["reason"])
        most[place] = max(most.get(place, 0), row["packets"])
    rows = [dict(zip(("host", "sender", "reason"), place, strict=True)) | {"packets": n} for place, n in most.items()]
    events = sorted((event for answer in answers for event in answer["events"]), key=lambda event: event["time"])
    return {"drops": sorted(rows, key=lambda row: (row["host"], row["sender"], row["reason"])), "events": events}
