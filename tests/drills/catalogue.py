# SPDX-License-Identifier: Apache-2.0
"""The drills, and what each may cost (shared with docs/operations/drills.md, which is made from their results)."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial

from tests.drills import faults
from tests.drills.drill import CALLERS, FLOW_SECONDS, Drill
from tests.drills.faults import CONTROLLER, DATABASE, IN, OPENFLOW_PORT, OUT, PEER_PORT
from tests.e2e.fleet import Fleet

SWITCH = CALLERS[0].host
PORTS = (OPENFLOW_PORT, PEER_PORT)
MS, RESTART_MS = 100.0, 1000.0  # what a new pair may wait; a switch that starts anew forwards nothing meanwhile


def leader_killed(fleet: Fleet, _: str) -> AbstractContextManager[None]:
    """kill -9 of the database's leader."""
    return faults.killed(fleet, faults.leader(fleet), DATABASE)


def leader_without_disk(fleet: Fleet, _: str) -> AbstractContextManager[None]:
    """The disk of the database's leader is full."""
    return faults.full_disk(fleet, faults.leader(fleet))


def quorum_lost(fleet: Fleet, _: str) -> AbstractContextManager[None]:
    """Only the member on the first controller is left."""
    return faults.without_quorum(fleet, fleet.groups["controllers"][1:])


def on_the_switch(fleet: Fleet, _: str, *, unit: str) -> AbstractContextManager[None]:
    """kill -9 of a daemon on the callers' host."""
    return faults.killed(fleet, SWITCH, unit)


def not_the_leader(fleet: Fleet) -> str:
    """A database host that keeps its member."""
    return next(host for host in fleet.groups["controllers"] if host != faults.leader(fleet))


def the_first(fleet: Fleet) -> str:
    """The database host whose member outlives the others."""
    return fleet.groups["controllers"][0]


DRILLS = (
    Drill("kill", "controller killed", partial(faults.killed, unit=CONTROLLER), MS),
    Drill("stop", "controller stopped", partial(faults.stopped, unit=CONTROLLER), MS),
    Drill("pause", "controller frozen, then resumed", partial(faults.paused, unit=CONTROLLER), MS, adds_probe=True),
    Drill("peers", "controller cut off from the others", partial(faults.cut, ports=(PEER_PORT,)), MS, adds_probe=True),
    Drill("switches", "… from the switches", partial(faults.cut, ports=(OPENFLOW_PORT,)), MS, adds_probe=True),
    Drill("both", "… from both", partial(faults.cut, ports=PORTS), MS, adds_probe=True),
    Drill("in", "… from both, it hears nothing", partial(faults.cut, ports=PORTS, chains=IN), MS, adds_probe=True),
    Drill("out", "… from both, it is not heard", partial(faults.cut, ports=PORTS, chains=OUT), MS, adds_probe=True),
    Drill("half-open", "controller's host vanishes", faults.half_open, MS, adds_probe=True),
    Drill("leader", "leader of the database killed", leader_killed, MS, writer=not_the_leader),
    Drill("quorum", "two of three database members killed", quorum_lost, MS, writer=the_first),
    Drill(
        "disk", "disk of the database's leader full", leader_without_disk, MS, writer=not_the_leader,
        scene=faults.small_disks,
    ),
    Drill(
        "vswitchd", "ovs-vswitchd killed", partial(on_the_switch, unit="ovs-vswitchd"), RESTART_MS,
        flow_limit=int(RESTART_MS / 1000 / FLOW_SECONDS), moves=3,
    ),
    Drill("ovsdb", "ovsdb-server of a switch killed", partial(on_the_switch, unit="ovsdb-server"), MS),
)  # fmt: skip
