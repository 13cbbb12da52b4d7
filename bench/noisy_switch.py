#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One switch floods the controller with packet-ins: what another one notices of it.

The quiet switch has one packet-in outstanding at a time; the noisy one sends at a fixed rate, whatever comes back.
Rounds with and without noise take turns. All answers to the quiet switch are verified.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.fleet import intent
from bench.fleet.contenders import TABLES, judged
from bench.fleet.load import Asking
from bench.fleet.process import FleetProcess
from bench.fleet.stage import stage
from bench.report import Goal, Series, arguments, number, table


def main() -> int:
    """Run the rounds and print the tables."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--rate", type=float, default=10_000.0, help="packet-ins per second of the noisy switch")
    parser.add_argument("--packets", type=int, default=1500, help="packet-ins of the quiet switch per round")
    options = parser.parse_args()
    plan = intent.plan(intent.Size(switches=2))
    rates: dict[str, list[float]] = {"quiet": [], "noisy": []}
    tails: dict[str, list[float]] = {"quiet": [], "noisy": []}
    with stage(plan) as ground:
        controller = ground.controller()
        controller.start()
        specs = ground.specs(TABLES.plan)
        try:
            with (
                FleetProcess(ground.target(controller), specs[:1]) as quiet,
                FleetProcess(ground.target(controller), specs[1:]) as noisy,
            ):
                controller.wait_adopted(2)
                asking = Asking(plan, 0, TABLES.plan)
                noise, _ = Asking(plan, 1, TABLES.plan, illegal=0.5).take(5000)
                for turn in range(2 * options.rounds):
                    kind = "quiet" if turn % 2 == 0 else "noisy"
                    for fleet in (quiet, noisy):
                        fleet.call("expire")
                        fleet.call("settle")
                    packets, asked = asking.take(options.packets)
                    flood = noisy.ask("flood", plan.hosts[1].name, noise, options.rate) if kind == "noisy" else None
                    outcomes = quiet.call("run", {plan.hosts[0].name: (packets, 1)}, True)
                    sent = noisy.reply(noisy.ask("hush")) if flood else 0
                    if flood:
                        noisy.reply(flood)
                    result = judged(plan, [0], [asked], outcomes)
                    rates[kind].append(result.decisions_per_second)
                    tails[kind].append(result.quantile(0.99) * 1e6)
                    middle = statistics.median(result.latencies) * 1e6
                    beside = f", {number(sent)}/s beside it" if sent else ""
                    print(
                        f"  {kind}: {number(result.decisions_per_second)}/s, median {middle:.0f} µs, "
                        f"p99 {tails[kind][-1]:.0f} µs{beside}", file=sys.stderr, flush=True,
                    )  # fmt: skip
        finally:
            controller.kill()
    series = {name: Series(name, tuple(values)) for name, values in rates.items()}
    print(table("decisions of the quiet switch", "1/s", series, [Goal("noisy", "quiet", 0.95)]))
    series = {name: Series(name, tuple(values)) for name, values in tails.items()}
    print(table("p99 of the quiet switch", "µs", series, [Goal("noisy", "quiet", 1.2, at_least=False)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
