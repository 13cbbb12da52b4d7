# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of the benches."""

from __future__ import annotations

from bench.report import Goal, interleave, number, table


def test_contenders_take_turns_and_the_order_changes() -> None:
    order: list[str] = []

    def run(name: str, value: float) -> float:
        order.append(name)
        return value

    series = interleave({"a": lambda: run("a", 2), "b": lambda: run("b", 1)}, rounds=3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert series["a"].values == (2, 2, 2)


def test_a_goal_says_whether_it_is_met() -> None:
    series = interleave({"ours": lambda: 20.0, "peer": lambda: 10.0}, rounds=1)
    assert Goal("ours", "peer", 2).line(series).endswith("goal ≥ 2: met")
    assert Goal("ours", "peer", 2.1).line(series).endswith("goal ≥ 2.1: MISSED")
    assert Goal("ours", "peer", 1.5, at_least=False).line(series).endswith("goal ≤ 1.5: MISSED")


def test_a_peer_that_did_nothing_gives_no_ratio() -> None:
    series = interleave({"ours": lambda: 1.0, "peer": lambda: 0.0}, rounds=1)
    assert "no ratio" in Goal("ours", "peer", 1).line(series)


def test_the_table_shows_median_and_spread() -> None:
    values = iter((3.0, 1.0, 2000.0))
    text = table("P0", "ms", interleave({"ours": lambda: next(values)}, rounds=3))
    assert "ours  3 (1 … 2,000)" in text
    assert number(0.12345) == "0.123"
