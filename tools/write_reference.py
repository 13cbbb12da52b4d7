#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write the pages of the reference that are not about plugins: roles, playbooks, inventory variables, the command qnet.

Usage: tools/write_reference.py DIRECTORY

Everything comes from where it is declared: the argument specs of the roles, the comments that begin the playbooks, the
JSON Schema of the inventory, the parser of the command. What is not described there is an error. The pages of the
modules and other plugins are written by antsibull-docs (`make docs` does both).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from qnet_controller.cli.qnet import parser

ROOT = Path(__file__).resolve().parents[1]
Page = tuple[str, str]
"""Path in the reference, and text."""

MARKUP = re.compile(r"\b([BICFOVPMRL])\(([^)]*)\)")


class Undescribed(Exception):
    """Something has no description where it is declared; the text says what and where."""


def plain(text: str | list[str]) -> str:
    """Text of Ansible's documentation as Markdown."""
    joined = " ".join(text) if isinstance(text, list) else text
    return MARKUP.sub(lambda found: f"`{found[2].partition('#')[0]}`", " ".join(joined.split()))


def cell(text: str) -> str:
    """Text for a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head))]
    return "\n".join(lines + [f"| {' | '.join(map(cell, row))} |" for row in rows])


# -- roles ---------------------------------------------------------------------------------------------------------


def role_pages() -> Iterator[Page]:
    """One page for each role, from its argument specs and its defaults."""
    for role in sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir()):
        specs = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]
        defaults_file = role / "defaults/main.yml"
        defaults = (yaml.safe_load(defaults_file.read_text()) or {}) if defaults_file.exists() else {}
        parts = [f"# Role {role.name}", summary_of(role)]
        for name, spec in specs.items():
            parts += entry_point(role.name, name, spec, defaults)
        yield f"roles/{role.name}.md", "\n\n".join(parts) + "\n"


def summary_of(role: Path) -> str:
    """What the README of a role says below its title."""
    readme = role / "README.md"
    if not readme.exists():
        raise Undescribed(f"{role.relative_to(ROOT)}: has no README.md")
    text = re.sub(r"^# .*\n+", "", readme.read_text(), count=1).strip()
    # Links of a README are relative to the role; the page lies two levels below docs/.
    return re.sub(r"\]\((?!https?:|#)([^)]+)\)", rf"](../../../roles/{role.name}/\1)", text)


def entry_point(role: str, name: str, spec: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[str]:
    """The parts of a page for one entry point."""
    where = f"roles/{role}/meta/argument_specs.yml, entry point {name}"
    if not spec.get("short_description"):
        raise Undescribed(f"{where}: has no short_description")
    yield f"## Entry point `{name}`: {plain(spec['short_description'])}"
    if "description" in spec:
        yield plain(spec["description"])
    rows = []
    for option, about in spec.get("options", {}).items():
        if not about.get("description"):
            raise Undescribed(f"{where}: {option} has no description")
        default = defaults.get(option, about.get("default"))
        shown = "required" if about.get("required") else "" if default is None else f"`{json.dumps(default)}`"
        kind = about.get("type", "str") + (f" of {about['elements']}" if "elements" in about else "")
        choices = f" One of {', '.join(map(str, about['choices']))}." if "choices" in about else ""
        rows.append((f"`{option}`", kind, shown, plain(about["description"]) + choices))
    yield table(("variable", "type", "default", "meaning"), rows) if rows else "It has no variables."


# -- playbooks -----------------------------------------------------------------------------------------------------


def playbook_pages() -> Iterator[Page]:
    """One page for each playbook, from the comment that begins it and the names of its plays."""
    for path in sorted((ROOT / "playbooks").glob("*.yml")):
        text = path.read_text()
        comment = [line[1:].removeprefix(" ") for line in text.partition("---")[0].splitlines()]
        about = [line for line in comment if "SPDX-License-Identifier" not in line]
        if not "".join(about).strip():
            raise Undescribed(f"{path.relative_to(ROOT)}: does not begin with a comment that says what it does")
        parts = [f"# Playbook {path.stem}", described(about), "## Plays", plays(yaml.safe_load(text))]
        yield f"playbooks/{path.stem}.md", "\n\n".join(parts) + "\n"


def described(lines: list[str]) -> str:
    """A comment as Markdown: indented lines are commands."""
    blocks = "\n".join(lines).strip("\n").split("\n\n")
    return "\n\n".join(f"```sh\n{_left(block)}\n```" if block.startswith("  ") else block for block in blocks)


def _left(block: str) -> str:
    return "\n".join(line.strip() for line in block.splitlines())


def plays(content: list[dict[str, Any]]) -> str:
    """What runs where, in order."""
    rows = []
    for play in content:
        imported = play.get("ansible.builtin.import_playbook")
        where = f"[{imported}]({Path(imported).stem}.md)" if imported else f"`{play.get('hosts')}`"
        roles = [role if isinstance(role, str) else role["role"] for role in play.get("roles", ())]
        rows.append((play.get("name", ""), where, ", ".join(f"[{role}](../roles/{role}.md)" for role in roles)))
    return table(("play", "hosts", "roles"), rows)


# -- inventory -----------------------------------------------------------------------------------------------------


class Schema:
    """The JSON Schema of the inventory as pages."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema
        self._definitions: Mapping[str, Any] = schema["$defs"]

    def page(self) -> Page:
        """All variables, then what their elements are made of."""
        parts = [
            "# Inventory variables",
            str(self._schema["description"]),
            "A mistake in any of them stops every play before a host is touched; `playbooks/validate.yml` checks them.",
            table(
                ("variable", "of", "type", "default", "meaning"),
                [
                    (f"`{name}`", node.get("x-scope", "fleet"), *self._about(name, node))
                    for name, node in self._schema["properties"].items()
                ],
            ),
        ]
        for name, node in self._definitions.items():
            if "properties" in node:
                rows = list(self._rows(node, ""))
                parts += [f"## {name}", str(node["description"])]
                parts.append(table(("key", "type", "default", "meaning"), rows))
        return "inventory.md", "\n\n".join(parts) + "\n"

    def _rows(self, node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, ...]]:
        """The keys of an object, and below each those of the objects that are written out in it."""
        for key, child in node["properties"].items():
            name = f"{prefix}{key}"
            about = self._about(name, child)
            required = "required" if key in node.get("required", ()) else about[1]
            yield f"`{name}`", about[0], required, about[2]
            inner = child.get("items", child)
            if "properties" in inner:
                yield from self._rows(inner, f"{name}[]." if "items" in child else f"{name}.")

    def _about(self, name: str, node: Mapping[str, Any]) -> tuple[str, str, str]:
        """(type, default, meaning)."""
        target = self._target(node)
        text = node.get("description") or target.get("description")
        if not text:
            raise Undescribed(f"schemas/inventory.schema.json: {name} has no description")
        default = node.get("default", target.get("default"))
        limits = [f"{key}: {', '.join(map(str, target[key]))}" for key in ("enum",) if key in target]
        if "minimum" in target:
            most = f" to {target['maximum']}" if "maximum" in target else " or more"
            limits.append(f"{target['minimum']}{most}")
        shown = "" if default is None else f"`{json.dumps(default)}`"
        return (
            self._kind(node),
            shown,
            " ".join([str(text), *(f"({limit})" for limit in limits)]).replace("(enum: ", "("),
        )

    def _kind(self, node: Mapping[str, Any]) -> str:
        if "$ref" in node:
            name = node["$ref"].rpartition("/")[2]
            return f"[{name}](#{name})" if "properties" in self._target(node) else name.replace("_", " ")
        if "items" in node:
            return f"list of {self._kind(node['items'])}"
        return {"object": "map", "array": "list", None: "string"}.get(node.get("type"), str(node.get("type")))

    def _target(self, node: Mapping[str, Any]) -> Mapping[str, Any]:
        target: Mapping[str, Any] = self._definitions[node["$ref"].rpartition("/")[2]] if "$ref" in node else node
        return target


