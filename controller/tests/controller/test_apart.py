# SPDX-License-Identifier: Apache-2.0
"""Work in a child process: its result, its failures, and that it holds nothing of ours."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Coroutine, Iterator
from typing import Any, NoReturn

import pytest

from qnet_controller.api.apart import Apart, Failed
from qnet_controller.controller.trace import Unknown


def run(what: Coroutine[Any, Any, None]) -> None:
    """On a loop of its own, not for ever."""
    asyncio.run(asyncio.wait_for(what, 20))


def refuse() -> NoReturn:
    raise Unknown("pod: there is none")


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def children() -> set[str]:
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as found:
        return set(found.read().split())


@pytest.fixture
def no_child_left() -> Iterator[None]:
    """A switch that other tests of this process share is none of these tests'."""
    before = children()
    yield
    assert children() <= before


@pytest.mark.usefixtures("no_child_left")
def test_results_and_errors_come_back() -> None:
    async def check() -> None:
        apart = Apart()
        assert await apart.run(os.getpid) != os.getpid()
        assert len(await apart.run(bytes, 5_000_000)) == 5_000_000
        with pytest.raises(Unknown, match="there is none"):
            await apart.run(refuse)

    run(check())


def test_it_sees_the_state_of_the_moment_and_the_loop_goes_on() -> None:
    state = {"now": 1}

    def slowly() -> int:
        time.sleep(0.3)
        return state["now"]

    async def check() -> None:
        answer = asyncio.ensure_future(Apart().run(slowly))
        await asyncio.sleep(0.05)
        state["now"] = 2
        turns = 0
        while not answer.done():
            await asyncio.sleep(0.005)
            turns += 1
        assert await answer == 1
        assert turns > 5

    run(check())


@pytest.mark.usefixtures("no_child_left")
def test_a_child_that_is_killed_is_said_to_be() -> None:
    async def check() -> None:
        apart = Apart()
        with pytest.raises(Failed, match="-9"):
            await apart.run(die)
        assert await apart.run(int, "7") == 7  # and the next one has its turn

    run(check())


@pytest.mark.usefixtures("no_child_left")
def test_who_does_not_wait_any_more_leaves_no_child() -> None:
    async def check() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await Apart().run(time.sleep, 600)

    run(check())


def test_a_child_keeps_no_connection_open() -> None:
    ours, theirs = socket.socketpair()

    async def check() -> None:
        work = asyncio.ensure_future(Apart().run(time.sleep, 1.0))
        await asyncio.sleep(0.2)
        ours.close()
        theirs.settimeout(0.5)
        assert theirs.recv(1) == b""  # the end is heard while the child still lives
        assert not work.done()
        await work

    run(check())
