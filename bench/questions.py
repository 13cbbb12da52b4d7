#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What questions to a controller's API cost the switches: the longest echo of an honest switch meanwhile.

The controller knows the model of P1; other fake switches hold the flows of what their pods have asked. Each question is
asked some times. Beside it, the longest echo while nobody asks.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.fleet import hostile, intent
from bench.fleet.contenders import TABLES
from bench.fleet.load import Asking
from bench.fleet.process import FleetProcess
from bench.fleet.stage import Controller, Stage, stage
from bench.hostile_peers import switch_context
from bench.report import arguments

_QUIET_SECONDS = 0.3
_HANG_MS = 100.0


def questions(plan: intent.Plan) -> dict[str, tuple[str, Any]]:
    """By title, the path and the body."""
    exports = [f"g{plan.group_of(service)}/s{service}->g{group}" for service, group in sorted(plan.exports)]
    pod, other = plan.pods[0], next(pod for pod in plan.pods if pod.group == 0 and pod.index)

    def without(table: str, *keys: str) -> tuple[str, Any]:
        return "/v1/what-if", {"changes": [{"table": table, "key": key, "row": None} for key in keys]}

    return {
        "nothing": ("/healthz", None),
        "metrics": ("/metrics", None),
        "status": ("/v1/status", None),
        "drops": ("/v1/drops", None),
        "trace": (f"/v1/trace?from={pod.key}&to={other.key}&protocol=tcp&port=80", None),
        "flows of a host": (f"/v1/flows?host={plan.hosts[1].name}", None),
        "verify everything": ("/v1/verify", None),
        "what if one export goes": without("Export", exports[0]),
        "what if 500 exports go": without("Export", *exports[:500]),
        "what if all exports go": without("Export", *exports),
        "what if a pod goes": without("Pod", pod.key),
        "what if a group goes": without("Security_Group", "g0"),
    }


def ask(port: int, path: str, body: Any) -> int:
    """One question; the size of the answer."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data, timeout=300) as reply:
        return len(reply.read())


async def measure(ground: Stage, controller: Controller, rounds: int) -> float:
    """Ask everything and print the table; the longest echo of all."""
    report = hostile.Report()
    honest = ground.plan.hosts[0]
    bystander = hostile.Bystander(controller.port, switch_context(ground, honest.name), honest.datapath_id, report)
    task = asyncio.create_task(bystander.run(0.002))
    await asyncio.wait_for(bystander.ready.wait(), 60)
    await asyncio.sleep(2)
    worst = 0.0
    print(f"{'question':<26}{'answered after, ms':>20}{'bytes':>12}{'longest echo, ms':>18}")
    for title, (path, body) in questions(ground.plan).items():
        report.round_trips.clear()
        took, size = 0.0, 0
        for _ in range(rounds):
            began = time.perf_counter()
            size = await asyncio.to_thread(ask, controller.api, path, body)
            took = max(took, time.perf_counter() - began)
            await asyncio.sleep(_QUIET_SECONDS)
        longest = max(report.round_trips) * 1e3
        worst = max(worst, longest)
        print(f"{title:<26}{took * 1e3:>20.1f}{size:>12}{longest:>18.1f}", flush=True)
    task.cancel()
    return worst


def main() -> int:
    """Build up and ask."""
    parser = arguments(__doc__ or "", rounds=3)
    parser.add_argument("--pods", type=int, default=10_000)
    parser.add_argument("--asked", type=int, default=500, help="pairs that each switch has asked for before")
    options = parser.parse_args()
    plan = intent.plan(intent.Size(pods=options.pods, services=options.pods // 10, exports=options.pods // 10))
    with stage(plan) as ground:
        controller = ground.controller()
        controller.start()
        try:
            others = ground.specs(TABLES.plan)[1:]
            with FleetProcess(ground.target(controller), others) as fleet:
                controller.wait_adopted(len(others), 300)
                asking = {host.name: Asking(plan, host.index, TABLES.plan) for host in plan.hosts[1:]}
                fleet.call("run", {name: (one.take(options.asked)[0], 64) for name, one in asking.items()}, False)
                worst = asyncio.run(measure(ground, controller, options.rounds))
        finally:
            controller.kill()
    print(f"longest of all: {worst:.1f} ms (goal: below {_HANG_MS:.0f} ms, as S1 asks of hostile peers)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
