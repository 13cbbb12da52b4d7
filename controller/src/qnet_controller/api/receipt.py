# SPDX-License-Identifier: Apache-2.0
"""The receipt of a change: what all controllers have done for one generation of the intent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

from ..controller.controller import Controller
from .others import Others

LONGEST_WAIT_SECONDS = 600.0
LOOK_AGAIN_SECONDS = 0.05


async def own(controller: Controller, generation: int, seconds: float) -> dict[str, Any]:
    """What this controller has done as the master of its switches."""
    return await controller.receipts.wait(generation, seconds)


async def whole(controller: Controller, others: Others, generation: int, seconds: float) -> dict[str, Any]:
    """What has been done everywhere, as soon as every switch has confirmed it or the time is over."""
    end = time.monotonic() + seconds
    while True:
        left = max(0.0, end - time.monotonic())
        asked = {"generation": generation, "seconds": left}
        mine, theirs = await asyncio.gather(
            own(controller, generation, left), others.ask("/v1/receipt/own", asked, left)
        )
        receipt = merged(controller.model.hosts, generation, [mine, *theirs])
        if receipt["confirmed"] or time.monotonic() >= end:
            return receipt
        # A switch between two masters; soon one of them knows it.
        await asyncio.sleep(LOOK_AGAIN_SECONDS)


def merged(hosts: Iterable[str], generation: int, answers: list[dict[str, Any]]) -> dict[str, Any]:
    """One receipt out of those of all controllers. Connections are counted once, though both ends have them."""
    parts: dict[str, dict[str, Any]] = {}
    for part in (part for answer in answers for part in answer["hosts"]):
        known = parts.get(part["host"])
        if known is None or known["milliseconds"] is None:
            parts[part["host"]] = part
    confirmed = {host for answer in answers for host in answer["confirmed"]}
    shown = [parts[host] for host in sorted(parts)]
    pending = sorted(set(hosts) - confirmed)
    counted = all(part["connections"] is not None for part in shown)
    ended = sorted({text for part in shown for text in part["connections"] or ()})
    return {
        "generation": generation,
        "confirmed": not pending,
        "pending": pending,
        "milliseconds": max((part["milliseconds"] or 0.0 for part in shown), default=0.0),
        "flows_added": sum(part["flows_added"] for part in shown),
        "flows_removed": sum(part["flows_removed"] for part in shown),
        "groups_changed": sum(part["groups_changed"] for part in shown),
        "connections_ended": len(ended) if counted else None,
        "ended": ended,
        "hosts": [{**part, "connections": None if (c := part["connections"]) is None else len(c)} for part in shown],
    }
