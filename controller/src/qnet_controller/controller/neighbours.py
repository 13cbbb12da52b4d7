# SPDX-License-Identifier: Apache-2.0
"""The switches that this controller is master of know the next hop to every other host, and go on knowing it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from ..model.model import Model
from ..pipeline.neighbours import questions
from ..pipeline.parts import Parts, Settings
from .switch import Switch, in_turn

ROUND_SECONDS = 20.0
"""A new host asks at once, and is known to those whom it has asked. With a thousand switches it takes fourteen minutes
until all have asked for all, within the quarter of an hour for which Open vSwitch remembers what it does not use."""


class Neighbours:
    """Has each switch ask for the next hop to some of the other hosts, and for some more when it is its turn again."""

    def __init__(self, model: Model, switches: Mapping[int, Switch], settings: Settings) -> None:
        self._model, self._switches, self._settings = model, switches, settings
        self._turns: dict[int, int] = {}
        self._task = asyncio.get_running_loop().create_task(self._rounds())

    def stop(self) -> None:
        """Let them forget."""
        self._task.cancel()

    async def _rounds(self) -> None:
        async for switch in in_turn(self._switches, ROUND_SECONDS):
            self.ask(switch)

    def ask(self, switch: Switch) -> None:
        """It is a switch's turn."""
        number = switch.datapath_id
        parts = Parts(self._model, number, self._settings)
        packets = self._model.recall(("neighbours", number), lambda: questions(parts))
        if packets and not switch.session.congested:
            turn = self._turns[number] = (self._turns.get(number, -1) + 1) % len(packets)
            switch.session.send((), packets[turn])
