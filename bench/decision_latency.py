#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""P2: from packet-in to flow-mod, one packet outstanding, beside learning switches in Python and in C.

The parts are those of `decisions.py`. Ours speaks mutual TLS, the others plain TCP.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.fleet.contenders import contenders
from bench.report import Goal, Series, arguments, table


def main() -> int:
    """Run the rounds and print the tables."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--packets", type=int, default=1000, help="packet-ins per round (default 1000)")
    parser.add_argument("--only", nargs="*", default=(), help="contenders to run, by the beginning of their names")
    options = parser.parse_args()
    with contenders(options.only) as running:
        taking_part = [one for one in running if not one.missing]
        middles: dict[str, list[float]] = {one.name: [] for one in taking_part}
        tails: dict[str, list[float]] = {one.name: [] for one in taking_part}
        for turn in range(options.rounds):
            for one in taking_part if turn % 2 == 0 else reversed(taking_part):
                result = one.round(options.packets, 1, 1)
                middles[one.name].append(result.quantile(0.5) * 1e6)
                tails[one.name].append(result.quantile(0.99) * 1e6)
                print(f"  round {turn + 1}: {one.name}: {result.note}", file=sys.stderr, flush=True)
        missing = [one.missing for one in running if one.missing]
    goals = [
        Goal("qnet", peer, bound, at_least=False)
        for peer, bound in (("ryu", 0.5), ("os-ken", 0.5), ("ovs-testcontroller", 2))
        if {"qnet", peer} <= set(tails)
    ]
    series = {name: Series(name, tuple(values)) for name, values in middles.items()}
    print(table("P2 median", "µs", series))
    series = {name: Series(name, tuple(values)) for name, values in tails.items()}
    print(table("P2 p99", "µs", series, goals))
    for line in missing:
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
