# SPDX-License-Identifier: Apache-2.0
"""Pods that track as many connections as they may (ADR 0033): who they are is said, since their packets only vanish.

Open vSwitch tells nobody that a zone is full, so the host of every switch that this controller is master of is asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from ..model.model import Model
from .conntrack import Share, Unreadable
from .metrics import Metrics
from .switch import Switch, in_turn

LOG = logging.getLogger(__name__)

ROUND_SECONDS = 60.0
"""A question starts a program on its host."""
OF_ITSELF = 0x8000
"""Added to a pod's zone: the zone of what it calls of its own through a Service IP."""

Ask = Callable[[Switch, list[int]], Awaitable[list[Share]]]
Say = Callable[[str, str, str], None]


class Full:
    """Asks hosts for the shares of their pods; `say` is told (host, sender, text) when a pod's is full, and no more."""

    def __init__(
        self, model: Callable[[], Model], switches: Mapping[int, Switch], ask: Ask, say: Say, metrics: Metrics
    ) -> None:
        self._model, self._switches, self._ask, self._say, self._metrics = model, switches, ask, say, metrics
        self._full: dict[int, frozenset[str]] = {}
        self._task = asyncio.get_running_loop().create_task(self._rounds())

    def stop(self) -> None:
        """Ask no more."""
        self._task.cancel()

    async def _rounds(self) -> None:
        async for switch in in_turn(self._switches, ROUND_SECONDS):
            await self._look(switch)

    async def look(self) -> None:
        """Ask every host now."""
        await asyncio.gather(*(self._look(one) for one in list(self._switches.values()) if one.ready() is not None))

    async def _look(self, switch: Switch) -> None:
        pods = {location.port: pod.key for pod, location in self._model().local_pods(switch.datapath_id)}
        if not pods:
            return
        try:
            shares = await self._ask(switch, [base + port for port in pods for base in (0, OF_ITSELF)])
        except Unreadable as error:
            LOG.info("%s does not say how many connections its pods have: %s", switch.host, error)
            return
        if switch.ready() is not None:
            self.take(switch.datapath_id, switch.host, pods, shares)

    def take(self, datapath_id: int, host: str, pods: Mapping[int, str], shares: list[Share]) -> None:
        """Say what is new in the shares of the pods (port -> key) of a host."""
        before = self._full.get(datapath_id, frozenset())
        full = {pods[port]: share for share in shares if share.full and (port := share.zone & ~OF_ITSELF) in pods}
        for pod in sorted(full.keys() - before):
            text = f"has {full[pod].number} connections, as many as it may: it opens no more, and takes no more"
            self._say(host, f"pod {pod}", text)
        for pod in sorted(before - full.keys()):
            self._say(host, f"pod {pod}", "may have more connections again")
        self._full[datapath_id] = frozenset(full)
        self._metrics.full.labels(host).set(len(full))
