# SPDX-License-Identifier: Apache-2.0
"""What others have written to a switch is undone, counted and said."""

from __future__ import annotations

import logging
import time

from ..model.model import Model
from ..openflow.events import Dump
from ..pipeline.messages import Commands, Tampered
from ..pipeline.program import SwitchProgram
from . import names, verify
from .metrics import Metrics

LOG = logging.getLogger(__name__)

LINES_PER_SECOND = 20  # of a kind that others can cause in numbers


class Tampering:
    """For all switches of a controller; lines of the log come at a bounded rate."""

    def __init__(self, model: Model, metrics: Metrics) -> None:
        self._model = model
        self._metrics = metrics
        self._lines = names.Budget(LINES_PER_SECOND)

    def undo(self, host: str, program: SwitchProgram, found: list[Tampered]) -> Commands:
        """The commands that put right what others have done."""
        intended = program.flows if found else {}
        for item in found:
            self._metrics.tampered.labels(host, item.kind).inc()
            if self._lines.allow(time.monotonic()):
                flow = intended.get(item.key) if item.key else None
                LOG.warning("%s: someone else %s", host, names.tampered_name(self._model, item, flow))
        return program.repair(found)

    def undo_unseen(self, host: str, program: SwitchProgram, dump: Dump) -> Commands:
        """The same for what was done while no controller was connected; cookies do not show it."""
        keys = verify.unlike(dump.flows, program.flows)
        return self.undo(host, program, [Tampered("flow", gone=False, key=key) for key in keys])
