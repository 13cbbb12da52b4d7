# SPDX-License-Identifier: Apache-2.0
"""Pods that keep asking in vain: for a while their own switch drops what they ask.

What is installed goes on, for them too. Each quarantine that follows soon after another is twice as long, and what the
one before has cost is only half forgiven, so a pod has to calm down to be as free as before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ..decide.decide import Origin
from ..model.model import Model
from .fields import ORIGIN, SOURCE_ZONE
from .messages import Feature, flow, match
from .tables import Table
from .wanted import Program

MOST_IN_VAIN = 50  # questions, of which LEAK_PER_SECOND are forgiven each second
LEAK_PER_SECOND = 5.0
FIRST_SECONDS, LONGEST_SECONDS = 5, 300
_PRIORITY = 2  # above the flows that ask, below all that decides


@dataclass(frozen=True, slots=True)
class Conduct:
    """How a port has behaved: a level of questions in vain at a time, and its last quarantine. Times in seconds."""

    level: float = 0.0
    at: float = 0.0
    seconds: int = 0
    until: float = 0.0


class Quarantine(NamedTuple):
    """The demand that a quarantine is: of the pod at a port, for so long."""

    port: int
    seconds: int


def in_vain(conduct: Conduct, now: float) -> tuple[Conduct, bool]:
    """What one more question in vain makes of a conduct, and whether a quarantine begins with it."""
    # A clock that has been set back: no time has passed, and what was still to come is as far away as before.
    passed, until = max(0.0, now - conduct.at), conduct.until + min(0.0, now - conduct.at)
    level = max(0.0, conduct.level - passed * LEAK_PER_SECOND) + 1
    if level <= MOST_IN_VAIN or now < until:
        return Conduct(level, now, conduct.seconds, until), False
    again = conduct.seconds and now < until + 2 * conduct.seconds
    seconds = min(2 * conduct.seconds, LONGEST_SECONDS) if again else FIRST_SECONDS
    # It is made up for when the quarantine ends, but for a half.
    return Conduct(MOST_IN_VAIN / 2 + seconds * LEAK_PER_SECOND, now, seconds, now + seconds), True


class Conducts:
    """The conducts of the ports of a switch."""

    def __init__(self, known: dict[int, Conduct] | None = None) -> None:
        self._known = known or {}

    def copy(self) -> Conducts:
        """The same conducts, which go their own way from now on."""
        return Conducts(dict(self._known))

    def in_vain(self, port: int, now: float) -> Quarantine | None:
        """A port has asked in vain; the quarantine that begins with it, if one does."""
        conduct, begins = in_vain(self._known.get(port, Conduct()), now)
        self._known[port] = conduct
        return Quarantine(port, conduct.seconds) if begins else None

    def forget(self, port: int) -> None:
        """The port is nobody's any more."""
        self._known.pop(port, None)


def quarantine_program(model: Model, datapath_id: int, demand: Quarantine) -> Program | None:
    """The flows of a quarantine; None when there is no pod at the port any more."""
    pods = model.local_pods(datapath_id)
    pod = next((pod for pod, location in pods if location.port == demand.port), None)
    if pod is None:
        return None
    program = Program(depends={("pod", pod.key)})
    asked = match((ORIGIN, Origin.POD), (SOURCE_ZONE, demand.port))
    owner = f"pod {pod.key}"
    for table in (Table.ASK, Table.LOCATION):
        program.add(flow(table, _PRIORITY, asked, (), Feature.QUARANTINED, owner))
    program.add_root(
        flow(Table.PLAN, _PRIORITY, asked, (), Feature.QUARANTINED, owner, hard=demand.seconds, notify=True)
    )
    return program
