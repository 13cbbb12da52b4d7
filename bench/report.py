# SPDX-License-Identifier: Apache-2.0
"""What all benches share: interleaved rounds of several contenders, medians with their spread, ratios beside a goal.

Machines are noisy, so a figure alone means little: every round runs each contender once, in turn, and what is
compared are ratios within a run. A bench measures; it does not judge: a missed goal is printed, never an exit status.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Series:
    """The values of one contender, one a round, in the order of the rounds; same unit in all."""

    name: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        return f"{number(self.median)} ({number(min(self.values))} … {number(max(self.values))})"


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio of medians, `ours` / `peer`, and the bound it should keep: at least or at most `bound`."""

    ours: str
    peer: str
    bound: float
    at_least: bool = True

    def line(self, series: Mapping[str, Series]) -> str:
        """One line: the ratio of the medians with that of the single rounds, and whether the goal is met."""
        ours, peer = series[self.ours], series[self.peer]
        rounds = [a / b for a, b in zip(ours.values, peer.values, strict=True) if b]
        if not rounds or not peer.median:
            return f"{self.ours} / {self.peer}: no ratio, {self.peer} measured 0"
        ratio = ours.median / peer.median
        met = ratio >= self.bound if self.at_least else ratio <= self.bound
        relation = "≥" if self.at_least else "≤"
        return (
            f"{self.ours} / {self.peer} = {number(ratio)} ({number(min(rounds))} … {number(max(rounds))}), "
            f"goal {relation} {number(self.bound)}: {'met' if met else 'MISSED'}"
        )


def number(value: float) -> str:
    """Three significant digits, thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def arguments(description: str, rounds: int = ROUNDS) -> argparse.ArgumentParser:
    """A parser with what every bench takes: `--rounds`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"interleaved rounds (default {rounds})")
    return parser


def interleave(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Series]:
    """Run every contender once a round, the order reversed in every other round; progress goes to stderr."""
    values: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds):
        order: Sequence[str] = list(contenders) if turn % 2 == 0 else list(contenders)[::-1]
        for name in order:
            values[name].append(contenders[name]())
            print(f"  round {turn + 1}/{rounds}: {name}: {number(values[name][-1])}", file=sys.stderr, flush=True)
    return {name: Series(name, tuple(found)) for name, found in values.items()}


def table(title: str, unit: str, series: Mapping[str, Series], goals: Sequence[Goal] = ()) -> str:
    """The result for people: a line for each contender, median (smallest … largest), then the goals."""
    rounds = max(len(one.values) for one in series.values())
    width = max(len(name) for name in series)
    load = os.getloadavg()[0]
    lines = [f"{title}: {unit}, median of {rounds} rounds (spread); load of the machine {load:.1f}"]
    lines += [f"  {name:<{width}}  {one}" for name, one in series.items()]
    lines += [f"  {goal.line(series)}" for goal in goals]
    return "\n".join(lines)
