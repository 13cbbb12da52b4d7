# SPDX-License-Identifier: Apache-2.0
"""Controllers side by side: ours with a full model, and learning switches of others, each with a fleet."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from qnet_controller.pipeline.tables import Table

from . import intent, peers, wire
from .load import Asking, Learning
from .process import FleetProcess, Outcome, Target
from .stage import cpu_seconds, free_port, running, stage
from .switch import Spec
from .verify import Asked, Judge, Judgement, Tables, judge_learning

WINDOW = 64
SWITCHES = 8
ILLEGAL = 0.05
TABLES = Tables(int(Table.PLAN), int(Table.LOCATION), int(Table.ASK))


@dataclass(frozen=True, slots=True)
class Round:
    """What one round came to; latencies in seconds, empty unless the window is 1.

    `cpu_per_decision`, `cpu_per_flow_mod`: seconds of the controller's own CPU time.
    """

    decisions_per_second: float
    flow_mods_per_second: float
    latencies: tuple[float, ...]
    note: str
    cpu_per_decision: float = 0.0
    cpu_per_flow_mod: float = 0.0

    def quantile(self, share: float) -> float:
        """A quantile of the latencies."""
        ordered = sorted(self.latencies)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


class WrongAnswers(Exception):
    """A controller's answers do not stand up to verification."""


def _sum_up(outcomes: dict[str, Outcome], judgements: Sequence[Judgement], cpu: float = 0.0) -> Round:
    faults = [fault for one in judgements for fault in one.faults]
    answered = sum(one.allowed + one.refused for one in judgements)
    if faults:
        raise WrongAnswers(f"{len(faults)} of {answered + len(faults)} answers are wrong: {faults[:3]}")
    began = min(outcome.began for outcome in outcomes.values())
    seconds = max(outcome.began + outcome.seconds for outcome in outcomes.values()) - began
    flow_mods = sum(one.flow_mods for one in judgements)
    latencies = tuple(latency for outcome in outcomes.values() for latency in outcome.latencies)
    refused = sum(one.refused for one in judgements)
    note = f"{answered} answers ({refused} refusals) with {flow_mods} flow-mods in {seconds:.2f} s, all verified"
    if latencies:
        note += f", median latency {statistics.median(latencies) * 1e6:.0f} µs"
    return Round(answered / seconds, flow_mods / seconds, latencies, note, cpu / answered, cpu / flow_mods)


def judged(
    plan: intent.Plan,
    switches: Iterable[int],
    asked: Iterable[Sequence[Asked]],
    outcomes: dict[str, Outcome],
    cpu: float = 0.0,
) -> Round:
    """A round of our controller, every answer verified; `cpu`: what it has cost, in seconds.

    Raises:
        WrongAnswers: an answer is wrong or missing.
    """
    judgements = [
        Judge(plan, index, TABLES).judge(questions, outcomes[plan.hosts[index].name].said)
        for index, questions in zip(switches, asked, strict=True)
    ]
    return _sum_up(outcomes, judgements, cpu)


class Contender:
    """A controller, by its process id, and its fleet; `missing` says why it does not take part."""

    def __init__(self, name: str, missing: str = "", process: int = 0) -> None:
        self.name = name
        self.missing = missing
        self.process = process

    def round(self, packets: int, window: int, switches: int = SWITCHES) -> Round:
        """Run one round of `packets` on each of `switches`; every answer is verified."""
        raise NotImplementedError


class Ours(Contender):
    """Our controller: before each round all flows expire, so that every pair is a first one."""

    def __init__(self, name: str, plan: intent.Plan, fleet: FleetProcess, process: int) -> None:
        super().__init__(name, process=process)
        self._plan = plan
        self._fleet = fleet
        self._asking = [Asking(plan, host.index, TABLES.plan, ILLEGAL) for host in plan.hosts]

    def round(self, packets: int, window: int, switches: int = SWITCHES) -> Round:
        """See the base class."""
        self._fleet.call("expire")
        self._fleet.call("settle")
        made = [asking.take(packets) for asking in self._asking[:switches]]
        loads = {self._plan.hosts[index].name: (packets, window) for index, (packets, _) in enumerate(made)}
        before = cpu_seconds(self.process)
        outcomes: dict[str, Outcome] = self._fleet.call("run", loads, True)
        cpu = cpu_seconds(self.process) - before
        return judged(self._plan, range(switches), [asked for _, asked in made], outcomes, cpu)


class LearningSwitch(Contender):
    """A controller that learns MACs: every packet between learned ones gets a flow and goes on."""

    def __init__(self, name: str, fleet: FleetProcess, version: int, process: int, switches: int = SWITCHES) -> None:
        super().__init__(name, process=process)
        self._fleet = fleet
        self._version = version
        self._load = [Learning(index, version) for index in range(switches)]
        fleet.call("connected", switches)
        fleet.call("settle")
        fleet.call("run", {f"s{index}": (load.introduce(), 1) for index, load in enumerate(self._load)}, False)

    def round(self, packets: int, window: int, switches: int = SWITCHES) -> Round:
        """See the base class."""
        made = [load.take(packets) for load in self._load[:switches]]
        before = cpu_seconds(self.process)
        outcomes: dict[str, Outcome] = self._fleet.call(
            "run", {f"s{index}": (packets, window) for index, (packets, _) in enumerate(made)}, True
        )
        cpu = cpu_seconds(self.process) - before
        judgements = [
            judge_learning(asked, outcomes[f"s{index}"].said, self._load[index].port_of, self._version)
            for index, (_, asked) in enumerate(made)
        ]
        return _sum_up(outcomes, judgements, cpu)


def _learning_specs(version: int) -> list[Spec]:
    ports = tuple(wire.Port(number, f"p{number}") for number in range(1, 17))
    return [Spec(f"s{index}", 0x100 + index, version, ports) for index in range(SWITCHES)]


def _wanted(name: str, only: Sequence[str]) -> bool:
    return not only or any(name.startswith(prefix) for prefix in only)


@contextmanager
def contenders(only: Sequence[str] = (), size: intent.Size | None = None) -> Iterator[list[Contender]]:
    """All controllers that can be had on this machine, running, each with a fleet connected."""
    with ExitStack() as stack:
        found: list[Contender] = []
        if _wanted("qnet", only):
            plan = intent.plan(size or intent.Size(switches=SWITCHES))
            ground = stack.enter_context(stage(plan))
            controller = ground.controller()
            controller.start()
            stack.callback(controller.kill)
            fleet = stack.enter_context(FleetProcess(ground.target(controller), ground.specs(TABLES.plan)))
            controller.wait_adopted(SWITCHES)
            assert controller.process
            found.append(Ours("qnet", plan, fleet, controller.process.pid))
        for peer in peers.ALL:
            if not _wanted(peer.name, only):
                continue
            try:
                port, log = free_port(), Path(peers.CACHE) / f"{peer.name}.log"
                command = peer.command(port)
                process = stack.enter_context(running(command, port, log)).pid
            except (peers.Unavailable, RuntimeError, OSError) as error:
                found.append(Contender(peer.name, f"{peer.name} does not take part: {error}"))
                continue
            fleet = stack.enter_context(FleetProcess(Target(port), _learning_specs(peer.version)))
            found.append(LearningSwitch(peer.name, fleet, peer.version, process))
        yield found
