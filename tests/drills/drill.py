# SPDX-License-Identifier: Apache-2.0
"""One round of a drill: traffic, a fault in the middle of it, and what the traffic has seen."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.drills import faults
from tests.drills.traffic import FLOW_SECONDS, PAIR_SECONDS
from tests.e2e.fleet import Fleet, Pod, Script, eventually

__all__ = ["FLOW_SECONDS", "PAIR_SECONDS"]
HERE = Path(__file__).parent
INVENTORY = HERE / "inventory"
SCRIPTS = ("traffic.py", "writer.py")
CALLERS = (Pod("one/caller-1", "h1", ""), Pod("two/caller-1", "h1", ""))
TARGET = Pod("one/target-1", "h2", "10.30.1.250")
PROBE_MS = 1000.0  # controller_probe_milliseconds
BEFORE, DURING, AFTER = 0.6, 2.0, 1.4  # seconds of traffic; together no more than there are pairs
STABLE_SECONDS = 90.0
MEMBER_SECONDS = 60.0  # one whose disk was full is started anew within 10
WRITE_SECONDS = BEFORE + DURING + AFTER + 4.0
PREFIX = "drill"


@dataclass(frozen=True)
class Drill:
    """A fault on the `victim`, the controller that is master of the callers' switch."""

    name: str
    title: str
    fault: Callable[[Fleet, str], AbstractContextManager[None]]
    limit_ms: float
    adds_probe: bool = False  # the limit comes on top of the probe time
    flow_limit: int = 0  # datagrams of the established flow that may be lost
    moves: int = 2  # a switch may get another master that often: away, and back
    writer: Callable[[Fleet], str] | None = None  # the host on which intent is written all the time
    scene: Callable[[Fleet], AbstractContextManager[None]] = lambda _: nullcontext()  # there in all rounds

    @property
    def limit(self) -> float:
        """The longest that a new pair may wait, in ms."""
        return self.limit_ms + (PROBE_MS if self.adds_probe else 0.0)


@dataclass
class Seen:
    """What one round has shown."""

    lost: int  # datagrams of the established flow
    pairs_lost: int
    gap_ms: float  # the longest wait of a new pair until it, or a later one, was answered
    flow_gap_ms: float  # the same for the established flow
    resets: list[str]
    claims: int  # times a controller became master of the callers' switch
    written: int = 0  # transactions that were acknowledged
    write_gap_ms: float = 0.0  # the longest time without one
    faults: list[str] = field(default_factory=list)

    def judge(self, drill: Drill) -> None:
        """Add to `faults` what must not be, however slow the machine is."""
        if self.lost > drill.flow_limit:
            self.faults.append(f"{self.lost} datagrams of the established flow lost")
        if self.resets:
            self.faults.append(f"{len(self.resets)} connections broken: {self.resets[0]}")
        if self.claims > drill.moves:
            self.faults.append(f"{self.claims} changes of the master")


def longest_wait(rows: list[tuple[float, float | None]]) -> float:
    """The longest time, in ms, that a sender had to wait until its datagram, or a later one, was answered."""
    longest, came = 0.0, float("inf")
    for at, seconds in reversed(rows):
        if seconds is not None:
            came = min(came, at + seconds)
        # Of the last ones none may be answered: then it is as if the next one would have been.
        longest = max(longest, (came if came < float("inf") else rows[-1][0]) - at)
    return longest * 1000


def install(fleet: Fleet) -> None:
    """The drills' scripts, and what cuts a controller off, on the hosts of the lab."""
    for host in [*fleet.groups["switches"], *fleet.groups["controllers"]]:
        for name in SCRIPTS:
            fleet.put(host, HERE / name)
    for host in fleet.groups["controllers"]:  # cut off with it; the role installs it on the switches only
        fleet.run(host, "apt-get", "-qy", "install", "--no-install-recommends", "nftables")


def masters(fleet: Fleet) -> dict[str, list[str]]:
    """Switch -> the controllers that are its master and have adopted it."""
    found: dict[str, list[str]] = {host: [] for host in fleet.groups["switches"]}
    for controller in fleet.groups["controllers"]:
        status = json.loads(fleet.api(controller, "/v1/status"))
        if not status["settled"]:
            raise AssertionError(f"{controller} has not settled")
        for row in status["switches"]:
            if not row["connected"]:
                raise AssertionError(f"{controller} is not connected to {row['host']}")
            if row["role"] == "master" and row["adopted"]:
                found[row["host"]].append(controller)
    return found


