#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""P10: one controller process with many switches and pods: memory, CPU at rest, full resync, one pod's move.

The fake switches hold what they are given, so a restarted controller reads everything back. A pod's move is over when
every switch that had a way to it has the new one.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.fleet import intent, wire
from bench.fleet.contenders import TABLES
from bench.fleet.load import Asking
from bench.fleet.process import FleetProcess
from bench.fleet.stage import stage
from bench.report import arguments


def main() -> int:
    """Build up, rest, restart, move."""
    parser = arguments(__doc__ or "", rounds=1)
    parser.add_argument("--switches", type=int, default=1000)
    parser.add_argument("--pods", type=int, default=100_000)
    parser.add_argument("--rest", type=float, default=10.0, help="seconds at rest")
    parser.add_argument("--asking", type=int, default=50, help="switches that talk to the pod that moves")
    options = parser.parse_args()
    size = intent.Size(options.switches, options.pods // 50, options.pods // 10, options.pods, options.pods // 10)
    plan = intent.plan(size)
    began = time.monotonic()
    with stage(plan) as ground:
        print(f"{options.pods} pods in {size.groups} groups are in the database after {time.monotonic() - began:.0f} s")
        controller = ground.controller()
        controller.start()
        try:
            with FleetProcess(ground.target(controller), ground.specs(TABLES.plan)) as fleet:
                began = time.monotonic()
                controller.wait_adopted(options.switches, 900)
                fleet.call("settle", seconds=600)
                print(f"first sync, every flow sent: {time.monotonic() - began:.1f} s")
                flows = sum(fleet.call("flows").values())
                memory = controller.memory() / 1e9
                print(f"  {flows} flows on {options.switches} switches, memory {memory:.2f} GB (goal 2)")
                before = controller.cpu_seconds()
                time.sleep(options.rest)
                print(f"  at rest: {(controller.cpu_seconds() - before) / options.rest:.1%} of a CPU")
                move(plan, fleet, options.asking)
                controller.kill()
                began = time.monotonic()
                controller.start()
                controller.wait_adopted(options.switches, 900)
                print(
                    f"full resync after a kill: {time.monotonic() - began:.1f} s (goal 30), "
                    f"{controller.cpu_seconds():.1f} s of CPU, memory {controller.memory() / 1e9:.2f} GB"
                )
        finally:
            controller.kill()
    return 0


def move(plan: intent.Plan, fleet: FleetProcess, asking: int) -> None:
    """Let many switches learn the way to a pod, move it, and wait until all have the new way."""
    pod = plan.pods[0]
    talking = [host for host in plan.hosts if any(p.group == pod.group for p in plan.on_switch[host.index])]
    talking = [host for host in talking if host.index != pod.switch][:asking]
    for host in talking:
        one = Asking(plan, host.index, TABLES.plan)
        packet, _ = one.about(pod)
        fleet.call("run", {host.name: ([packet], 1)}, False)
    there = next(host for host in plan.hosts if host.index != pod.switch and host not in talking)
    names = [host.name for host in talking]
    way = pod.address  # in the match of the way to the pod
    old, new = plan.hosts[pod.switch].vtep, there.vtep
    began = time.perf_counter()
    fleet.call("say", there.name, wire.port_status(wire.Port(60_000, pod.port.name), 0))
    ended = fleet.call("ways", names, way, old, new)
    print(f"one pod's move, known and corrected on {len(names)} switches: {(ended - began) * 1e3:.0f} ms")


if __name__ == "__main__":
    sys.exit(main())
