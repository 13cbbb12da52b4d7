# SPDX-License-Identifier: Apache-2.0
"""What the switches hold beside what they should: every difference with its object and a packet that would meet it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..model.model import Model
from ..openflow.events import Dump
from ..pipeline.messages import FlowKey
from ..pipeline.program import SwitchProgram
from ..pipeline.tables import Table
from ..pipeline.text import actions_text, match_terms
from . import names


def differences(model: Model, host: str, dump: Dump, program: SwitchProgram) -> list[dict[str, Any]]:
    """One entry per flow, group or meter that is missing, changed or foreign.

    Read back while packets are being decided, a switch may hold what the program has just added or dropped: a caller
    looks again at what differs before it believes it.
    """
    intended, found = program.flows, {flow.key: flow.cookie for flow in dump.flows}
    rows, owners = [], names.Owners(model)
    for key in intended.keys() | found.keys():
        want, have = intended.get(key), found.get(key)
        if want is not None and want.cookie == have:
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
    rows += _numbers(host, "group", program.groups, dump.groups)
    rows += _numbers(host, "meter", program.meters, dump.meters)
    return sorted(rows, key=lambda row: (row["what"], row.get("table", ""), -row.get("priority", 0), str(row)))


def _flow(key: FlowKey) -> dict[str, Any]:
    table, priority, matching = key
    title = table.title if isinstance(table, Table) else str(int(table))
    return {"what": "flow", "table": title, "priority": priority, "packet": ",".join(match_terms(matching)) or "any"}


def _numbers(host: str, what: str, intended: Iterable[int], found: Iterable[int]) -> list[dict[str, Any]]:
    wanted, there = set(intended), set(found)
    missing = [{"host": host, "what": what, "problem": "missing", "number": n} for n in wanted - there]
    return missing + [{"host": host, "what": what, "problem": "foreign", "number": n} for n in there - wanted]
