# SPDX-License-Identifier: Apache-2.0
"""What a change of intent would do everywhere: every controller says it for the switches that it is master of."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from ..controller import names
from ..controller.conntrack import Unreadable, protocol_name
from ..controller.controller import Controller
from ..controller.receipts import Part, ends_text
from ..controller.switch import Switch
from ..model.objects import Change, Removed
from ..ovsdb.named import from_names
from ..ovsdb.rows import CONVERTERS, MalformedRow
from ..pipeline.connections import Connection, concerned, zones
from ..pipeline.what_if import EVERYTHING, Reach, WhatIf, what_if
from .apart import Apart
from .others import Others

ANSWER_SECONDS = 10.0


def changes_of(body: Any) -> list[Change]:
    """The changes of a question, `{"changes": [{"table", "key", "row"}]}`; without a row the object goes.

    Raises:
        MalformedRow: a change means nothing; says which and why.
    """
    listed = body.get("changes") if isinstance(body, dict) else None
    if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
        raise MalformedRow("changes: a list of maps with table, key and row")
    return [_change(item) for item in listed]


def _change(item: dict[str, Any]) -> Change:
    table, key, row = item.get("table"), item.get("key"), item.get("row")
    if not isinstance(table, str) or table not in CONVERTERS:
        raise MalformedRow(f"table {table!r} is none of {', '.join(CONVERTERS)}")
    if row is not None:
        return from_names(table, row)
    if not isinstance(key, str):
        raise MalformedRow(f"key {key!r} of {table} is no text")
    return Removed(CONVERTERS[table][0], key)


async def own(controller: Controller, apart: Apart, body: Any) -> dict[str, Any]:
    """What the changes would do at the switches that this controller is master of."""
    changes = changes_of(body)
    groups = concerned(controller.model, changes)
    mastered = [switch for switch in controller.switches.values() if switch.ready() is not None]
    read = await asyncio.gather(*(_connections(controller, switch, groups) for switch in mastered))
    return await apart.run(_predicted, controller, changes, mastered, read)


def _predicted(
    controller: Controller,
    changes: list[Change],
    mastered: list[Switch],
    read: list[tuple[int, list[Connection] | str]],
) -> dict[str, Any]:
    programs = {switch.datapath_id: program for switch in mastered if (program := switch.ready()) is not None}
    listed = {number: found for number, found in read if isinstance(found, list)}
    problems = {number: found for number, found in read if isinstance(found, str)}
    found = what_if(controller.model, changes, programs, listed, time.time())
    hosts = [_host(controller, switch, found, problems.get(switch.datapath_id, "")) for switch in mastered]
    return {
        "gained": [_shown(item) for item in found.gained],
        "lost": [_shown(item) for item in found.lost],
        "hosts": sorted(hosts, key=lambda host: str(host["host"])),
    }


async def _connections(
    controller: Controller, switch: Switch, groups: frozenset[str]
) -> tuple[int, list[Connection] | str]:
    where = zones(controller.model, switch.datapath_id, groups)
    try:
        return switch.datapath_id, await controller.receipts.read(switch, where) if where else []
    except Unreadable as error:
        return switch.datapath_id, f"its connections cannot be read: {error}"


def _host(controller: Controller, switch: Switch, found: WhatIf, problem: str) -> dict[str, Any]:
    part = Part(switch.host)
    part.count(found.commands.get(switch.datapath_id, ()))
    ended = found.cut.get(switch.datapath_id)
    return {
        "host": switch.host,
        "flows_added": part.flows_added,
        "flows_removed": part.flows_removed,
        "groups_changed": part.groups_changed,
        "connections": None if ended is None else sorted(ends_text(controller.model, item) for item in ended),
        "problem": problem or None,
    }


def _shown(item: Reach) -> dict[str, Any]:
    protocol, port = item.rule
    rule = protocol_name(protocol) + (f"/{port}" if port is not None else "")
    return {
        "group": item.group,
        "target": item.target,
        "network": item.network,
        "address": names.address_text(item.address) + (f"/{item.prefix}" if item.prefix >= 0 else ""),
        "ports": "all" if protocol == EVERYTHING.protocol else rule,
    }


async def whole(controller: Controller, others: Others, apart: Apart, body: Any) -> dict[str, Any]:
    """What the changes would do everywhere."""
    mine, theirs = await asyncio.gather(
        own(controller, apart, body), others.ask("/v1/what-if/own", body, ANSWER_SECONDS)
    )
    hosts = {host["host"]: host for answer in (mine, *theirs) for host in answer["hosts"]}
    shown = [hosts[name] for name in sorted(hosts)]
    ended = sorted({text for host in shown for text in host["connections"] or ()})
    counted = all(host["connections"] is not None for host in shown)
    return {
        "gained": mine["gained"],
        "lost": mine["lost"],
        "connections_ended": len(ended) if counted else None,
        "ended": ended,
        "hosts": [{**host, "connections": None if (c := host["connections"]) is None else len(c)} for host in shown],
        "unknown": sorted(set(controller.model.hosts) - set(hosts)),
    }
