# SPDX-License-Identifier: Apache-2.0
"""What the switches hold beside what they should: every difference with its object and a packet that would meet it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..model.model import Model
from ..openflow.events import Dump
from ..openflow.wire import flow_content, group_description
from ..pipeline.messages import Flow, FlowKey, Group, InstalledFlow
from ..pipeline.program import SwitchProgram
from ..pipeline.tables import Table
from ..pipeline.text import actions_text, match_terms
from . import names

_DESCRIBED_BUCKETS = 300  # of at most 150 bytes or so; a message has 65,535


def differences(model: Model, host: str, dump: Dump, program: SwitchProgram) -> list[dict[str, Any]]:
    """One entry per flow, group or meter that is missing, changed or foreign.

    Read back while packets are being decided, a switch may hold what the program has just added or dropped: a caller
    looks again at what differs before it believes it.
    """
    intended, found = program.flows, {flow.key: flow.cookie for flow in dump.flows}
    rows, owners, changed = [], names.Owners(model), set(unlike(dump.flows, intended))
    for key in intended.keys() | found.keys():
        want, have = intended.get(key), found.get(key)
        if want is not None and want.cookie == have and key not in changed:
            continue
        problem = "missing" if have is None else "foreign" if want is None else "changed"
        cookie = want.cookie if want else have or 0
        row = _flow(key) | {
            "host": host,
            "problem": problem,
            "object": owners.of(cookie),
            "intended": actions_text(want.actions) if want else None,
        }
        rows.append(row)
    groups, meters = program.groups, program.meters
    rows += _numbers(host, "group", groups, dump.groups, _unlike_groups(dump, groups))
    rows += _numbers(host, "meter", meters, dump.meters, (n for n, has in dump.meters.items() if meters.get(n) != has))
    return sorted(rows, key=lambda row: (row["what"], row.get("table", ""), -row.get("priority", 0), str(row)))


def unlike(found: Iterable[InstalledFlow], intended: Mapping[FlowKey, Flow]) -> Iterator[FlowKey]:
    """The flows that have the cookie that they should have, and do something else.

    Someone has changed their actions only, or two contents have the same digest.
    """
    for flow in found:
        wanted = intended.get(flow.key)
        if wanted is not None and wanted.cookie == flow.cookie and flow_content(wanted) != flow.content:
            yield flow.key


def describable(groups: Mapping[int, Group]) -> list[int]:
    """The groups whose description fits into a message; of the others only the number of buckets is compared."""
    return [number for number, group in groups.items() if len(group.buckets) <= _DESCRIBED_BUCKETS]


def _unlike_groups(dump: Dump, intended: Mapping[int, Group]) -> Iterator[int]:
    for number, group in intended.items():
        there = dump.descriptions.get(number)
        described = number in dump.groups and there is not None and there != group_description(group)
        if described or dump.groups.get(number, len(group.buckets)) != len(group.buckets):
            yield number


def _flow(key: FlowKey) -> dict[str, Any]:
    table, priority, matching = key
    title = table.title if isinstance(table, Table) else str(int(table))
    return {"what": "flow", "table": title, "priority": priority, "packet": ",".join(match_terms(matching)) or "any"}


def _numbers(
    host: str, what: str, intended: Iterable[int], found: Iterable[int], unlike: Iterable[int]
) -> list[dict[str, Any]]:
    wanted, there = set(intended), set(found)
    problems = {"missing": wanted - there, "foreign": there - wanted, "changed": wanted & there & set(unlike)}
    return [
        {"host": host, "what": what, "problem": problem, "number": number}
        for problem, numbers in problems.items()
        for number in numbers
    ]
