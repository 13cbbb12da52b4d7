#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run the drills on the lab: `make drills`, or `tests/drills/run.py [--rounds N] [--only NAME …]`.

Prints every round. Writes docs/operations/drills.md from the last run of each drill, which are kept under .cache: the
drills may be run in pieces. Fails when something was seen that must not be; the times are for the reader, for a busy
machine makes them longer.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.drills import drill as drills  # noqa: E402
from tests.drills.catalogue import DRILLS  # noqa: E402
from tests.drills.drill import Seen  # noqa: E402
from tests.drills.table import Run, document, keep, kept  # noqa: E402
from tests.e2e.fleet import Fleet  # noqa: E402

PAGE = ROOT / "docs/operations/drills.md"
RESULTS = ROOT / ".cache" / "drills"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="rounds of each drill (default: 20)")
    parser.add_argument("--connections", type=int, default=100, help="open connections (default: 100)")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[drill.name for drill in DRILLS])
    parser.add_argument("--no-page", action="store_true", help="leave docs/operations/drills.md alone")
    parser.add_argument("--keep", action="store_true", help="the lab is up and has the drills' inventory already")
    return parser.parse_args()


def shown(seen: Seen) -> str:
    """One round as a line."""
    written = f", {seen.written} writes, longest without {seen.write_gap_ms:.0f} ms" if seen.written else ""
    return (
        f"flow lost {seen.lost}, waits {seen.flow_gap_ms:.0f} ms; new pairs lost {seen.pairs_lost}, wait "
        f"{seen.gap_ms:.0f} ms; {len(seen.resets)} broken, {seen.claims} masters{written}"
        f"{''.join('; MUST NOT BE: ' + fault for fault in seen.faults)}"
    )


def main() -> int:
    """Entry point."""
    options = arguments()
    fleet = Fleet(os.environ.get("QNET_LAB", "qnet"))
    if not options.keep:
        subprocess.run([ROOT / "lab" / "lab", "up"], check=True, stdin=subprocess.DEVNULL)
        fleet.play("site", drills.INVENTORY)
    drills.install(fleet)
    well = True
    with drills.target(fleet):
        for drill in DRILLS:
            if options.only and drill.name not in options.only:
                continue
            load, rounds = os.getloadavg()[0], list[Seen]()
            with drill.scene(fleet):
                for number in range(options.rounds):
                    rounds.append(drills.run_round(fleet, drill, options.connections))
                    print(f"{drill.name} {number + 1}: {shown(rounds[-1])}", flush=True)
            keep(RESULTS, drill, Run(rounds, options.connections, load, os.getloadavg()[0]))
            well = well and not any(seen.faults for seen in rounds)
    if not options.no_page:
        PAGE.write_text(document(kept(RESULTS, DRILLS), DRILLS), encoding="utf-8")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
