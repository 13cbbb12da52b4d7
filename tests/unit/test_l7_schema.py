# SPDX-License-Identifier: Apache-2.0
"""The part of the inventory's schema about L7 is the one that the modules check with."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.qiniu.qnet.plugins.module_utils import _l7_schema, _l7_text

SCHEMA = Path(__file__).resolve().parents[2] / "schemas/inventory.schema.json"
PARTS = {"l7_service": _l7_schema.SERVICE, "l7_listener": _l7_schema.LISTENER, "l7_route": _l7_schema.ROUTE}


def written(part: Mapping[str, Any]) -> str:
    """A part as it stands in the file: one line for each option."""
    options = ",\n".join(
        f"        {json.dumps(name)}: {json.dumps(value)}" for name, value in part["properties"].items()
    )
    head = {key: value for key, value in part.items() if key != "properties"}
    return json.dumps(head)[:-1] + ', "properties": {\n' + options + "\n      }}"


def rewritten(text: str) -> str:
    """The schema with both parts as they should be."""
    for name, part in PARTS.items():
        before, after = re.split(rf'(?ms)^    "{name}": .*?^      \}}\}}', text, maxsplit=1)
        text = f'{before}    "{name}": {written(part)}{after}'
    return text


def test_the_schema_has_the_options_of_l7() -> None:
    if os.environ.get("QNET_WRITE_DOCS"):
        SCHEMA.write_text(rewritten(SCHEMA.read_text()))
    schema = json.loads(SCHEMA.read_text())
    for name, part in PARTS.items():
        assert schema["$defs"][name] == json.loads(json.dumps(part)), "run it again with QNET_WRITE_DOCS=1"


def shapes(shape: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield shape
    for inner in [*shape.get("properties", {}).values(), shape.get("items"), shape.get("additionalProperties")]:
        if isinstance(inner, dict):
            yield from shapes(inner)


def test_every_option_is_described_and_every_format_is_known() -> None:
    for part in PARTS.values():
        for shape in shapes(part):
            assert shape["description"]
            assert shape.get("format", "l7-line") in _l7_text.FORMATS
            assert shape.get("propertyNames", {}).get("format", "l7-line") in _l7_text.FORMATS
