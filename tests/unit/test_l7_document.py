# SPDX-License-Identifier: Apache-2.0
"""The table in docs/design/l7.md: every option with its nginx directives and the tests that show it at work."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.qiniu.qnet.plugins.module_utils import _l7_schema, _l7_shared

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs/design/l7.md"
BEGIN, END = "<!-- options: begin -->\n", "<!-- options: end -->\n"


def directives(shape: Mapping[str, Any]) -> list[str]:
    """The nginx directives of an option and of all inside of it."""
    found = list(shape.get("x-nginx", ()))
    inner = [*shape.get("properties", {}).values(), shape.get("items"), shape.get("additionalProperties")]
    for one in inner:
        if isinstance(one, dict):
            found += [name for name in directives(one) if name not in found]
    return found


def options(kind: str, properties: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Name and shape of every option; groups are taken apart."""
    for name, shape in properties.items():
        if "properties" in shape:
            yield from ((f"{kind}.{name}.{inner}", one) for inner, one in shape["properties"].items())
        else:
            yield f"{kind}.{name}", shape


def covering() -> dict[str, list[str]]:
    """What the tests say they cover."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests/l7").glob("test_*.py")):
        module = importlib.import_module(f"tests.l7.{path.stem}")
        for name, test in vars(module).items():
            for option in getattr(test, "covers", ()):
                found.setdefault(option, []).append(f"{path.stem}::{name}")
    return found


def all_options() -> dict[str, Mapping[str, Any]]:
    listener = {
        name: shape for name, shape in _l7_schema.LISTENER["properties"].items() if name not in _l7_shared.SHARED
    }
    return {
        **dict(options("listener", listener)),
        **dict(options("route", _l7_schema.ROUTE["properties"])),
        **dict(options("service", _l7_schema.SERVICE["properties"])),
    }


def table() -> str:
    """The table, in the order of the schema."""
    known, lines = covering(), []
    for title, kind in (("A listener's own", "listener"), ("Of a route", "route"), ("Of a service: `l7`", "service")):
        lines += [f"### {title}", "", "| option | nginx directive | test (tests/l7) |", "| --- | --- | --- |"]
        for name, shape in all_options().items():
            if name.split(".")[0] == kind:
                parent = ".".join(name.split(".")[:2])
                tests = known.get(name, []) + (known.get(parent, []) if parent != name else [])
                shown = name.split(".", 1)[1]
                nginx = ", ".join(f"`{word}`" for word in directives(shape))
                lines.append(f"| `{shown}` | {nginx} | {', '.join(f'`{test}`' for test in tests[:2])} |")
        lines.append("")
    return "\n".join(lines)


def test_every_option_is_shown_at_work_by_a_test() -> None:
    known = covering()
    assert [name for name in all_options() if name not in known and ".".join(name.split(".")[:2]) not in known] == []


def test_no_test_covers_an_option_that_does_not_exist() -> None:
    there = {*all_options(), *(".".join(name.split(".")[:2]) for name in all_options())}
    assert sorted(set(covering()) - there) == []


def test_the_document_has_the_table() -> None:
    text = DOCUMENT.read_text()
    before, rest = text.split(BEGIN)
    old, after = rest.split(END)
    wanted = f"\n{table()}\n"
    if os.environ.get("QNET_WRITE_DOCS"):
        DOCUMENT.write_text(before + BEGIN + wanted + END + after)
        old = wanted
    assert old == wanted, "run it again with QNET_WRITE_DOCS=1"
