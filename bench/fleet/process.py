# SPDX-License-Identifier: Apache-2.0
"""Many fake switches in a process of their own, told what to do over a pipe."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from .switch import RECONNECT_SECONDS, FakeSwitch, Load, Spec

_PATIENCE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where the controller listens; `ca` empty: plain TCP."""

    port: int
    ca: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a load came to on one switch: seconds, answers, flow-mods, latencies (s), and all that was said."""

    seconds: float
    sent: int
    answered: int
    flow_mods: int
    latencies: tuple[float, ...]
    began: float
    said: tuple[bytes, ...]


class _Fleet:
    """Runs inside the process."""

    def __init__(self, target: Target, specs: Sequence[Spec]) -> None:
        self._target = target
        self.switches = {spec.name: FakeSwitch(spec) for spec in specs}
        self._tasks = [asyncio.ensure_future(self._stay(switch)) for switch in self.switches.values()]
        self._flooding = False
        self._sent, self._rate = 0, 0.0

    def _context(self, spec: Spec) -> ssl.SSLContext | None:
        if not self._target.ca:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(self._target.ca)
        context.load_cert_chain(spec.certificate, spec.key)
        return context

    async def _stay(self, switch: FakeSwitch) -> None:
        """Connect, and again whenever the connection is lost."""
        loop = asyncio.get_running_loop()
        context = self._context(switch.spec)
        while True:
            if not switch.connected:
                with contextlib.suppress(OSError):
                    await loop.create_connection(
                        lambda: switch, "127.0.0.1", self._target.port, ssl=context,
                        server_hostname="" if context else None,
                    )  # fmt: skip
            await asyncio.sleep(RECONNECT_SECONDS)

    async def connected(self, count: int) -> None:
        """Wait until this many switches have a connection."""
        while sum(switch.connected for switch in self.switches.values()) < count:
            await asyncio.sleep(0.02)

    async def run(self, loads: Mapping[str, tuple[list[bytes], int]], timed: bool) -> dict[str, Outcome]:
        """Run loads on several switches at the same time."""
        done = asyncio.Event()
        running: dict[str, Load] = {}

        def finished() -> None:
            if all(load.ended for load in running.values()):
                done.set()

        for name, (packets, window) in loads.items():
            switch = self.switches[name]
            switch.apply()
            switch.recording, switch.on_done = True, finished
            running[name] = Load(packets, window, timed)
        gc.collect()
        gc.disable()
        for name, load in running.items():
            self.switches[name].start(load)
        with contextlib.suppress(TimeoutError):  # what is missing is seen by its absence
            await asyncio.wait_for(done.wait(), _PATIENCE_SECONDS)
        gc.enable()
        found = {}
        for name, load in running.items():
            switch = self.switches[name]
            switch.load, switch.recording = None, False
            found[name] = _outcome(load, tuple(switch.log))
            switch.apply()
        return found

    async def flood(self, name: str, packets: list[bytes], rate: float) -> int:
        """Send packet-ins at a fixed rate until `hush`, whatever comes back; returns how many were sent."""
        switch = self.switches[name]
        keep, switch.keep, self._flooding = switch.keep, False, True
        began = time.perf_counter()
        self._sent = 0
        while self._flooding:
            due = min(int((time.perf_counter() - began) * rate), self._sent + 2000)
            if due > self._sent:
                switch.write(b"".join(packets[number % len(packets)] for number in range(self._sent, due)))
                self._sent = due
            await asyncio.sleep(0.002)
        switch.keep = keep
        self._rate = self._sent / (time.perf_counter() - began)
        return self._sent

    async def hush(self) -> float:
        """End the flood; returns its rate."""
        self._flooding = False
        await asyncio.sleep(0.05)
        return self._rate

    def tell(self, name: str, data: bytes) -> None:
        """Let a switch say something."""
        self.switches[name].write(data)


def _outcome(load: Load, said: tuple[bytes, ...]) -> Outcome:
    latencies: tuple[float, ...] = ()
    if load.timed and load.window == 1:
        times = load.first_flow_at or load.answered_at
        latencies = tuple(after - before for before, after in zip(load.sent_at, times, strict=False))
    seconds = (load.ended or load.began + _PATIENCE_SECONDS) - load.began
    return Outcome(seconds, len(load.packets), load.answered, load.flow_mods, latencies, load.began, said)


async def _serve(connection: Connection, target: Target, specs: Sequence[Spec]) -> None:
    fleet = _Fleet(target, specs)
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[tuple[int, str, tuple[Any, ...]]] = asyncio.Queue()
    loop.add_reader(connection.fileno(), lambda: arrived.put_nowait(connection.recv()))
    pending: set[asyncio.Task[None]] = set()

    async def one(number: int, verb: str, arguments: tuple[Any, ...]) -> None:
        try:
            result: Any = await _VERBS[verb](fleet, *arguments)
        except Exception as error:
            result = error
        connection.send((number, result))

    while True:
        number, verb, arguments = await arrived.get()
        if verb == "stop":
            return
        task = loop.create_task(one(number, verb, arguments))
        pending.add(task)
        task.add_done_callback(pending.discard)


async def _say(fleet: _Fleet, name: str, data: bytes) -> None:
    fleet.tell(name, data)


async def _expire(fleet: _Fleet) -> int:
    return sum(switch.expire() for switch in fleet.switches.values())


async def _settle(fleet: _Fleet, quiet: float = 1.5) -> None:
    """Wait until the controller has heard all that was said, and no switch has been told anything for a while."""
    for switch in fleet.switches.values():
        switch.ask_echo()
    while not all(switch.echoed or not switch.connected for switch in fleet.switches.values()):
        await asyncio.sleep(0.05)
    told = -1
    while told != (told := sum(switch.applied + len(switch.log) for switch in fleet.switches.values())):
        await asyncio.sleep(quiet)


async def _flows(fleet: _Fleet) -> dict[str, int]:
    for switch in fleet.switches.values():
        switch.apply()
    return {name: len(switch.flows) for name, switch in fleet.switches.items()}


async def _keep(fleet: _Fleet, keep: bool) -> None:
    for switch in fleet.switches.values():
        switch.keep = keep


async def _ways(fleet: _Fleet, names: Sequence[str], address: bytes, old: bytes, new: bytes) -> float:
    """Wait until all ways to an address lead to the `new` VTEP on each of the switches; returns when they do."""

    def right(name: str) -> bool:
        switch = fleet.switches[name]
        switch.apply()
        found = [mod for mod in switch.flows.values() if address in mod]
        return any(new in mod for mod in found) and not any(old in mod for mod in found)

    while not all(right(name) for name in names):
        await asyncio.sleep(0.002)
    return time.perf_counter()


async def _losses(fleet: _Fleet) -> int:
    return sum(switch.losses for switch in fleet.switches.values())


_VERBS: dict[str, Callable[..., Any]] = {
    "connected": _Fleet.connected,
    "run": _Fleet.run,
    "flood": _Fleet.flood,
    "hush": _Fleet.hush,
    "say": _say,
    "expire": _expire,
    "settle": _settle,
    "flows": _flows,
    "keep": _keep,
    "ways": _ways,
    "losses": _losses,
}


def _main(connection: Connection, target: Target, specs: Sequence[Spec]) -> None:
    asyncio.run(_serve(connection, target, specs))


class FleetProcess:
    """The handle on such a process; use as a context."""

    def __init__(self, target: Target, specs: Sequence[Spec]) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_main, args=(theirs, target, list(specs)), daemon=True)
        self._process.start()
        theirs.close()
        self._number = 0
        self._replies: dict[int, Any] = {}

    def ask(self, verb: str, *arguments: Any) -> int:
        """Give an order; `reply` fetches its result."""
        self._number += 1
        self._connection.send((self._number, verb, arguments))
        return self._number

    def reply(self, number: int, seconds: float = 180.0) -> Any:
        """The result of an order."""
        end = time.monotonic() + seconds
        while number not in self._replies:
            if not self._connection.poll(max(0.0, end - time.monotonic())):
                raise TimeoutError(f"the fleet does not answer within {seconds} s")
            answered, result = self._connection.recv()
            self._replies[answered] = result
        result = self._replies.pop(number)
        if isinstance(result, Exception):
            raise result
        return result

    def call(self, verb: str, *arguments: Any, seconds: float = 180.0) -> Any:
        """Give an order and wait for its result."""
        return self.reply(self.ask(verb, *arguments), seconds)

    def __enter__(self) -> FleetProcess:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._connection.send((0, "stop", ()))
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
