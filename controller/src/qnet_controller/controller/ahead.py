# SPDX-License-Identifier: Apache-2.0
"""Parts are worked out before anybody asks for them, while there is nothing else to do.

The first packet to a Service IP needs a flow or three for each of its backends; all of that is the same for every
caller and, as bytes, on every switch. It is little by little, so that whoever asks meanwhile does not notice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

from ..model.model import Model
from ..openflow import wire
from ..pipeline.wanted import Part
from .switch import Switch

MOST = 1 << 14
"""Parts that are worked out, half of what is remembered; in a larger fleet the others wait until they are asked."""
FIRST_SECONDS, PAUSE_SECONDS = 1.0, 0.004


class Ahead:
    """Works out Service IPs, then the ways to pods, once."""

    def __init__(self, model: Model, switches: Mapping[int, Switch]) -> None:
        self._model = model
        self._switches = switches
        self._loop = asyncio.get_running_loop()
        self._left: Iterator[Part] = iter(())
        self._timer: asyncio.TimerHandle | None = None
        self.done = False

    def begin(self) -> None:
        """Begin soon, with what the model has now."""
        self._left = iter(self._parts()[:MOST])
        self._timer = self._loop.call_later(FIRST_SECONDS, self._go_on)

    def stop(self) -> None:
        """Leave it."""
        if self._timer:
            self._timer.cancel()

    def _parts(self) -> list[Part]:
        addresses = [Part("service", (one.network, one.address)) for one in self._model.service_ips.values()]
        pods = self._model.pods.values()
        return addresses + [Part("presence", (pod.network, address)) for pod in pods for address in pod.addresses]

    def _go_on(self) -> None:
        program = next((program for one in self._switches.values() if (program := one.ready())), None)
        if program is None:
            self._timer = self._loop.call_later(FIRST_SECONDS, self._go_on)
            return
        part = next(self._left, None)
        if part is None:
            self.done = True
            return
        prepared = program.prepared(part)
        for flow in prepared.flows.values():
            wire.flow_message(flow)
        for group in prepared.groups.values():
            wire.group_messages(group)
        self._timer = self._loop.call_later(PAUSE_SECONDS, self._go_on)
