# SPDX-License-Identifier: Apache-2.0
"""Receipts of several controllers put together, over real TLS; and whom the API answers there."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from contract.real import Authority
from qnet_controller.api.http import serve
from qnet_controller.api.others import Others
from qnet_controller.api.receipt import merged, whole
from qnet_controller.config import Config, Endpoint, Peer, Pki
from qnet_controller.controller.controller import Controller
from qnet_controller.model.objects import Host
from qnet_controller.openflow.server import tls_context
from qnet_controller.ovsdb.feed import Delta
from qnet_controller.pipeline.demands import Settings


def part(host: str, *connections: str, milliseconds: float | None = 1.0) -> dict[str, Any]:
    return {
        "host": host, "flows_added": 1, "flows_removed": 2, "groups_changed": 0, "milliseconds": milliseconds,
        "connections": list(connections), "problem": None,
    }  # fmt: skip


def answer(*hosts: dict[str, Any], confirmed: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"generation": 7, "confirmed": [*confirmed, *(h["host"] for h in hosts)], "hosts": list(hosts)}


def test_a_connection_with_an_end_at_two_masters_is_counted_once() -> None:
    found = merged(["h1", "h2", "h3"], 7, [answer(part("h1", "x", "y")), answer(part("h2", "x"), confirmed=("h3",))])
    assert found["confirmed"]
    assert found["connections_ended"] == 2
    assert found["ended"] == ["x", "y"]
    assert [(h["host"], h["connections"]) for h in found["hosts"]] == [("h1", 2), ("h2", 1)]
    assert (found["flows_added"], found["flows_removed"]) == (2, 4)


def test_what_cannot_be_counted_is_not_said_to_be_nothing() -> None:
    unreadable = part("h2") | {"connections": None, "problem": "no answer"}
    found = merged(["h1", "h2"], 7, [answer(part("h1", "x"), unreadable)])
    assert found["connections_ended"] is None
    assert found["confirmed"]


def test_a_host_that_nobody_speaks_for_is_pending() -> None:
    found = merged(["h1", "h2"], 7, [answer(part("h1"))])
    assert not found["confirmed"]
    assert found["pending"] == ["h2"]


def test_after_a_change_of_master_the_one_that_has_confirmed_counts() -> None:
    late = part("h1", "x", milliseconds=None)
    for order in ([late, part("h1", "x")], [part("h1", "x"), late]):
        (shown,) = merged(["h1"], 7, [answer(item) for item in order])["hosts"]
        assert shown["milliseconds"] == 1.0


@asynccontextmanager
async def controllers(authority: Authority) -> AsyncIterator[list[Controller]]:
    """Two controllers with their API, and no switch."""
    ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
    numbers = [item.getsockname()[1] for item in ports]
    for item in ports:
        item.close()
    peers = tuple(Peer(name, "127.0.0.1", 1, api_port=numbers[i]) for i, name in enumerate(("c1", "c2")))
    running, runners = [], []
    for number, peer in enumerate(peers):
        pki = Pki(authority.ca, *authority.issue(peer.name))
        nowhere = Endpoint("127.0.0.1", 1)
        config = Config(peer.name, nowhere, ("unix:/x",), pki, peers, nowhere, Settings())
        controller = Controller(config)
        running.append(controller)
        context = tls_context(pki.ca, pki.certificate, pki.private_key)
        runners.append(await serve(controller, Endpoint("127.0.0.1", numbers[2 + number]), context))
    try:
        yield running
    finally:
        for controller, runner in zip(running, runners, strict=True):
            controller.close()
            await runner.cleanup()


def test_a_controller_asks_the_others_and_waits_for_a_generation_to_come(authority: Authority) -> None:
    async def run() -> None:
        async with controllers(authority) as (one, two):
            others = Others(one.config)
            asked = asyncio.create_task(others.ask("/v1/receipt/own", {"generation": 3, "seconds": 20}, 20))
            await asyncio.sleep(0)
            two.intent_changed(Delta((Host("h1", (b"\x01" * 4,), 1),), 3, 0))
            assert await asked == [{"generation": 3, "confirmed": [], "hosts": []}]
            one.intent_changed(Delta((Host("h1", (b"\x01" * 4,), 1),), 3, 0))
            found = await whole(one, others, 3, 0.2)
            assert (found["confirmed"], found["pending"]) == (False, ["h1"])

    asyncio.run(run())


def test_nobody_but_a_controller_is_answered_nor_believed(authority: Authority) -> None:
    async def run() -> None:
        async with controllers(authority) as (one, two):
            body = {"generation": 0, "seconds": 0}
            assert len(await Others(one.config).ask("/v1/receipt/own", body, 1)) == 1
            host = replace(one.config, pki=Pki(authority.ca, *authority.issue("h1")))
            assert await Others(host).ask("/v1/receipt/own", body, 1) == []
            other = replace(two.config.controllers[1], name="c3")
            assert await Others(replace(one.config, controllers=(other,))).ask("/v1/receipt/own", body, 1) == []

    asyncio.run(run())
