# SPDX-License-Identifier: Apache-2.0
"""Objects from rows that people and modules tell, in which references are names. Nothing of them has been checked."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from ..model.objects import Object
from .rows import COLUMNS, CONVERTERS, MalformedRow, address

_REFERENCES = ("group", "network", "to_group", "home")
_TYPES: dict[str, type] = {"string": str, "integer": int, "boolean": bool, "uuid": str}
_LARGEST = {"vni": (1 << 24) - 1, "number": (1 << 16) - 1, "weight": (1 << 16) - 1}
"""What the database itself would refuse (schemas/qnet.ovsschema)."""


def from_names(table: str, values: Mapping[str, Any]) -> Object:
    """An object from the columns of a row in which references are names, services as `group/service`.

    A pod has its addresses in a column of their own.

    Raises:
        MalformedRow: something is missing or wrong.
    """
    _check(table, values)
    row = SimpleNamespace(**values)
    for column in _REFERENCES:
        if column in values:
            setattr(row, column, SimpleNamespace(name=values[column]))
    if "service" in values:
        group, _, name = values["service"].partition("/")
        row.service = SimpleNamespace(name=name, group=SimpleNamespace(name=group))
    convert = CONVERTERS[table][1]
    try:
        if table == "Pod":
            return convert(row, [address(text) for text in values["addresses"]])
        return convert(row)
    except (AttributeError, KeyError, TypeError) as error:
        raise MalformedRow(f"{table}: {error}") from None


def _check(table: str, values: Any) -> None:
    """Every value is of its column's type and in its range."""
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise MalformedRow(f"{table}: a row is a map of columns")
    columns = {name: column["type"] for name, column in COLUMNS[table].items()}
    if table == "Pod":
        columns["addresses"] = COLUMNS["Network"]["pod_subnets"]["type"]
    for name, kind in columns.items():
        if name in values and not _fits(kind, values[name]):
            raise MalformedRow(f"{table}: {name}: {values[name]!r} is of another type")
        if name in _LARGEST and not 0 <= values.get(name, 0) <= _LARGEST[name]:
            raise MalformedRow(f"{table}: {name}: {values[name]} is none of 0 to {_LARGEST[name]}")


def _fits(kind: Any, value: Any) -> bool:
    """Whether a value has a type of RFC 7047 as JSON people write has it: lists for sets, maps for maps."""
    if isinstance(kind, str):
        return type(value) is _TYPES[kind]
    key = kind["key"] if isinstance(kind["key"], str) else kind["key"]["type"]
    if "value" in kind:
        items = [*value.keys(), *value.values()] if isinstance(value, dict) else [None]
    elif kind.get("max") == "unlimited":
        items = value if isinstance(value, list) else [None]
    elif kind.get("max") == 1 and kind.get("min") == 0:
        items = value if isinstance(value, list) and len(value) <= 1 else [value]
    else:
        items = [value]
    return all(_fits(key, item) for item in items)
