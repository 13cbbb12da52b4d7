# Copyright (c) qnet authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Words for shapes, as JSON Schema, and a check of values against them that needs no library on the hosts. Pure."""

from __future__ import annotations

import json
import re
import typing as t

from ansible_collections.qiniu.qnet.plugins.module_utils import _l7_text

Shape = dict[str, t.Any]

MAX_SECONDS = 86400 * 365


def _about(description: str, nginx: str) -> Shape:
    found: Shape = {"description": description}
    if nginx:
        found["x-nginx"] = nginx.split()
    return found


def text(description: str, form: str = "l7-line", nginx: str = "", **more: t.Any) -> Shape:
    """A text in one of the formats of _l7_text."""
    return {**_about(description, nginx), "type": "string", "format": form, **more}


def flag(description: str, nginx: str = "", **more: t.Any) -> Shape:
    """True or false."""
    return {**_about(description, nginx), "type": "boolean", **more}


def whole(description: str, low: int, high: int, nginx: str = "", **more: t.Any) -> Shape:
    """A whole number from low to high."""
    return {**_about(description, nginx), "type": "integer", "minimum": low, "maximum": high, **more}


def seconds(description: str, nginx: str = "", low: int = 0, **more: t.Any) -> Shape:
    """A duration in whole seconds."""
    return whole(description, low, MAX_SECONDS, nginx, **more)


def size(description: str, nginx: str = "", **more: t.Any) -> Shape:
    """An amount of bytes such as 16k."""
    return text(description, "l7-size", nginx, **more)


def status(description: str, low: int = 100, high: int = 599, nginx: str = "", **more: t.Any) -> Shape:
    """An HTTP status."""
    return whole(description, low, high, nginx, **more)


def one_of(description: str, *choices: str, nginx: str = "", **more: t.Any) -> Shape:
    """One of some words."""
    return {**_about(description, nginx), "enum": list(choices), **more}


def several(description: str, items: Shape, nginx: str = "", **more: t.Any) -> Shape:
    """A list that is not empty."""
    return {**_about(description, nginx), "type": "array", "minItems": 1, "items": items, **more}


def mapping(description: str, keys: str, values: Shape, nginx: str = "") -> Shape:
    """Names in one format to values."""
    return {
        **_about(description, nginx),
        "type": "object",
        "propertyNames": {"format": keys},
        "additionalProperties": values,
    }


def group(description: str, needed: str = "", /, **properties: Shape) -> Shape:
    """An object with these keys and no others."""
    found: Shape = {
        "description": description,
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }
    if needed:
        found["required"] = needed.split()
    return found


Path: t.TypeAlias = "tuple[str | int, ...]"

_KINDS: dict[str, tuple[t.Any, str]] = {
    "string": (str, "a text"),
    "integer": (int, "a whole number"),
    "boolean": (bool, "true or false"),
    "array": (list, "a list"),
    "object": (dict, "a map of keys to values"),
}


def faults(shape: t.Mapping[str, t.Any], value: t.Any, path: Path = ()) -> t.Iterator[tuple[Path, str]]:
    """(path, what is wrong) for everything in which a value differs from its shape."""
    if "enum" in shape:
        if value not in shape["enum"]:
            yield path, f"{_shown(value)} must be one of {', '.join(shape['enum'])}"
        return
    kind: t.Any
    kind, called = _KINDS[shape["type"]]
    if not isinstance(value, kind) or (isinstance(value, bool) and shape["type"] != "boolean"):
        yield path, f"{_shown(value)} must be {called}"
    elif shape["type"] == "integer" and not shape["minimum"] <= value <= shape["maximum"]:
        yield path, f"{value} is out of range {shape['minimum']} to {shape['maximum']}"
    elif shape["type"] == "string":
        yield from _format_faults(shape, value, path)
    elif shape["type"] == "array":
        if len(value) < shape.get("minItems", 0):
            yield path, "must not be empty; give at least one, or leave it out"
        for index, element in enumerate(value):
            yield from faults(shape["items"], element, (*path, index))
    elif shape["type"] == "object":
        yield from _object_faults(shape, value, path)


def _object_faults(shape: t.Mapping[str, t.Any], value: dict[str, t.Any], path: Path) -> t.Iterator[tuple[Path, str]]:
    properties = shape.get("properties", {})
    for key in shape.get("required", ()):
        if key not in value:
            yield (*path, key), f"is missing; add it: {properties[key]['description']}"
    for key, element in value.items():
        if key in properties:
            yield from faults(properties[key], element, (*path, key))
        elif isinstance(shape.get("additionalProperties"), dict):
            yield from _format_faults(shape.get("propertyNames", {}), key, (*path, key))
            yield from faults(shape["additionalProperties"], element, (*path, key))
        else:
            yield (*path, key), f"is no known key here (known: {', '.join(sorted(properties))})"


def _format_faults(shape: t.Mapping[str, t.Any], value: str, path: Path) -> t.Iterator[tuple[Path, str]]:
    if "format" not in shape:
        return
    try:
        _l7_text.FORMATS[shape["format"]](value)
    except _l7_text.Refused as refused:
        yield path, f"{_shown(value)} {refused}"


def _shown(value: t.Any) -> str:
    shown = json.dumps(value, default=str, ensure_ascii=False)
    return shown if len(shown) <= 60 else shown[:59] + "…"


def written(path: Path) -> str:
    """A path as people write it: routes[0].timeouts.read_seconds."""
    found = ""
    for step in path:
        if isinstance(step, int):
            found += f"[{step}]"
        elif re.fullmatch(r"[A-Za-z_][-A-Za-z0-9_]*", step):
            found += f".{step}" if found else step
        else:
            found += f"[{json.dumps(step)}]"
    return found
