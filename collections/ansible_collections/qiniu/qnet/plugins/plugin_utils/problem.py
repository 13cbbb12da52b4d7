# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong in an inventory, said so that the operator can repair it."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Path = tuple[str | int, ...]
"""Where a value is: ("qnet_tenants", 0, "name") is qnet_tenants[0].name."""

_SHOWN = 80


@dataclass(frozen=True)
class Problem:
    """One error: where (`path`), what (`value`, None for a missing one), the broken `rule`, and what to do (`hint`)."""

    path: Path
    value: Any
    rule: str
    hint: str

    def as_dict(self) -> dict[str, str]:
        """The problem with its path and value as text."""
        return {**asdict(self), "path": render_path(self.path), "value": render_value(self.path, self.value)}

    def __str__(self) -> str:
        """One line: path = value: rule. Hint."""
        return f"{render_path(self.path)} = {render_value(self.path, self.value)}: {self.rule}. {self.hint}"


def render_path(path: Path) -> str:
    """The path as it is written in documents: qnet_tenants[0].security_groups[1].name."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif re.fullmatch(r"[A-Za-z_][-A-Za-z0-9_]*", step):
            text += f".{step}" if text else step
        else:
            text += f"[{json.dumps(step)}]"
    return text


def render_value(path: Path, value: Any) -> str:
    """The value as short JSON. A value under an `environment` key may be a secret and is never shown."""
    if "environment" in path[:-1]:
        return "(not shown)"
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The known name that is most likely meant by `name`, or None when none is near."""
    matches = difflib.get_close_matches(str(name), sorted(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def suggest(name: object, known: Iterable[str], otherwise: str) -> str:
    """A hint: the nearest known name as a question; when none is near, `otherwise` followed by what is known."""
    known = sorted(set(known))
    if near := nearest(name, known):
        return f"Did you mean {near}?"
    listed = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
    return f"{otherwise} (known: {listed or 'none'})."


def report(problems: Sequence[Problem]) -> str:
    """All problems for a person: one line each, under a heading for each top-level variable."""
    lines = [f"The inventory has {len(problems)} error{'s' if len(problems) != 1 else ''}; no host was touched."]
    heading = None
    for problem in sorted(problems, key=_order):
        if problem.path[0] != heading:
            heading = problem.path[0]
            lines += ["", f"{heading}:"]
        lines.append(f"  - {problem}")
    return "\n".join(lines)


def _order(problem: Problem) -> list[tuple[bool, int, str]]:
    return [(isinstance(s, str), s if isinstance(s, int) else 0, str(s)) for s in problem.path]
