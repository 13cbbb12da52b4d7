# SPDX-License-Identifier: Apache-2.0
"""The results of the drills as docs/operations/drills.md."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.drills.drill import FLOW_SECONDS, PAIR_SECONDS, Drill, Seen

HEAD = """\
# Drills

<!-- Made by `make drills`; do not edit. -->

What the fleet of the lab (three controllers with the intent database, two switches) loses when something of it
fails. Two pods send datagrams of an established pair every {flow:.0f} ms and one to a pair
that is new every {pair:.0f} ms, and keep many TCP connections open. The fault hits the controller that is
master of the senders' switch, and is healed under the same traffic.

- **flow lost**: datagrams of the established pair that were not answered, in all rounds. **Broken**: connections.
- **new pair waits**: the longest time in a round until a new pair, or a later one, was answered; median, worst round.
- **in time**: rounds in which that was within the limit.
- **flow waits**: the same for the established pair, which asks nobody: what the machine itself makes one wait. It has
  {cores} cores for all hosts of the lab and the traffic; **load** is its load before and after the rounds.
- **masters**: the most changes of the switch's master in a round; two are one away and one back.
- **writes lost**: transactions on the intent database that were acknowledged and not found in every member.

| drill | flow lost | broken | new pair waits, ms | limit | in time | flow waits, ms | masters | writes lost | load |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


@dataclass
class Run:
    """The rounds of one drill, the connections that were open, and the machine's load before and after."""

    rounds: list[Seen]
    connections: int
    load: float
    after: float


def keep(directory: Path, drill: Drill, run: Run) -> None:
    """Remember a run, in the place of the one before it."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{drill.name}.json").write_text(json.dumps(asdict(run)), encoding="utf-8")


def kept(directory: Path, drills: Iterable[Drill]) -> dict[Drill, Run]:
    """The last run of each drill that has been run."""
    found = {}
    for drill in drills:
        file = directory / f"{drill.name}.json"
        if file.exists():
            said = json.loads(file.read_text(encoding="utf-8"))
            found[drill] = Run(**{**said, "rounds": [Seen(**seen) for seen in said["rounds"]]})
    return found


def in_time(drill: Drill, seen: Seen) -> bool:
    """Whether no new pair waited longer than it may."""
    return seen.gap_ms <= drill.limit


def row(drill: Drill, run: Run) -> str:
    """One line of the table."""
    rounds: Sequence[Seen] = run.rounds
    gaps = [seen.gap_ms for seen in rounds]
    flows = [seen.flow_gap_ms for seen in rounds]
    written = sum(seen.written for seen in rounds)
    cells = (
        drill.title,
        f"{sum(seen.lost for seen in rounds)}",
        f"{sum(len(seen.resets) for seen in rounds)} of {run.connections * len(rounds)}",
        f"{statistics.median(gaps):.0f}, {max(gaps):.0f}",
        f"{drill.limit:.0f}",
        f"{sum(in_time(drill, seen) for seen in rounds)} of {len(rounds)}",
        f"{statistics.median(flows):.0f}, {max(flows):.0f}",
        f"{max(seen.claims for seen in rounds)}",
        f"0 of {written}" if written else "-",  # a round that lost one has failed
        f"{run.load:.1f}, {run.after:.1f}",
    )
    return f"| {' | '.join(cells)} |\n"


def missing(results: Mapping[Drill, Run], drills: Iterable[Drill]) -> str:
    """What the table does not tell."""
    names = [drill.name for drill in drills if drill not in results]
    return f"\nNot run for this table: {', '.join(names)}.\n" if names else ""


def document(results: Mapping[Drill, Run], drills: Iterable[Drill]) -> str:
    """The whole page."""
    head = HEAD.format(flow=FLOW_SECONDS * 1000, pair=PAIR_SECONDS * 1000, cores=os.cpu_count())
    faults = [f"- {drill.title}: {fault}\n" for drill, run in results.items() for s in run.rounds for fault in s.faults]
    tail = f"\nWhat must not be and was:\n\n{''.join(faults)}" if faults else "\nNothing that must not be was seen.\n"
    about = f"\nPython {platform.python_version()} on the control node, Linux {platform.release().split('-')[0]}.\n"
    return head + "".join(row(drill, run) for drill, run in results.items()) + tail + missing(results, drills) + about
