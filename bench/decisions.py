#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""P1: decisions per second of one controller process, beside learning switches in Python and in C.

Eight fake switches keep a window of unanswered packet-ins each. Ours knows 10,000 pods in 1,000 services and 200
groups, decides legal and (one in twenty) illegal first packets, and every answer is judged by policy. The peers learn
256 MACs on each switch and send packets between them. All flow-mods are read by a second decoder after the round.

A decision of ours comes to about eight flow-mods, at both ends of what will be said; that of a peer to one. Hence both
are shown. The CPU time is that of the controller's process alone, which says something on a busy machine too.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.fleet.contenders import WINDOW, contenders
from bench.report import Goal, Series, arguments, number, table


def main() -> int:
    """Run the rounds and print the table."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--packets", type=int, default=4000, help="packet-ins per switch and round (default 4000)")
    parser.add_argument("--only", nargs="*", default=(), help="contenders to run, by the beginning of their names")
    options = parser.parse_args()
    with contenders(options.only) as everyone:
        running = [one for one in everyone if not one.missing]
        flows: dict[str, list[float]] = {one.name: [] for one in running}
        decisions: dict[str, list[float]] = {one.name: [] for one in running}
        cpu: dict[str, tuple[list[float], list[float]]] = {one.name: ([], []) for one in running}
        for turn in range(options.rounds):
            for one in running if turn % 2 == 0 else reversed(running):
                result = one.round(options.packets, WINDOW)
                flows[one.name].append(result.flow_mods_per_second)
                decisions[one.name].append(result.decisions_per_second)
                cpu[one.name][0].append(result.cpu_per_flow_mod * 1e6)
                cpu[one.name][1].append(result.cpu_per_decision * 1e6)
                said = f"{number(result.decisions_per_second)} decisions/s, {cpu[one.name][1][-1]:.0f} µs of CPU each"
                print(f"  round {turn + 1}: {one.name}: {said}, {result.note}", file=sys.stderr, flush=True)
        missing = [one.missing for one in everyone if one.missing]
    series = {name: Series(name, tuple(values)) for name, values in flows.items()}
    goals = [
        Goal("qnet", peer, bound) for peer, bound in (("ryu", 20), ("os-ken", 20), ("ovs-testcontroller", 0.5))
        if "qnet" in series and peer in series
    ]  # fmt: skip
    print(table("P1", "verified flow-mods/s", series, goals))
    series = {name: Series(name, tuple(values)) for name, values in decisions.items()}
    print(table("P1", "packet-ins answered rightly/s", series))
    for place, what in enumerate(("flow-mod", "packet-in answered")):
        series = {name: Series(name, tuple(values[place])) for name, values in cpu.items()}
        print(table(f"P1, CPU of the controller for each {what}", "µs", series))
    for line in missing:
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
