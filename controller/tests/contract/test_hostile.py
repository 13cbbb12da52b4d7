# SPDX-License-Identifier: Apache-2.0
"""Hostile peers, a bounded number of them: all are survived, and an honest one is served meanwhile."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress

import pytest
from bench.fleet import hostile

from contract.peers import scene
from contract.real import Authority
from qnet_controller.openflow import codec, guard, oxm, reading
from qnet_controller.openflow.events import Limits
from qnet_controller.openflow.guard import Multipart, Type, Violation

NO_PENALTY = Limits(penalty=0.0)
STREAMS, PER_STREAM, IN_MEMORY = 60, 20, 20_000


def described(data: bytes) -> list[object]:
    """Everything that is read of a flow description."""
    return [*reading.flows(data), *reading.counted_flows(data), *reading.counted_flows(data, used=True)]


def digest(data: bytes) -> None:
    """Read one framed message as the session does."""
    kind = data[1]
    guard.check(kind, data)
    readers = {
        Type.HELLO: codec.read_hello, Type.ERROR: codec.read_error, Type.FEATURES_REPLY: codec.read_features,
        Type.PACKET_IN: reading.packet_in, Type.FLOW_REMOVED: reading.flow_removed,
        Type.PORT_STATUS: codec.read_port_status, Type.ROLE_REPLY: codec.read_role,
        Type.ROLE_STATUS: codec.read_role_status, Type.REQUESTFORWARD: reading.foreign_request,
    }  # fmt: skip
    if kind == Type.MULTIPART_REPLY:
        parts = {
            Multipart.FLOW_DESC: described, Multipart.FLOW_MONITOR: reading.foreign_flows,
            Multipart.GROUP_STATS: reading.groups, Multipart.METER_DESC: reading.meters,
            Multipart.GROUP_DESC: reading.group_descriptions, Multipart.PORT_DESC: codec.read_ports,
        }  # fmt: skip
        list(parts[Multipart(int.from_bytes(data[8:10], "big"))](data))
    elif kind in readers:
        readers[Type(kind)](data)


def test_mutated_messages_are_read_or_refused_and_none_takes_long() -> None:
    chance = random.Random(4)
    slowest = 0.0
    for _ in range(IN_MEMORY):
        data = bytearray(hostile.mutated(chance))
        data[2:4] = len(data).to_bytes(2, "big")
        began = time.process_time()
        with suppress(Violation, ValueError) if data[1] == Type.MULTIPART_REPLY else suppress(Violation):
            digest(bytes(data))
        slowest = max(slowest, time.process_time() - began)
    # CPU time of one message of a few hundred bytes; a loop that does not advance would never end at all.
    assert slowest < 1.0
    assert oxm is not None


@pytest.mark.parametrize("data", hostile.KNOWN.values(), ids=hostile.KNOWN.keys())
def test_a_known_shape_stops_nobody_else(authority: Authority, data: bytes) -> None:
    async def run() -> None:
        async with scene(authority, NO_PENALTY) as on:
            report = hostile.Report()
            bystander = hostile.Bystander(on.port, on.client_context("h1"), 1, report)
            task = asyncio.create_task(bystander.run())
            await asyncio.wait_for(bystander.ready.wait(), 10)
            await asyncio.gather(
                hostile.attack(on.port, on.client_context("h2"), [data], report),
                hostile.attack(on.port, None, [data], report),
            )
            before = len(report.round_trips)
            async with asyncio.timeout(10):
                while len(report.round_trips) < before + 3:
                    await asyncio.sleep(0.01)
            task.cancel()
            assert not on.owner.sessions[0].closing

    asyncio.run(run())


def test_streams_of_mutated_messages_stop_nobody_else(authority: Authority) -> None:
    async def run() -> None:
        async with scene(authority, NO_PENALTY) as on:
            report = hostile.Report()
            bystander = hostile.Bystander(on.port, on.client_context("h1"), 1, report)
            task = asyncio.create_task(bystander.run())
            await asyncio.wait_for(bystander.ready.wait(), 10)
            context, chance = on.client_context("h2"), random.Random(1)
            for _ in range(STREAMS):
                messages = [hostile.mutated(chance) for _ in range(PER_STREAM)]
                await hostile.attack(on.port, context, messages, report)
            before = len(report.round_trips)
            async with asyncio.timeout(10):
                while len(report.round_trips) < before + 3:
                    await asyncio.sleep(0.01)
            assert not task.done()
            task.cancel()
            assert on.owner.count("handler_failed") == 0
            assert report.messages > STREAMS

    asyncio.run(run())
