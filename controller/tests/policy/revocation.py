# SPDX-License-Identifier: Apache-2.0
"""Streams of every kind over one export, others beside them, and what becomes of them when the export is revoked."""

from __future__ import annotations

import itertools
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

from .live import Fleet, dotted
from .tenants import SERVICE_BLOCK, TCP, UDP, ExportPlan, World

PROGRAM = Path(__file__).with_name("streams.py")
MODES = {1: "client sends", 2: "server sends", 3: "both send"}
BYSTANDERS_FROM, ROUND = 10_000, 100_000
_ROUNDS = itertools.count()
MOST_TRIES = 20
SIP, SIP_OF_T = SERVICE_BLOCK + 10, SERVICE_BLOCK + 11


def bystander(number: int) -> bool:
    """Whether a stream is one that nothing is taken from."""
    return number % ROUND >= BYSTANDERS_FROM


class Case(NamedTuple):
    """What kind of stream it is."""

    way: str
    place: str
    protocol: int
    mode: int

    def __str__(self) -> str:
        return f"{'TCP' if self.protocol == TCP else 'UDP'}, {self.way}, {self.place}, {MODES[self.mode]}"


ALL = frozenset(
    Case(way, place, protocol, mode)
    for way in ("Service IP", "direct")
    for place in ("same host", "across hosts")
    for protocol in (TCP, UDP)
    for mode in MODES
)


def world() -> World:
    """a/s and a/t with a pod on each of two hosts, b/u on the first; both services are exported to b, pods included."""
    made = World({"red": 100}, {"a": 1, "b": 2, "c": 3})
    made.services = {"a/s": "red", "a/t": "red", "b/u": "red", "c/w": "red"}
    made.service_ips = {"a/s:main": SIP, "a/t:main": SIP_OF_T}
    for service, host in (("a/s", "h1"), ("a/s", "h2"), ("a/t", "h1"), ("a/t", "h2"), ("b/u", "h1"), ("c/w", "h2")):
        made.new_pod(service, host)
    made.exports["a/s", "b"] = ExportPlan("a/s", "b", direct=True)
    made.exports["a/t", "b"] = ExportPlan("a/t", "b", direct=True)
    made.exports["a/t", "c"] = ExportPlan("a/t", "c", direct=True)
    return made


class Intent:
    """The intent database over one connection, as a module writes it: no process starts while time is taken."""

    def __init__(self, path: Path) -> None:
        self.socket = path
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self.sent_at = 0.0

    def execute(self, *operations: dict[str, object]) -> list[dict[str, object]]:
        """Run one transaction; `sent_at` is when, in seconds of the wall clock."""
        self.sent_at = time.time()
        self._socket.sendall(json.dumps({"id": 0, "method": "transact", "params": ["QNet", *operations]}).encode())
        data = b""
        while True:
            data += self._socket.recv(1 << 20)
            try:
                answer = json.loads(data)
            except ValueError:
                continue
            if answer.get("method") == "echo":
                self._socket.sendall(
                    json.dumps({"id": answer["id"], "result": answer["params"], "error": None}).encode()
                )
                data = b""
                continue
            assert answer["error"] is None, answer
            results = cast(list[dict[str, object]], answer["result"])
            assert not [item for item in results if item and "error" in item], results
            return results

    def generation(self) -> int:
        """The number of changes so far."""
        (found,) = self.execute({"op": "select", "table": "QNet_Global", "where": []})
        rows = cast(list[dict[str, int]], found["rows"])
        return rows[0]["generation"]


