# SPDX-License-Identifier: Apache-2.0
"""The controller on a real Open vSwitch, with intent handed to it directly: roles, settling, decisions, expiry."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from contract.example import EXPORT, adopted, controllers, fleet, point, until
from contract.fixtures import BRIDGE, attach
from contract.intent import echo_request
from contract.real import Authority, Vswitch
from qnet_controller.controller import expiry
from qnet_controller.controller.controller import Controller
from qnet_controller.model.objects import (
    Change,
    Export,
    Host,
    Removed,
)
from qnet_controller.ovsdb.feed import Delta
from qnet_controller.ovsdb.rows import address
from qnet_controller.pipeline.tables import Table


def delta(*changes: Change) -> Delta:
    return Delta(changes, 8, 0)


def play(authority: Authority, switch: Vswitch, test: Callable[[Controller], Awaitable[None]], *more: Change) -> None:
    """Run a test with one controller that has adopted the switch."""

    async def run() -> None:
        async with controllers(authority, "c1") as ((controller,), ports):
            controller.intent_changed(fleet(*more))
            point(switch, *ports)
            await until(lambda: adopted(controller))
            await test(controller)
            assert sample(controller, "qnet_openflow_errors_total") == 0
            assert sample(controller, "qnet_handler_exceptions_total") == 0

    asyncio.run(run())


def roles(some: list[Controller]) -> list[str]:
    return sorted(switch.role_name for controller in some for switch in controller.switches.values())


def sample(controller: Controller, name: str, **labels: str) -> float:
    """The sum of a metric over the labels that are not given."""
    return sum(
        item.value
        for metric in controller.metrics.registry.collect()
        for item in metric.samples
        if item.name == name and labels.items() <= item.labels.items()
    )


async def send(switch: Vswitch, number: int, target: str) -> None:
    """Pod `number` pings: the packet enters the pipeline as if its port had received it."""
    packet = f"in_port={number} packet={echo_request(number, target)} actions=resubmit(,0)"
    await asyncio.to_thread(switch.ofctl, "packet-out", packet)


def plans(switch: Vswitch, target: str) -> list[str]:
    return [line for line in switch.flows() if f"table={int(Table.PLAN)}," in line and f"nw_dst={target}" in line]


def test_one_of_two_controllers_is_master_and_both_know_where_pods_are(switch: Vswitch, authority: Authority) -> None:
    async def run() -> None:
        async with controllers(authority, "c1", "c2", "c3") as (all_of_them, ports):
            for controller in all_of_them:
                controller.intent_changed(fleet())
            point(switch, *ports)
            await until(lambda: all(c.switches and c.settled for c in all_of_them))
            await until(lambda: roles(all_of_them) == ["master", "slave", "slave"])
            await until(lambda: any(map(adopted, all_of_them)))
            await asyncio.to_thread(switch.vsctl, "del-port", "dummy3")
            await until(lambda: all(c.status()["pods"][0]["host"] is None for c in all_of_them))
            assert [c.status()["pods"][1]["host"] for c in all_of_them] == ["h1"] * 3
            await asyncio.to_thread(attach, switch, 3)
            await until(lambda: all(c.status()["pods"][0]["host"] == "h1" for c in all_of_them))

    asyncio.run(run())


def test_it_settles_without_a_host_that_stays_away(switch: Vswitch, authority: Authority) -> None:
    async def run() -> None:
        async with controllers(authority, "c1", settle=0.6) as ((controller,), ports):
            controller.intent_changed(fleet(Host("h2", (address("192.0.2.2"),), 0x2222)))
            assert controller.ready, "no switch has come: nothing is waited for"
            point(switch, *ports)
            await until(lambda: controller.switches and next(iter(controller.switches.values())).ports_known)
            began = time.monotonic()
            assert not controller.settled
            assert not controller.ready
            assert switch.flows() == [], "flows before the model was complete"
            await until(lambda: controller.settled)
            assert time.monotonic() - began > 0.4
            await until(lambda: adopted(controller))

    asyncio.run(run())


def test_intent_that_comes_late_is_waited_for(switch: Vswitch, authority: Authority) -> None:
    async def run() -> None:
        async with controllers(authority, "c1") as ((controller,), ports):
            point(switch, *ports)
            await until(lambda: controller.status()["waiting"])
            await asyncio.sleep(0.5)
            assert (controller.settled, controller.ready, switch.flows()) == (False, False, [])
            controller.intent_changed(fleet())
            await until(lambda: adopted(controller))

    asyncio.run(run())


def test_a_pair_asks_once_and_a_refused_pair_once(switch: Vswitch, authority: Authority) -> None:
    async def test(controller: Controller) -> None:
        await send(switch, 3, "10.96.0.10")
        await until(lambda: sample(controller, "qnet_decision_total", kind="service") == 1)
        await until(lambda: plans(switch, "10.96.0.10"))
        asked = sample(controller, "qnet_packet_in_total")
        for _ in range(3):
            await send(switch, 3, "10.96.0.10")
        await send(switch, 3, "10.10.0.1")
        await until(lambda: sample(controller, "qnet_decision_total", kind="drop") == 1)
        await until(lambda: plans(switch, "10.10.0.1"))
        for _ in range(3):
            await send(switch, 3, "10.10.0.1")
        await next(iter(controller.switches.values())).session.barrier()
        assert sample(controller, "qnet_packet_in_total") == asked + 1
        assert sample(controller, "qnet_packet_in_duration_seconds_count") == asked + 1
        assert controller.status()["switches"][0]["demands"] >= 2

    play(authority, switch, test, EXPORT)


def test_an_export_that_expires_ends_the_pair_at_once(switch: Vswitch, authority: Authority) -> None:
    async def test(controller: Controller) -> None:
        controller.intent_changed(delta(replace(EXPORT, expires=int(time.time()) + 2)))
        await send(switch, 3, "10.96.0.10")
        await until(lambda: plans(switch, "10.96.0.10"))
        (before,) = plans(switch, "10.96.0.10")
        assert "goto_table" in before
        await until(lambda: [p for p in plans(switch, "10.96.0.10") if "goto_table" in p] == [], 5)

    play(authority, switch, test)


def test_an_export_ends_by_a_clock_that_has_jumped_and_was_set_back(
    switch: Vswitch, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    offset, real = 0.0, time.time
    monkeypatch.setattr(expiry, "LONGEST_WAIT_SECONDS", 0.1)
    monkeypatch.setattr(time, "time", lambda: real() + offset)

    def allowed() -> bool:
        return any("goto_table" in line for line in plans(switch, "10.96.0.10"))

    async def test(controller: Controller) -> None:
        nonlocal offset
        controller.intent_changed(delta(replace(EXPORT, expires=int(time.time()) + 600)))
        for jump in (0.0, 3600.0, 0.0, 599.0 + 2.0):  # it ends for a while, and in the end for good
            offset = jump
            if jump == 0.0:
                await until(lambda: not any("drop" in line for line in plans(switch, "10.96.0.10")))
                await send(switch, 3, "10.96.0.10")
            await until(allowed if jump == 0.0 else lambda: not allowed())

    play(authority, switch, test)


def test_an_export_that_is_removed_ends_the_pair_at_once(switch: Vswitch, authority: Authority) -> None:
    async def test(controller: Controller) -> None:
        await send(switch, 3, "10.96.0.10")
        await until(lambda: plans(switch, "10.96.0.10"))
        controller.intent_changed(delta(Removed(Export, EXPORT.key)))
        await next(iter(controller.switches.values())).session.barrier()
        await until(lambda: [p for p in plans(switch, "10.96.0.10") if "goto_table" in p] == [], 1)

    play(authority, switch, test, EXPORT)


def test_a_switch_that_stays_away_takes_its_pods_out_of_the_rotation(switch: Vswitch, authority: Authority) -> None:
    async def test(controller: Controller) -> None:
        def rotation() -> list[bool]:
            return [pod["in_rotation"] for pod in controller.status()["pods"]]

        assert rotation() == [True] * 3
        target = switch.vsctl("get-controller", BRIDGE)
        await asyncio.to_thread(switch.vsctl, "del-controller", BRIDGE)
        await until(lambda: rotation() == [False] * 3)
        kept = {"service": "fop/image", "backends": ["fop/p-1", "fop/p-2"], "all_down": True}
        await until(lambda: controller.status()["services"] == [kept])
        await until(lambda: sample(controller, "qnet_services_down") == 1)
        assert [pod["host"] for pod in controller.status()["pods"]] == ["h1"] * 3
        await asyncio.to_thread(switch.vsctl, "set-controller", BRIDGE, target)
        await until(lambda: rotation() == [True] * 3 and adopted(controller))
        await until(lambda: sample(controller, "qnet_services_down") == 0)
        assert controller.status()["services"] == [kept | {"all_down": False}]

    play(authority, switch, test)


def test_a_newer_connection_of_the_same_switch_replaces_the_older_one(
    switch: Vswitch, authority: Authority, tmp_path: Path
) -> None:
    async def run() -> None:
        async with controllers(authority, "c1") as ((controller,), ports):
            controller.intent_changed(fleet())
            point(switch, *ports)
            await until(lambda: adopted(controller))
            first = next(iter(controller.switches.values())).session
            # The same switch under another spelling of the same controller: two connections at once.
            switch.vsctl("set-controller", BRIDGE, f"ssl:127.0.0.1:{ports[0]}", f"ssl:[::ffff:127.0.0.1]:{ports[0]}")
            await until(lambda: next(iter(controller.switches.values())).session is not first)
            assert first.closing == "replaced by a newer connection"
            assert len(controller.switches) == 1

    asyncio.run(run())
