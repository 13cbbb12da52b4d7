# SPDX-License-Identifier: Apache-2.0
"""The hot path of the controller: packets that ask and flows that have ended, with as little as possible beside."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from ..decide.decide import Kind
from ..model.model import Model
from ..model.objects import Address
from ..pipeline.demands import Pair
from ..pipeline.messages import Commands, FlowRemoved, PacketIn
from ..pipeline.program import SwitchProgram
from ..pipeline.tables import Table
from . import far_end, names
from .metrics import Metrics
from .switch import Switch

LOG = logging.getLogger(__name__)

REFUSALS_LOGGED_PER_SECOND = 20
_TABLE_TITLES = {int(table): table.title for table in Table}
_KIND_LABELS = {kind: (kind.name.lower(),) for kind in Kind}


class Packets:
    """Decides packets and ends demands of adopted switches.

    `refresh` brings all switches up to the present model; `commit` sends commands as a bundle; `doubt` compares a
    switch with its program later.
    """

    def __init__(
        self,
        model: Model,
        switches: Mapping[int, Switch],
        metrics: Metrics,
        refresh: Callable[[], None],
        commit: Callable[[Switch, Commands], object],
        doubt: Callable[[Switch], None],
    ) -> None:
        self._model = model
        self._switches = switches
        self._metrics = metrics
        self._refresh = refresh
        self._commit = commit
        self._doubt = doubt
        self._loop = asyncio.get_running_loop()
        self._refusals = names.Budget(REFUSALS_LOGGED_PER_SECOND)
        metrics.decisions.of |= dict.fromkeys(_KIND_LABELS.values(), 0.0)

    def decide(self, switch: Switch, program: SwitchProgram, packet: PacketIn, began: float) -> None:
        """Answer one packet: flows first, then the packet itself."""
        if switch.ended:
            self._end(switch)
        self._refresh()
        metrics = self._metrics
        metrics.packet_in.of[switch.host, _TABLE_TITLES.get(packet.table) or str(packet.table)] += 1
        try:
            now = time.time()
            answer = program.packet_in(packet, now)
            if answer.call is not None:
                self._foretell(switch, *answer.call, now)
            switch.session.send(answer.commands, answer.packet_out)
        except Exception:
            self._doubt(switch)  # the program and the switch may differ now
            raise
        metrics.flow_mods.of[switch.host,] += len(answer.commands)
        if answer.quarantined is not None:
            self._quarantined(switch, answer.quarantined)
        if answer.crowded is not None:
            self._crowded(switch, answer.crowded)
        metrics.decisions.of[_KIND_LABELS[answer.kind]] += 1
        metrics.packet_in_duration.observe(time.perf_counter() - began)
        # What is refused is worth a line, as long as a scan does not fill the log with them.
        level = logging.INFO if answer.kind is Kind.DROP and self._refusals.allow(began) else logging.DEBUG
        if LOG.isEnabledFor(level):
            table, kind = _TABLE_TITLES.get(packet.table, str(packet.table)), answer.kind.name.lower()
            LOG.log(level, "%s at %s, table %s: %s", names.packet_name(self._model, packet), switch.host, table, kind)

    def _foretell(self, caller: Switch, pair: Pair, source: Address, now: float) -> None:
        """Say it to the switches at the other end first, so that the packet finds it there."""
        for datapath_id, arriving in far_end.ends(self._model, pair):
            switch = self._switches.get(datapath_id)
            program = switch.ready() if switch is not None and switch is not caller else None
            if switch is None or program is None:
                continue
            if switch.ended:
                self._end(switch)
            try:
                if commands := program.foresee([arriving], [source], now):
                    switch.session.send(commands)
                    self._metrics.flow_mods.of[switch.host,] += len(commands)
            except Exception:
                LOG.exception("cannot tell %s what it will be asked for", switch.host)
                self._doubt(switch)

    def _quarantined(self, switch: Switch, port: int) -> None:
        self._metrics.quarantines.labels(switch.host).inc()
        LOG.warning("pod %s at %s keeps asking in vain: in quarantine", self._pod_at(switch, port), switch.host)

    def _crowded(self, switch: Switch, port: int) -> None:
        self._metrics.crowded.labels(switch.host).inc()
        pod = self._pod_at(switch, port)
        LOG.warning("pod %s at %s has asked for too many destinations: it gives up the oldest", pod, switch.host)

    def _pod_at(self, switch: Switch, port: int) -> str:
        pods = (pod.key for pod, location in self._model.local_pods(switch.datapath_id) if location.port == port)
        return next(pods, "at no port")

    def flow_removed(self, switch: Switch, removed: FlowRemoved) -> None:
        """A flow has ended; those that end together are dealt with together, before anything else is decided there."""
        if not switch.ended:
            self._loop.call_soon(self._end, switch)
        switch.ended.append(removed)

    def _end(self, switch: Switch) -> None:
        ended, switch.ended = switch.ended, []
        program = switch.ready()
        if not ended or program is None:
            return  # what is there is compared as a whole when the switch is adopted
        self._refresh()
        self._metrics.flow_removed.labels(switch.host).inc(len(ended))
        self._commit(switch, program.flows_removed(ended, time.time()))
