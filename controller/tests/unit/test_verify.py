# SPDX-License-Identifier: Apache-2.0
"""What `verify` compares: not that something is there, but that it does what it should."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from qnet_controller.controller.verify import describable, differences, unlike
from qnet_controller.openflow.events import Dump
from qnet_controller.openflow.wire import flow_content, group_description
from qnet_controller.pipeline.messages import Bucket, Flow, Group, InstalledFlow, Meter, Output, flow
from qnet_controller.pipeline.text import actions_text
from simulator.example import example
from simulator.fabric import Node


@pytest.fixture(scope="module")
def node() -> Node:
    return example().nodes["h1"]


def found(node: Node, what: object = None) -> list[dict[str, Any]]:
    """The differences of a switch that holds all that it should, but for one flow, group or meter under its key."""
    flows, groups, meters = node.program.flows, node.program.groups, node.program.meters
    match what:
        case Flow():
            flows[what.key] = what
        case Group():
            groups[what.id] = what
        case Meter():
            meters[what.id] = what
    dump = Dump(
        tuple(InstalledFlow(key, item.cookie, flow_content(item)) for key, item in flows.items()),
        {number: len(group.buckets) for number, group in groups.items()},
        meters,
        {number: group_description(groups[number]) for number in describable(node.program.groups)},
    )
    return differences(node.program._model, "h1", dump, node.program)


def changed(rows: list[dict[str, Any]]) -> dict[str, Any]:
    (row,) = rows
    assert row["problem"] == "changed"
    return row


def test_a_switch_that_holds_what_it_should_has_no_difference(node: Node) -> None:
    assert found(node) == []


@pytest.mark.parametrize("change", [{"actions": (Output(9),)}, {"idle_timeout": 7}, {"hard_timeout": 7}])
def test_a_flow_that_keeps_its_cookie_and_does_something_else_is_changed(node: Node, change: dict[str, Any]) -> None:
    for item in node.program.flows.values():
        row = changed(found(node, replace(item, **change)))
        assert (row["what"], row["intended"]) == ("flow", actions_text(item.actions))


def test_a_cookie_whose_digest_is_that_of_another_content_deceives_nobody(node: Node) -> None:
    item = next(item for item in node.program.flows.values() if item.actions)
    twins: dict[int, Flow] = {}
    for port in range(1 << 20):  # 16 bits of digest: two contents that share one are soon found
        other = flow(item.table, item.priority, item.match, (Output(port),), 0, "x")  # type: ignore[arg-type]
        twin = twins.setdefault(other.cookie, other)
        if twin is not other:
            break
    assert (twin.cookie, twin.actions != other.actions) == (other.cookie, True)
    assert list(unlike([InstalledFlow(other.key, other.cookie, flow_content(other))], {twin.key: twin})) == [twin.key]


def test_a_group_with_another_backend_or_one_less_is_changed(node: Node) -> None:
    group = next(iter(node.program.groups.values()))
    first = group.buckets[0]
    for buckets in (group.buckets[1:], (replace(first, actions=(Output(9),)), *group.buckets[1:])):
        assert changed(found(node, replace(group, buckets=buckets)))["number"] == group.id


def test_a_group_too_large_for_a_message_is_not_asked_for() -> None:
    small, large = (Group(count, tuple(Bucket(n, 1, (Output(1),)) for n in range(count))) for count in (300, 301))
    assert describable({small.id: small, large.id: large}) == [small.id]
    assert len(group_description(small)) < 65535


def test_a_meter_with_another_rate_is_changed(node: Node) -> None:
    meter = next(iter(node.program.meters.values()))
    assert changed(found(node, replace(meter, rate=meter.rate + 1)))["number"] == meter.id
