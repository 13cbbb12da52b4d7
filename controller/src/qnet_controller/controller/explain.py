# SPDX-License-Identifier: Apache-2.0
"""From what a switch holds back to the intent: a cookie to its object, a host's flows with names and counters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from ..model.model import Model
from ..model.objects import Address, EgressRule, Subnet
from ..pipeline.messages import COOKIE_MAGIC, Flow, FlowKey, InstalledFlow, Traffic
from ..pipeline.tables import Table
from ..pipeline.text import actions_text, match_terms
from . import names
from .trace import Unknown, rules_text


def cookie(model: Model, text: str) -> dict[str, Any]:
    """What a cookie is about: the purpose of its flow and the object, as it is intended now.

    Raises:
        Unknown: it is not a cookie of qnet.
    """
    try:
        number = int(text, 0)
    except ValueError:
        raise Unknown(f"cookie: {text!r} is not a number such as 0x7104a1b2c3d4e5f6") from None
    if number >> 56 != COOKIE_MAGIC:
        raise Unknown(f"cookie: {text} is not of qnet: its first byte is not {COOKIE_MAGIC:#x}")
    owner = names.cookie_owner(model, number)
    found: dict[str, Any] = {"cookie": f"{number:#x}", "purpose": names.cookie_purpose(number), "object": owner}
    return found | ({"intent": _object(model, owner)} if owner else {})


def _object(model: Model, owner: str) -> dict[str, Any]:
    kind, _, key = owner.partition(" ")
    item = names.tables(model)[kind][key]
    return {name: _plain(value) for name, value in asdict(item).items()}  # type: ignore[call-overload]


def egress_text(rules: Iterable[EgressRule]) -> list[str]:
    """Egress rules as the database has them."""
    shown = ((rule, f"{names.address_text(rule.to.address)}/{rule.to.prefix}") for rule in rules)
    return sorted(f"{to} {rules_text(frozenset({rule.port}))}" if rule.port else to for rule, to in shown)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex(":") if len(value) == 6 else names.address_text(value)
    if isinstance(value, dict) and value.keys() == Subnet.__dataclass_fields__.keys():
        return f"{names.address_text(Address(value['address']))}/{value['prefix']}"
    if isinstance(value, frozenset):  # the port rules of an export or the egress rules of a group
        return egress_text(value) if any(isinstance(rule, EgressRule) for rule in value) else rules_text(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def flows(
    model: Model,
    found: Iterable[tuple[InstalledFlow, Traffic]],
    intended: dict[FlowKey, Flow] | None,
    owner: str | None,
) -> list[dict[str, Any]]:
    """The flows of a switch in the order of the tables, those of one object (`pod a/p`) if `owner` is given.

    Actions are known by the master alone (`intended`), who also tells which flows are not its own.
    """
    rows, owners = [], names.Owners(model)
    for flow, traffic in found:
        of = owners.of(flow.cookie)
        if owner is not None and of != owner:
            continue
        table, priority, matching = flow.key
        row: dict[str, Any] = {
            "table": table.title if isinstance(table, Table) else str(int(table)),
            "priority": priority,
            "match": ",".join(match_terms(matching)),
            "cookie": f"{flow.cookie:#018x}",
            "purpose": names.cookie_purpose(flow.cookie),
            "object": of,
            "packets": traffic.packets,
            "bytes": traffic.bytes,
        }
        if intended is not None:
            want = intended.get(flow.key)
            row["actions"] = actions_text(want.actions) if want else None
            row["intended"] = want is not None and want.cookie == flow.cookie
        rows.append((int(table), -priority, row["match"], row))
    return [row for *_, row in sorted(rows, key=lambda item: item[:3])]
