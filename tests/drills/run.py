#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run the drills on the lab: `make drills`, or `tests/drills/run.py [--rounds N] [--only NAME …]`.

Prints every round, and writes docs/operations/drills.md when all drills have been run.
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
from tests.e2e.fleet import Fleet  # noqa: E402


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="rounds of each drill (default: 20)")
    parser.add_argument("--connections", type=int, default=100, help="open connections (default: 100)")
    parser.add_argument("--only", nargs="*", metavar="NAME", help=f"of {', '.join(d.name for d in DRILLS)}")
    parser.add_argument("--keep", action="store_true", help="the lab has the drills' inventory already")
    return parser.parse_args()


def shown(seen: Seen) -> str:
    """One round as a line."""
    return (
        f"lost {seen.lost} of the flow (wait {seen.flow_gap_ms:.0f} ms), {seen.pairs_lost} new pairs, "
        f"wait {seen.gap_ms:.0f} ms, {len(seen.resets)} resets, "
        f"{seen.claims} claims{''.join('; ' + fault for fault in seen.faults)}"
    )


def main() -> int:
    """Entry point."""
    options = arguments()
    name = os.environ.get("QNET_LAB", "qnet")
    subprocess.run([ROOT / "lab" / "lab", "up"], check=True, stdin=subprocess.DEVNULL)
    fleet = Fleet(name)
    if not options.keep:
        drills.install(fleet)
    with drills.target(fleet):
        for drill in DRILLS:
            if options.only and drill.name not in options.only:
                continue
            for number in range(options.rounds):
                seen = drills.run_round(fleet, drill, options.connections)
                print(f"{drill.name} {number + 1}: {shown(seen)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
