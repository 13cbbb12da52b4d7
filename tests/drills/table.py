# SPDX-License-Identifier: Apache-2.0
"""The results of the drills as docs/operations/drills.md."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence

from tests.drills.drill import FLOW_SECONDS, PAIR_SECONDS, Drill, Seen

HEAD = """\
# Drills

<!-- Made by `make drills`; do not edit. -->

What the fleet of the lab (three controllers with the intent database, two switches) loses when something of it
fails, in {rounds} rounds each. Two pods send datagrams of an established pair every {flow:.0f} ms and one to a pair
that is new every {pair:.0f} ms, and keep {connections} TCP connections open. The fault hits the controller that is
master of the senders' switch, and is healed under the same traffic.

- **flow lost**: datagrams of the established pair that were not answered, in all rounds. **Broken**: connections.
- **new pair waits**: the longest time in a round until a new pair, or a later one, was answered; median, worst round.
- **in time**: rounds in which that was within the limit.
- **flow waits**: the same for the established pair, which asks nobody: what the machine itself makes one wait. These
  rounds ran on {cores} cores with a load of {load:.1f} (beginning) to {after:.1f} (end), of all hosts and the traffic.
- **masters**: the most changes of the switch's master in a round; two are one away and one back.
- **writes lost**: transactions on the intent database that were acknowledged and not found in every member.

| drill | flow lost | broken | new pair waits, ms | limit, ms | in time | flow waits, ms | masters | writes lost |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def in_time(drill: Drill, seen: Seen) -> bool:
    """Whether no new pair waited longer than it may."""
    return seen.gap_ms <= drill.limit


def row(drill: Drill, rounds: Sequence[Seen]) -> str:
    """One line of the table."""
    gaps = [seen.gap_ms for seen in rounds]
    flows = [seen.flow_gap_ms for seen in rounds]
    written = sum(seen.written for seen in rounds)
    cells = (
        drill.title,
        f"{sum(seen.lost for seen in rounds)}",
        f"{sum(len(seen.resets) for seen in rounds)}",
        f"{statistics.median(gaps):.0f}, {max(gaps):.0f}",
        f"{drill.limit:.0f}",
        f"{sum(in_time(drill, seen) for seen in rounds)} of {len(rounds)}",
        f"{statistics.median(flows):.0f}, {max(flows):.0f}",
        f"{max(seen.claims for seen in rounds)}",
        f"0 of {written}" if written else "-",  # a round that lost one has failed
    )
    return f"| {' | '.join(cells)} |\n"


def document(results: Mapping[Drill, Sequence[Seen]], connections: int, load: float) -> str:
    """The whole page."""
    head = HEAD.format(
        rounds=max(len(rounds) for rounds in results.values()), flow=FLOW_SECONDS * 1000, pair=PAIR_SECONDS * 1000,
        connections=connections, cores=os.cpu_count(), load=load, after=os.getloadavg()[0],
    )  # fmt: skip
    faults = [f"- {drill.title}: {fault}\n" for drill, rounds in results.items() for s in rounds for fault in s.faults]
    tail = f"\nWhat must not be and was:\n\n{''.join(faults)}" if faults else "\nNothing that must not be was seen.\n"
    about = f"\nPython {platform.python_version()} on the control node, Linux {platform.release().split('-')[0]}.\n"
    return head + "".join(row(drill, rounds) for drill, rounds in results.items()) + tail + about
