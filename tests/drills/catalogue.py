# SPDX-License-Identifier: Apache-2.0
"""The drills, and what each may cost."""

from __future__ import annotations

from functools import partial

from tests.drills import faults
from tests.drills.drill import CALLERS, Drill
from tests.drills.faults import CONTROLLER, IN, OPENFLOW_PORT, OUT, PEER_PORT

ALL = (OPENFLOW_PORT, PEER_PORT)
KILL_MS, PAUSE_MS, SWITCH_MS = 100.0, 100.0, 1000.0

DRILLS = (
    Drill("kill", "controller killed", partial(faults.killed, unit=CONTROLLER), KILL_MS),
    Drill("stop", "controller stopped", partial(faults.stopped, unit=CONTROLLER), KILL_MS),
    Drill(
        "pause", "controller frozen, and resumed", partial(faults.paused, unit=CONTROLLER), PAUSE_MS, adds_probe=True
    ),
    Drill("peers", "controller cut off from the other controllers", partial(faults.cut, ports=(PEER_PORT,)), PAUSE_MS),
    Drill(
        "switches",
        "controller cut off from the switches",
        partial(faults.cut, ports=(OPENFLOW_PORT,)),
        PAUSE_MS,
        adds_probe=True,
    ),
    Drill("both", "controller cut off from both", partial(faults.cut, ports=ALL), PAUSE_MS, adds_probe=True),
    Drill("in", "controller does not hear", partial(faults.cut, ports=ALL, chains=IN), PAUSE_MS, adds_probe=True),
    Drill("out", "controller is not heard", partial(faults.cut, ports=ALL, chains=OUT), PAUSE_MS, adds_probe=True),
    Drill("half-open", "controller's host vanishes", faults.half_open, PAUSE_MS, adds_probe=True),
    Drill(
        "leader",
        "leader of the database killed",
        lambda fleet, _: faults.killed(fleet, faults.leader(fleet), faults.DATABASE),
        0.0,
        writes=True,
    ),
    Drill(
        "quorum",
        "two of three database members killed",
        lambda fleet, _: faults.without_quorum(fleet, fleet.groups["controllers"][1:]),
        0.0,
        writes=True,
    ),
    Drill(
        "vswitchd",
        "ovs-vswitchd killed",
        lambda fleet, _: faults.killed(fleet, CALLERS[0].host, "ovs-vswitchd"),
        SWITCH_MS,
        flow_limit=int(SWITCH_MS / 5),
    ),
    Drill(
        "ovsdb",
        "ovsdb-server of a switch killed",
        lambda fleet, _: faults.killed(fleet, CALLERS[0].host, "ovsdb-server"),
        0.0,
    ),
)
