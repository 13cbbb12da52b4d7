# SPDX-License-Identifier: Apache-2.0
"""Under load, with the real feeder on a real intent database: two hundred changes cost no request and no connection.

In the lab the requests and the WebSockets go over the overlay, and pods move between hosts.
"""

from __future__ import annotations

import asyncio
import random
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.l7.conftest import Scene, make_lab_scene, make_scene
from tests.l7.covers import covers
from tests.l7.intent import SUBNET, Intent, feeding, intent_database, own_network
from tests.l7.lab import LabPlace
from tests.l7.place import IN_LAB
from websockets.asyncio.client import ClientConnection, connect

CHANGES = 200
SOCKETS = 1000
FIXED = 4  # pods that stay: they carry the WebSockets; four more come and go
MOVED_SHARE = 0.1  # of the changes of a pod in the lab


@contextmanager
def load(scene: Scene) -> Iterator[subprocess.Popen[str]]:
    """h2load over HTTP/1.1, for as long as the block runs."""
    url = f"http://{scene.server}:{scene.listen}/load"
    command = ["h2load", "--h1", "-c", "4", "-n", "100000000", "-D", "600", url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def wait_for(condition: object, what: str) -> None:
    """Until a condition holds, at most 30 s."""
    deadline = time.monotonic() + 30
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


class Fleet:
    """Pods of fop/agents in the intent and on the loopback."""

    happens: frozenset[str] = frozenset({"scaled up", "started again", "scaled down", "drained", "killed"})

    def __init__(self, scene: Scene, intent: Intent) -> None:
        self.scene, self.intent = scene, intent
        self.declared: set[int] = set()
        self.running: set[int] = {1, 2, 3}  # the scene has started them

    def start(self, number: int) -> None:
        if number not in self.running:
            self.scene.backends.start(f"agents-{number}", self.scene.address("fop/agents", number), self.scene.port)
            self.running.add(number)

    def stop(self, number: int) -> None:
        if number in self.running:
            self.scene.stop_pod("fop/agents", number)
            self.running.remove(number)

    def declare(self, number: int, state: str = "active") -> None:
        self.intent.pod(number, self.scene.address("fop/agents", number), state)
        self.declared.add(number)

    def remove(self, number: int) -> None:
        self.intent.remove_pod(number)
        self.declared.remove(number)

    def change(self, number: int, chance: random.Random) -> str:
        """Something happens to a pod: it comes, goes, drains, dies with or without notice, or comes back."""
        if number not in self.declared:
            self.start(number)
            self.declare(number)
            return "scaled up"
        if number not in self.running:
            self.start(number)
            return "started again"  # as after a move: the address stays
        word = chance.choice(["scaled down", "drained", "killed"])
        if word == "scaled down":
            self.remove(number)
        elif word == "drained":
            self.declare(number, "draining")
            self.declare(number)
        else:
            self.stop(number)
        return word


class LabFleet(Fleet):
    """Pods of fop/agents in the lab; of ten that something happens to, one moves to the other host."""

    happens = Fleet.happens | {"moved"}

    def __init__(self, place: LabPlace, scene: Scene, intent: Intent) -> None:
        super().__init__(scene, intent)
        self.place = place
        self.declared = {int(name.rpartition("-")[2]) for name in place.declared["fop/agents"]}
        scene.balancer.services.pop("fop/agents", None)  # from now on this class says which pods there are

    def declare(self, number: int, state: str = "active") -> None:
        super().declare(number, state)
        self.place.declared["fop/agents"].add(f"agents-{number}")

    def remove(self, number: int) -> None:
        # As a scale-down is done: no new connections first, and the requests that are on their way come to their end.
        self.declare(number, "draining")
        time.sleep(0.2)
        super().remove(number)
        self.place.declared["fop/agents"].discard(f"agents-{number}")

    def change(self, number: int, chance: random.Random) -> str:
        if number in self.declared & self.running and chance.random() < MOVED_SHARE:
            self.move(number)
            return "moved"
        return super().change(number, chance)

    def move(self, number: int) -> None:
        pod = self.place.pods[f"fop/agents-{number}"]
        host = next(host for host in self.place.fleet.groups["switches"] if host != pod.host)
        self.stop(number)
        self.place.move(pod, host)
        self.start(number)


async def answer(socket: ClientConnection, text: str) -> str:
    """What a WebSocket's pod says to a text."""
    await socket.send(text)
    return str(await asyncio.wait_for(socket.recv(), 60))


@contextmanager
def on_loopback() -> Iterator[Fleet]:
    """A fleet on the loopback, in the intent of a private database."""
    with (
        own_network(),
        make_scene(SUBNET) as scene,
        intent_database(scene.balancer.directory / "db") as intent,
        feeding(scene.balancer, intent),
    ):
        intent.begin()
        yield Fleet(scene, intent)


@contextmanager
def in_lab(place: LabPlace, intent: Intent) -> Iterator[Fleet]:
    """A fleet in the lab."""
    with make_lab_scene(place, intent) as scene:
        yield LabFleet(place, scene, intent)


@pytest.fixture
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    with in_lab(*request.getfixturevalue("lab")) if IN_LAB else on_loopback() as made:
        yield made


@covers("route.retries.tries", "route.websocket", "route.balance.method")
@pytest.mark.timeout(900 if IN_LAB else 280)
def test_two_hundred_changes_cost_no_request_no_reload_and_no_websocket(fleet: Fleet) -> None:
    scene = fleet.scene

    def route(name: str, path: str, **more: object) -> dict[str, object]:
        backends = [scene.backend("fop/agents")]
        return scene.route(name, path=path, backends=backends, balance={"method": "round_robin"}, **more)

    # A pod that is moved away answers nothing: such a request is asked again elsewhere after a moment.
    timeouts = {"connect_seconds": 1, "read_seconds": 5}
    routes = [
        route("load", "/load", retries={"tries": 4}, timeouts=timeouts),
        route("ws", "/ws", timeouts={"read_seconds": 900}),
    ]

    async def run() -> None:
        url = f"ws://{scene.server}:{scene.listen}/ws"
        sockets: list[ClientConnection] = []
        for _ in range(SOCKETS // 100):
            sockets += await asyncio.gather(*(connect(url, proxy=None, ping_interval=None) for _ in range(100)))
        before = await asyncio.gather(*(answer(one, "x") for one in sockets))
        workers = scene.balancer.workers()
        counts = await asyncio.to_thread(changes)
        assert scene.balancer.workers() == workers, "it was reloaded"
        assert await asyncio.gather(*(answer(one, "x") for one in sockets)) == before
        # Now a route changes: this one is a reload, and the WebSockets stay with the old workers.
        await asyncio.to_thread(scene.configure, *routes, scene.route("more", path="/more"))
        assert not scene.balancer.workers() & workers
        assert await asyncio.gather(*(answer(one, "x") for one in sockets)) == before
        await asyncio.gather(*(one.close() for one in sockets))
        assert sum(counts.values()) == CHANGES
        assert set(counts) == fleet.happens
        print(f"changes: {counts}")

    def changes() -> dict[str, int]:
        chance = random.Random(7)
        counts: dict[str, int] = {}
        for _ in range(CHANGES):
            word = fleet.change(chance.randrange(FIXED + 1, FIXED + 5), chance)
            counts[word] = counts.get(word, 0) + 1
            time.sleep(0.02)
        return counts

    scene.configure(*routes, connections=8192)
    for number in range(1, FIXED + 1):
        fleet.start(number)
        fleet.declare(number)
    for number in fleet.declared - set(range(1, FIXED + 1)):
        fleet.start(number)
    wait_for(lambda: scene.get("/load").status == 200, "the feeder has told nothing")
    with load(scene) as process:
        asyncio.run(run())
        process.send_signal(2)
    lines = scene.balancer.log()
    mine = [line for line in lines if line["route"] == "web/load" and line["user_agent"].startswith("h2load")]
    failed = [line for line in mine if line["status"] != 200 and line["status"] != 499]
    assert re.match("/load", mine[0]["uri"])
    assert failed == []
    print(f"{len(mine)} requests, none failed")