# -- the command ---------------------------------------------------------------------------------------------------


def command_page() -> Page:
    """Help of the command and of each verb, as the parser says it."""
    top = parser()
    (verbs,) = (action.choices for action in top._actions if isinstance(action.choices, dict))
    parts = [
        "# Command qnet",
        "On a controller host also as a manual page: `man qnet`.",
        f"```text\n{top.format_help()}```",
    ]
    for name, verb in verbs.items():
        parts += [f"## qnet {name}", f"```text\n{verb.format_help()}```"]
    return "qnet.md", "\n\n".join(parts) + "\n"


# -- everything ----------------------------------------------------------------------------------------------------


def pages() -> list[Page]:
    """All pages with the one that leads to them."""
    schema = json.loads((ROOT / "schemas/inventory.schema.json").read_text())
    roles, books = list(role_pages()), list(playbook_pages())
    found = [*roles, *books, Schema(schema).page(), command_page()]
    links = {
        "Playbooks": books,
        "Roles": roles,
        "More": [("inventory.md", ""), ("qnet.md", "")],
    }
    parts = ["# Reference", "Written by `make docs`. Modules and other plugins: [collections](collections/index.rst)."]
    for heading, listed in links.items():
        parts.append(f"## {heading}")
        parts.append("\n".join(f"- [{Path(path).stem}]({path})" for path, dummy in listed))
    return [("README.md", "\n\n".join(parts) + "\n"), *found]


def main() -> int:
    """Write the pages and return the exit status."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        written = pages()
    except Undescribed as error:
        print(error, file=sys.stderr)
        return 1
    for path, text in written:
        file = Path(sys.argv[1]) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
