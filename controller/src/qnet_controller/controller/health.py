# SPDX-License-Identifier: Apache-2.0
"""Checks the backends on the switches that this controller is master of.

What was found is said with a bit of the pod's own port, OFPPC_NO_PACKET_IN, which every controller sees in the port's
status: health is known like location, from OpenFlow alone, and survives the controllers. The bit stops nothing here,
since it is about packets that match no flow at all (docs/adr/0010). A check that begins takes the bit for its first
opinion, so nothing changes when another controller takes over.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping
from typing import Any

from ..model.model import Model, Touches
from ..model.objects import HealthCheck, Location, Pod
from ..openflow.session import Session
from ..pipeline.checks import Exchange, Result, Target, mark_of, target_of
from ..pipeline.messages import PORT_CONTROLLER, Output, PacketIn, PacketOut, SetPassing
from ..pipeline.tables import Table
from .metrics import Metrics
from .switch import Switch

LOG = logging.getLogger(__name__)

_FIRST_MARK, _MARKS = 0x8000, 0x8000
_TIMED_OUT = Result(False, "does not answer")
_BETWEEN = 0.5
"""While a backend is between the states, it is checked this many times the interval apart."""


class _Check:
    """One backend under check; lives as long as its port, its switch's session and the declaration stay as they are."""

    def __init__(self, owner: Health, pod: Pod, session: Session, at: tuple[Location, bytes, HealthCheck, Target]):
        self.owner, self.pod, self.session, self.at = owner, pod, session, at
        self.location, self.hardware, self.declared, self.target = at
        self.passing = self.location.passing
        self.streak = 0
        self.last: Result | None = None
        self.exchange: Exchange | None = None
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(random.random() * self.declared.interval * 0.1, self._begin)

    def stop(self) -> None:
        """No more checks."""
        self._timer.cancel()

    def _begin(self) -> None:
        mark = _FIRST_MARK + random.randrange(_MARKS)
        self.exchange = Exchange(self.declared, self.target, mark, random.getrandbits(32))
        self._timer = asyncio.get_running_loop().call_later(self.declared.timeout, self._end, _TIMED_OUT)
        self._send(self.exchange.begin())

    def _send(self, packet: bytes) -> None:
        if not self.session.congested:
            out = PacketOut(packet, PORT_CONTROLLER, (Output(self.location.port),))
            self.session.send((), out)

    def take(self, packet: PacketIn) -> None:
        """A packet of the pod for the exchange under way; anything else it sends to the gateway is nobody's."""
        if self.exchange is None or mark_of(packet.data) != self.exchange.mark:
            return
        for answer in self.exchange.take(packet.data):
            self._send(answer)
        if self.exchange.result is not None:
            self._end(self.exchange.result)

    def _end(self, result: Result) -> None:
        self.exchange, self.last = None, result
        self._timer.cancel()
        self.streak = 0 if result.well == self.passing else self.streak + 1
        if self.streak >= (self.declared.healthy_threshold if result.well else self.declared.unhealthy_threshold):
            self.passing, self.streak = result.well, 0
            state = "passes" if result.well else "fails"
            LOG.warning("pod %s %s its health check: it %s", self.pod.key, state, result.text)
        self.owner.ended(self, result)
        wait = self.declared.interval * (_BETWEEN if self.streak else 1)
        self._timer = asyncio.get_running_loop().call_later(wait, self._begin)


class Health:
    """All checks of this controller."""

    def __init__(self, model: Model, switches: Mapping[int, Switch], metrics: Metrics) -> None:
        self._model = model
        self._switches = switches
        self._metrics = metrics
        self._checks: dict[str, _Check] = {}
        self._by_port: dict[tuple[int, int], _Check] = {}

    def review(self, touched: Touches) -> None:
        """Start, keep and stop checks after a change of the model."""
        for what, key in touched:
            if what == "pod":
                self._review(str(key))

    def switch_changed(self, switch: Switch) -> None:
        """The switch has been adopted, or is no longer this controller's."""
        for pod, _ in self._model.local_pods(switch.datapath_id):
            self._review(pod.key)

    def _review(self, key: str) -> None:
        at = self._wanted(key)
        running = self._checks.get(key)
        if running is not None and at is not None and running.session is at[0] and _same(running.at, at[1]):
            return
        if running is not None:
            running.stop()
            del self._checks[key]
            self._by_port.pop((running.location.datapath_id, running.location.port), None)
        if at is not None:
            check = self._checks[key] = _Check(self, self._model.pods[key], *at)
            self._by_port[check.location.datapath_id, check.location.port] = check

    def _wanted(self, key: str) -> tuple[Session, tuple[Location, bytes, HealthCheck, Target]] | None:
        pod = self._model.pods.get(key)
        service = self._model.services.get(pod.service) if pod else None
        location = self._model.location(pod) if pod else None
        if pod is None or service is None or service.health is None or location is None or not location.live:
            return None
        network, switch = self._model.networks.get(pod.network), self._switches.get(location.datapath_id)
        if network is None or switch is None or switch.ready() is None:
            return None
        target, hardware = target_of(pod, network), switch.hardware.get(location.port)
        if target is None or hardware is None:
            return None
        return switch.session, (location, hardware, service.health, target)

    def answered(self, switch: Switch, packet: PacketIn) -> bool:
        """Whether a packet is a pod's answer to its check; it is then taken."""
        if packet.table != Table.ADMISSION:
            return False
        check = self._by_port.get((switch.datapath_id, packet.fields.get("in_port", 0)))
        if check is None or check.session is not switch.session:
            return False
        check.take(packet)
        return True

    def ended(self, check: _Check, result: Result) -> None:
        """A check has ended: count it, and let the port say what is known now."""
        self._metrics.health_checks.labels("well" if result.well else "failed").inc()
        location = self._model.location(check.pod)
        if location is not None and location.passing != check.passing:
            check.session.send((SetPassing(location.port, check.hardware, check.passing),))

    def status(self, key: str) -> dict[str, Any]:
        """What is known of a pod's health: `health` is None without a check; `check` only at its switch's master."""
        pod = self._model.pods[key]
        service, location = self._model.services.get(pod.service), self._model.location(pod)
        if service is None or service.health is None:
            return {"health": None}
        running = self._checks.get(key)
        found = {"health": "passing" if location and location.passing else "failing"}
        return found | ({"check": running.last.text} if running and running.last else {})

    def close(self) -> None:
        """Stop checking; what was said stays."""
        for check in self._checks.values():
            check.stop()


def _same(one: tuple[Location, bytes, HealthCheck, Target], other: tuple[Location, bytes, HealthCheck, Target]) -> bool:
    """Whether a check may go on: its own word about the port changes nothing."""
    here, there = one[0], other[0]
    return (here.datapath_id, here.port) == (there.datapath_id, there.port) and one[1:] == other[1:]
