# Copyright (c) qnet authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan would do to reach, connections and flows, asked of a controller, and to L7 requests; told as text."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.qiniu.qnet.plugins.module_utils import _l7_what_if, _plan, _receipt, _rows

_LINES = 50
# Kinds that decide nothing about packets between pods.
_UNASKED = ("host", "l7_listener", "l7_route")


def question(plan: _plan.Plan) -> dict[str, t.Any]:
    """The changes of a plan as the API of a controller takes them: rows with names in the place of references."""
    changes = []
    for change in plan.changes:
        if change.kind not in _UNASKED:
            row = None if change.after is None else _row(change.kind, change.after)
            key = change.key.replace(" -> ", "->")
            changes.append({"table": _rows.TABLE_OF[change.kind], "key": key, "row": row})
    return {"changes": changes}


def _row(kind: str, record: t.Any) -> dict[str, t.Any]:
    row: dict[str, t.Any] = {name: _plain(value) for name, value in dataclasses.asdict(record).items()}
    if kind == "export":
        row["to_group"] = row.pop("to")
        row["expires"] = [] if record.expires is None else [record.expires]
    elif kind in ("service_ip", "pod"):
        row["service"] = record.service_key
    row.pop("l7", None)  # decides nothing about packets between pods
    if "health_check" in row:
        row["health_check"] = dict(record.health_check)
    for name in ("drain_until", "affinity_seconds"):
        if name in row:
            row[name] = [] if row[name] is None else [row[name]]
    return row


def _plain(value: t.Any) -> t.Any:
    return list(value) if isinstance(value, tuple) else value


def ask(api: str, plan: _plan.Plan) -> dict[str, t.Any]:
    """What a plan would do. Raises OSError or ValueError when no controller says it."""
    return {**_receipt.ask(api, "/v1/what-if", question(plan)), "requests": _l7_what_if.requests(plan)}


def text(found: t.Mapping[str, t.Any]) -> str:
    """For people."""
    lines = [f"- {_reach(item)}" for item in found["lost"]] + [f"+ {_reach(item)}" for item in found["gained"]]
    ended = found["connections_ended"]
    lines += _l7_what_if.text(found["requests"])
    lines.append(f"connections that would be ended: {'unknown' if ended is None else ended}")
    for host in found["hosts"]:
        touched = host["flows_added"] + host["flows_removed"] + host["groups_changed"]
        if touched or host["connections"] or host["problem"]:
            count = "unknown" if host["connections"] is None else host["connections"]
            lines.append(
                f"{host['host']}: {count} connections, {host['flows_added']} flows added, "
                f"{host['flows_removed']} removed, {host['groups_changed']} groups changed"
            )
    if found["unknown"]:
        lines.append(f"nothing is known of: {', '.join(found['unknown'])}")
    return "\n".join(lines[:_LINES] + ([f"and {len(lines) - _LINES} lines more"] if len(lines) > _LINES else [])) + "\n"


def _reach(item: t.Mapping[str, t.Any]) -> str:
    if item["target"] == "outside":
        return f"{item['group']} reaches {item['address']} outside: {item['ports']}"
    if item["target"] == "broadcast":
        return f"{item['group']} reaches all of its own in {item['network']} by broadcast and multicast"
    return f"{item['group']} reaches {item['target']} ({item['address']} in {item['network']}): {item['ports']}"