@dataclass(slots=True)
class Streams:
    """All streams of a fleet."""

    fleet: Fleet
    opened: dict[int, tuple[str, int, int, int]] = field(default_factory=dict)  # address as a text, protocol, mode, ms
    _next: int = field(default_factory=lambda: next(_ROUNDS) * ROUND)

    def open(self, client: str, wishes: list[tuple[int, int, int, int]], first: int | None = None) -> None:
        """Open streams of a pod: (protocol, address, mode, milliseconds) each; they must open."""
        if first is not None:
            self._next = self._next // ROUND * ROUND + first
        lines = []
        for protocol, address, mode, milliseconds in wishes:
            self._next += 1
            self.opened[self._next] = (dotted(address), protocol, mode, milliseconds)
            lines.append([self._next, protocol, dotted(address), mode, milliseconds])
        answer = self.fleet.agents[client].say(json.dumps({"open": lines}))
        assert all(answer.values()), answer

    def report(self) -> dict[int, dict[str, list[Any]]]:
        """Stream → side → [pod, last arrival, records, lost, reset]."""
        found: dict[int, dict[str, list[Any]]] = {}
        for pod, agent in self.fleet.agents.items():
            for number, (side, *rest) in agent.say(json.dumps({"report": True})).items():
                if int(number) in self.opened:  # not a late record of streams that were closed
                    found.setdefault(int(number), {})[side] = [pod, *rest]
        return found

    def case(self, number: int, sides: dict[str, list[Any]]) -> Case:
        """The kind of a stream, by the pod that serves it."""
        address, protocol, mode, _ = self.opened[number]
        server = self.fleet.world.pods[sides["server"][0]]
        place = "same host" if server.host == "h1" else "across hosts"
        return Case("Service IP" if address == dotted(SIP) else "direct", place, protocol, mode)

    def revocable(self, milliseconds: int) -> None:
        """Streams of every kind from b/u-1 to a/s. Through the Service IP as many as it takes: it chooses the place."""
        pods = [self.fleet.world.pods[key].address for key in ("a/s-1", "a/s-2")]
        self.open("b/u-1", [(p, a, m, milliseconds) for p in (TCP, UDP) for m in MODES for a in (*pods, SIP, SIP)])
        for _ in range(MOST_TRIES):
            found = settle(self)
            missing = ALL - {self.case(number, sides) for number, sides in found.items()}
            if not missing:
                return
            self.open("b/u-1", [(case.protocol, SIP, case.mode, milliseconds) for case in sorted(missing)])
        raise AssertionError(f"the Service IP never chose {missing}")

    def bystanders(self, count: int, milliseconds: int) -> None:
        """Streams that nothing is taken from: between the same groups and pods as well as between others."""
        pods = [self.fleet.world.pods[key].address for key in ("a/t-1", "a/t-2")]
        kinds = [(p, a, m) for a in (*pods, SIP_OF_T) for p in (UDP, TCP) for m in MODES]
        wishes = [(*kinds[n % len(kinds)], milliseconds) for n in range(count)]
        self.open("b/u-1", wishes[: count // 2], BYSTANDERS_FROM)
        self.open("c/w-1", wishes[count // 2 :])

    def close(self) -> None:
        """Forget all of them."""
        for agent in self.fleet.agents.values():
            agent.say(json.dumps({"close": True}))
        self.opened.clear()


def settle(streams: Streams, seconds: float = 10.0) -> dict[int, dict[str, list[Any]]]:
    """Wait until something has arrived wherever something should."""
    end = time.monotonic() + seconds
    while True:
        found = streams.report()
        missing = [n for n in streams.opened if n not in found or not _heard(streams, n, found[n])]
        if not missing:
            return found
        assert time.monotonic() < end, f"no packet of {missing[:5]}: {[found.get(n) for n in missing[:5]]}"
        time.sleep(0.1)


def _heard(streams: Streams, number: int, sides: dict[str, list[Any]]) -> bool:
    mode = streams.opened[number][2]
    return "server" in sides and sides["server"][2] > 0 and (not mode & 2 or sides.get("client", [0, 0, 0])[2] > 0)


def last_arrivals(
    streams: Streams, found: dict[int, dict[str, list[Any]]], since: float
) -> Iterator[tuple[Case, float]]:
    """How long after `since`, in milliseconds, the last record of each revoked stream arrived at either end."""
    for number, sides in found.items():
        if not bystander(number):
            last = max(side[1] for side in sides.values())
            yield streams.case(number, sides), max(0.0, last - since) * 1000
