#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The hot path alone: the whole controller in this process, fed packet-ins without sockets and TLS.

The same world and questions as in `decisions.py`, in seconds instead of minutes, for work on the code. Time counts from
the bytes of packet-ins to the bytes of answers. With --profile, which functions it goes to. Nothing is verified here;
`decisions.py` does that.
"""

from __future__ import annotations

import asyncio
import cProfile
import gc
import pstats
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.fleet import intent, wire
from bench.fleet.contenders import ILLEGAL, SWITCHES, TABLES
from bench.fleet.load import Asking
from bench.fleet.switch import FakeSwitch, Spec
from bench.report import Series, arguments, number, table

from qnet_controller import config
from qnet_controller.cli.main import GC_THRESHOLDS
from qnet_controller.controller.controller import Controller
from qnet_controller.model import objects
from qnet_controller.model.objects import Object
from qnet_controller.openflow.events import Limits
from qnet_controller.openflow.session import Session
from qnet_controller.ovsdb.feed import Delta
from qnet_controller.pipeline.demands import Settings

_AT_ONCE = 8
"""Packet-ins that come in one piece, about as many as with a window of 64 on each of eight switches."""


def changes(plan: intent.Plan) -> tuple[Object, ...]:
    """The plan as objects of the model."""
    subnets = (objects.Subnet(bytes((10, 16, 0, 0)), 12),), (objects.Subnet(bytes((10, 96, 0, 0)), 16),)
    found: list[Object] = [objects.Network(intent.NETWORK, intent.VNI, *subnets)]
    found += [objects.Host(host.name, (host.vtep,), host.datapath_id) for host in plan.hosts]
    found += [objects.SecurityGroup(f"g{group}", "bench", group + 1) for group in range(plan.size.groups)]
    for service in range(plan.size.services):
        key = f"g{plan.group_of(service)}/s{service}"
        found.append(objects.Service(f"s{service}", key.partition("/")[0], intent.NETWORK))
        found.append(objects.ServiceIP("main", key, intent.NETWORK, plan.service_address(service)))
    for pod in plan.pods:
        owner = f"g{pod.group}/s{pod.service}"
        found.append(objects.Pod(f"p{pod.index}", owner, intent.NETWORK, pod.mac, pod.port.name, (pod.address,)))
    found += [objects.Export(f"g{plan.group_of(service)}/s{service}", f"g{to}") for service, to in sorted(plan.exports)]
    return tuple(found)


class _Wire(asyncio.Transport):
    """One end of a connection in memory; what is written comes to the other end in the next turn of the loop."""

    def __init__(self, peer: str) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "peercert": {"subject": ((("commonName", peer),),)}})
        self.to: asyncio.Protocol | None = None
        self.kept = bytearray()

    def write(self, data: Any) -> None:
        if self.to is None:
            self.kept += data
        else:
            asyncio.get_running_loop().call_soon(self.to.data_received, bytes(data))

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0


class _Connected:
    """A session of the controller with a fake switch at its other end, until it is fed directly."""

    def __init__(self, controller: Controller, spec: Spec) -> None:
        self.switch = FakeSwitch(spec)
        self.session = Session(controller, Limits(packet_rate=1e9, packet_burst=1e9))
        self.out, back = _Wire(spec.name), _Wire("c1")
        self.out.to, back.to = self.switch, cast(asyncio.Protocol, self.session)
        self.session.connection_made(self.out)
        self.switch.connection_made(back)

    def feed(self, data: bytes) -> None:
        """Hand bytes to the session."""
        self.session.data_received(data)
        while self.session._input and self.session._turn_due:
            self.session._turn()

    def take(self) -> bytes:
        """What the session has said since it was last taken."""
        said, self.out.kept = bytes(self.out.kept), bytearray()
        return said


async def _settled(controller: Controller) -> None:
    while len(controller.switches) < SWITCHES or not all(s.adopted and s.synced for s in controller.switches.values()):
        await asyncio.sleep(0.05)
    await asyncio.sleep(1.0)


async def _idle(ends: Sequence[_Connected]) -> None:
    """Wait until everything that the switches had to say has been taken up."""
    await asyncio.sleep(0.05)
    while any(one.session._outbox._commits or one.session._input for one in ends):
        await asyncio.sleep(0.02)


class _Round:
    """What one round came to."""

    def __init__(self) -> None:
        self.seconds, self.answers, self.flow_mods, self.spans = 0.0, 0, 0, list[float]()

    def run(self, packets: Sequence[Sequence[bytes]], ends: Sequence[_Connected], at_once: int) -> None:
        """Feed the packets of all switches in turn; each is told what is for it, as after a round of the event loop."""
        for one in ends:
            one.out.to = None
        for at in range(0, len(packets[0]), at_once):
            for one, asked in zip(ends, packets, strict=True):
                data = b"".join(asked[at : at + at_once])
                began = time.thread_time()
                one.feed(data)
                for other in ends:
                    other.session._flush_output()
                span = time.thread_time() - began
                self.seconds += span
                self.spans.append(span)
                self.answers += len(asked[at : at + at_once])
                for other in ends:
                    said = other.take()
                    self._count(said)
                    other.switch.data_received(said)
        for one in ends:
            one.out.to = one.switch

    def _count(self, said: bytes) -> None:
        at = 0
        while at < len(said):
            self.flow_mods += said[at + 1] == wire.FLOW_MOD
            at += said[at + 2] << 8 | said[at + 3]


async def _bench(options: Any) -> None:
    plan = intent.plan(intent.Size(switches=SWITCHES))
    here = config.Endpoint("127.0.0.1", 1)
    nowhere = config.Pki(Path(), Path(), Path())
    controller = Controller(
        config.Config("c1", here, (), nowhere, (config.Peer("c1", "127.0.0.1", 1),), here, Settings())
    )
    gc.set_threshold(*GC_THRESHOLDS)
    controller.intent_changed(Delta(changes(plan), 1, 0))
    specs = [
        Spec(h.name, h.datapath_id, wire.OPENFLOW_15, plan.ports(h.index), "", "", TABLES.plan) for h in plan.hosts
    ]
    ends = [_Connected(controller, spec) for spec in specs]
    await _settled(controller)
    asking = [Asking(plan, host.index, TABLES.plan, ILLEGAL) for host in plan.hosts]
    rates: list[float] = []
    flow_rates: list[float] = []
    profile = cProfile.Profile(time.thread_time) if options.profile else None
    for turn in range(options.rounds):
        for one in ends:
            one.switch.expire()
        await _idle(ends)
        packets = [one.take(options.packets)[0] for one in asking]
        found = _Round()
        if profile and turn == options.rounds - 1:
            profile.enable()
        found.run(packets, ends, options.at_once)
        if profile:
            profile.disable()
        rates.append(found.answers / found.seconds)
        flow_rates.append(found.flow_mods / found.seconds)
        spans = sorted(found.spans)
        print(
            f"  round {turn + 1}: {found.answers} packets, {found.flow_mods} flow-mods, "
            f"{found.seconds / found.answers * 1e6:.1f} µs each; a piece of {options.at_once}: median "
            f"{spans[len(spans) // 2] * 1e6:.0f}, p99 {spans[int(len(spans) * 0.99)] * 1e6:.0f} µs",
            file=sys.stderr,
        )  # fmt: skip
    series = {name: Series(name, tuple(values)) for name, values in (("answers", rates), ("flow-mods", flow_rates))}
    print(table("hot path without sockets", "1/s", series))
    if profile:
        report = pstats.Stats(profile)
        answers = options.packets * SWITCHES
        print(f"{number(report.total_calls / answers)} calls an answer")  # type: ignore[attr-defined]
        report.sort_stats("tottime").print_stats(45)
    controller.close()


def main() -> int:
    """Run the rounds and print the table."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--packets", type=int, default=1000, help="packet-ins per switch and round (default 1000)")
    parser.add_argument("--at-once", type=int, default=_AT_ONCE, help="packet-ins that come in one piece")
    parser.add_argument("--profile", action="store_true", help="say which functions the time goes to")
    asyncio.run(_bench(parser.parse_args()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
