#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""S1: hostile peers against the whole controller process, and the HELLO that hangs Ryu and os-ken beside it.

Every known shape and streams of mutated messages, with and without a certificate; an honest switch asks for echoes all
the time, and its longest wait is what others notice. Mutations past the first violation of a stream are not read: the
peer has been dropped by then. `--messages` more are read in memory, by the guard and the parsers alone.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import sys
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.fleet import hostile, intent, peers, wire
from bench.fleet.stage import Controller, Stage, cpu_seconds, free_port, running, stage
from bench.report import arguments

from contract.test_hostile import digest
from qnet_controller.openflow.guard import Violation


def switch_context(ground: Stage, name: str) -> ssl.SSLContext:
    """What a switch of that name shows to the controllers."""
    certificate, key = ground.authority.issue(name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(ground.authority.ca)
    context.load_cert_chain(certificate, key)
    return context


async def _assault(ground: Stage, controller: Controller, streams: int, attackers: int) -> hostile.Report:
    report = hostile.Report()
    honest = ground.plan.hosts[0]
    bystander = hostile.Bystander(controller.port, switch_context(ground, honest.name), honest.datapath_id, report)
    task = asyncio.create_task(bystander.run())
    await asyncio.wait_for(bystander.ready.wait(), 30)
    context = switch_context(ground, ground.plan.hosts[1].name)
    for data in hostile.KNOWN.values():
        await asyncio.gather(
            hostile.attack(controller.port, context, [data], report),
            hostile.attack(controller.port, None, [data], report),
        )

    async def attacker(seed: int) -> None:
        chance = random.Random(seed)
        for turn in range(streams // attackers):
            messages = [hostile.mutated(chance) for _ in range(50)]
            await hostile.attack(controller.port, context if turn % 5 else None, messages, report)

    await asyncio.gather(*(attacker(seed) for seed in range(attackers)))
    if task.done():
        task.result()
    task.cancel()
    return report


def _in_memory(count: int) -> tuple[float, int]:
    chance, slowest, refused = random.Random(7), 0.0, 0
    for _ in range(count):
        data = bytearray(hostile.mutated(chance))
        data[2:4] = len(data).to_bytes(2, "big")
        began = time.process_time()
        try:
            with suppress(ValueError):  # a multipart that nobody asks for
                digest(bytes(data))
        except Violation:
            refused += 1
        slowest = max(slowest, time.process_time() - began)
    return slowest, refused


def _beside(peer: peers.Peer) -> str:
    """Whether a peer still answers a second connection after one has said the HELLO."""
    try:
        port = free_port()
        with running(peer.command(port), port, peers.CACHE / f"{peer.name}-hello.log") as process:
            answers = []
            for data in (b"", hostile.HELLO_ELEMENT_0.replace(b"\x06", b"\x04", 1), b""):
                with socket.create_connection(("127.0.0.1", port), timeout=5) as bad:
                    if data:
                        bad.sendall(data)
                        time.sleep(1)
                        continue
                    bad.sendall(wire.hello(wire.OPENFLOW_13))
                    bad.settimeout(5)
                    with suppress(OSError):
                        answers.append(bool(bad.recv(8)))
            before = cpu_seconds(process.pid)
            time.sleep(2)
            spins = cpu_seconds(process.pid) - before > 0.5
            return ("answers others" if len(answers) == 2 else "hangs") + (", spins for good" if spins else "")
    except (peers.Unavailable, RuntimeError, OSError) as error:
        return f"does not take part: {error}"


def main() -> int:
    """Attack and report."""
    parser = arguments(__doc__ or "", rounds=1)
    parser.add_argument("--streams", type=int, default=2000, help="connections with 50 mutated messages each")
    parser.add_argument("--messages", type=int, default=1_000_000, help="mutated messages read in memory")
    parser.add_argument("--attackers", type=int, default=8, help="connections at the same time")
    options = parser.parse_args()
    with stage(intent.plan(intent.Size(switches=2, groups=2, services=4, pods=20, exports=2))) as ground:
        controller = ground.controller()
        controller.start()
        try:
            while not controller.get("/healthz"):
                time.sleep(0.1)
            report = asyncio.run(_assault(ground, controller, options.streams, options.attackers))
            assert controller.process is not None
            alive = controller.process.poll() is None
            failures = controller.metrics("qnet_handler_exceptions_total")
            violations = controller.metrics("qnet_guard_violations_total")
            turned_away = controller.metrics("qnet_turned_away_total")
            tracebacks = controller.log.count("Traceback")
        finally:
            controller.kill()
    waits = sorted(report.round_trips)
    print(
        f"S1 over the network: {report.connections} hostile connections, {report.messages} messages; dropped for "
        f"violations {violations:.0f}, turned away {turned_away:.0f}; the process "
        f"{'lives' if alive else 'has DIED'}, handler failures {failures:.0f}, tracebacks {tracebacks}"
    )
    print(
        f"  honest switch: {len(waits)} echoes, median {waits[len(waits) // 2] * 1e3:.1f} ms, longest "
        f"{waits[-1] * 1e3:.1f} ms, above 100 ms: {sum(wait > 0.1 for wait in waits)} (goal 0)"
    )
    slowest, refused = _in_memory(options.messages)
    print(f"S1 in memory: {options.messages} messages, {refused} refused, slowest {slowest * 1e3:.2f} ms of CPU")
    for peer in peers.ALL:
        print(f"  {peer.name} after a HELLO with an element of length 0: {_beside(peer)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