def wait_until_stable(fleet: Fleet) -> dict[str, str]:
    """Every controller knows every switch, and each switch has one master: the one it is to have."""

    def stable() -> dict[str, str] | None:
        try:
            first = masters(fleet)
        except AssertionError:
            return None
        rows = {host: names[0] for host, names in first.items() if len(names) == 1}
        if len(rows) < len(first) or any(rows[host] != elected(fleet, host) for host in rows):
            return None
        return rows

    eventually(stable, STABLE_SECONDS, "every switch has the master elected and all controllers are there")
    return masters_of(fleet)


def masters_of(fleet: Fleet) -> dict[str, str]:
    """Switch -> its one master."""
    return {host: names[0] for host, names in masters(fleet).items()}


def elected(fleet: Fleet, host: str) -> str:
    """Who is to be master of a switch when all live: asked of a controller, which knows the rank."""
    status = json.loads(fleet.api(fleet.groups["controllers"][0], "/v1/status"))
    return str(next(row["elected"] for row in status["switches"] if row["host"] == host))


def claims_since(fleet: Fleet, since: float) -> int:
    """How often any controller has become master of the callers' switch."""
    total = 0
    for host in fleet.groups["controllers"]:
        log = fleet.run(
            host, "journalctl", "--unit=qnet-controller", f"--since=@{since:.3f}", "--output=cat", "--quiet"
        )
        total += sum(f": master of {CALLERS[0].host} " in line for line in log.splitlines())
    return total


@contextmanager
def target(fleet: Fleet) -> Iterator[None]:
    """The pod that answers."""
    with fleet.script(TARGET.host, "traffic.py", "target", TARGET.namespace) as server:
        server.wait_until_ready()
        yield


@contextmanager
def caller(fleet: Fleet, seconds: float, connections: int, period: float = PAIR_SECONDS) -> Iterator[Script]:
    """The pods that call, running and warm."""
    words = [TARGET.address, seconds, connections, period, *(pod.namespace for pod in CALLERS)]
    with fleet.script(CALLERS[0].host, "traffic.py", "caller", *words) as script:
        script.wait_until_ready()
        yield script


@contextmanager
def writing(fleet: Fleet, drill: Drill, seen: list[dict[str, Any]]) -> Iterator[None]:
    """Intent is written while the block runs, where the drill wants that; what became of it is added to `seen`."""
    if drill.writer is None:
        yield
        return
    with fleet.script(drill.writer(fleet), "writer.py", "write", WRITE_SECONDS, PREFIX) as script:
        script.wait_until_ready()
        yield
        seen.append(script.result())


def check_written(fleet: Fleet, seen: Seen, said: dict[str, Any]) -> None:
    """Whatever was acknowledged is in every member of the database."""
    wanted = set(said["acknowledged"])
    seen.written = len(wanted)
    seen.write_gap_ms = max((b - a for a, b in itertools.pairwise(said["times"])), default=0.0) * 1000
    for host in fleet.groups["controllers"]:
        eventually(
            lambda host=host: wanted <= there(fleet, host), MEMBER_SECONDS, f"{host} has all that was acknowledged"
        )
    if not wanted:
        seen.faults.append("nothing was acknowledged")
    with fleet.script(faults.leader(fleet), "writer.py", "remove", PREFIX) as script:
        script.result()


def there(fleet: Fleet, host: str) -> set[str]:
    """What the member of the database on a host has of it; nothing while it does not answer."""
    with suppress(AssertionError), fleet.script(host, "writer.py", "count", PREFIX) as script:
        return set(script.result())
    return set()


def run_round(fleet: Fleet, drill: Drill, connections: int) -> Seen:
    """One round; the fleet is whole before it."""
    where = wait_until_stable(fleet)
    victim = where[CALLERS[0].host]
    since = time.time()
    written: list[dict[str, Any]] = []
    with caller(fleet, BEFORE + DURING + AFTER, connections) as script, writing(fleet, drill, written):
        time.sleep(BEFORE)
        with drill.fault(fleet, victim):
            time.sleep(DURING)
        time.sleep(AFTER)
        rows: dict[str, Any] = script.result()
    seen = Seen(
        lost=sum(seconds is None for _, seconds in rows["flow"]),
        pairs_lost=sum(seconds is None for _, seconds in rows["new"]),
        gap_ms=longest_wait(rows["new"]),
        flow_gap_ms=longest_wait(rows["flow"]),
        resets=rows["resets"] + ["a new connection failed" for _, seconds in rows["connects"] if seconds is None],
        claims=claims_since(fleet, since),
    )
    for said in written:
        check_written(fleet, seen, said)
    seen.judge(drill)
    return seen
