# SPDX-License-Identifier: GPL-3.0-or-later
"""Action qiniu.qnet.qnet_validate: checks the inventory on the control node, before any host is touched."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

try:
    from ansible_collections.qiniu.qnet.plugins.plugin_utils.inventory_rules import Fleet, rule_problems
    from ansible_collections.qiniu.qnet.plugins.plugin_utils.inventory_shape import shape_problems
    from ansible_collections.qiniu.qnet.plugins.plugin_utils.problem import Problem, report, suggest

    IMPORT_ERROR: ImportError | None = None
except ImportError as error:
    IMPORT_ERROR = error


class ActionModule(ActionBase):
    """Fails with all errors of the inventory at once; never changes anything and opens no connection."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """The result: `errors`, a list of path, value, rule and hint, and `msg`, the same for a person."""
        if IMPORT_ERROR is not None:
            raise AnsibleActionFail(
                f"qnet_validate needs {IMPORT_ERROR.name} in the Python that runs Ansible: {IMPORT_ERROR}; "
                "install requirements/dev.txt, or: pip install jsonschema"
            )
        result: dict[str, Any] = super().run(tmp, task_vars)
        dummy, args = self.validate_argument_spec(
            {
                "schema": {"type": "path", "required": True},
                "switches": {"type": "list", "elements": "str"},
                "database": {"type": "list", "elements": "str", "default": []},
                "underlay_payload": {"type": "int"},
            }
        )
        task_vars = task_vars or {}
        schema = _schema(args["schema"])
        fleet = Fleet(
            now=datetime.now(UTC),
            switches=args["switches"] or None,
            database=args["database"],
            underlay_payload=args["underlay_payload"],
            has_file=lambda file: any(os.path.isfile(os.path.join(base, file)) for base in _bases(task_vars)),
            controller_sets=_sets(task_vars, "controllers"),
            switch_sets=_sets(task_vars, "switches"),
        )
        fleet_wide = [name for name, about in schema["properties"].items() if about.get("x-scope") != "host"]
        inventory = {name: self._templar.template(task_vars[name]) for name in fleet_wide if name in task_vars}
        problems = [
            *_unknown(task_vars, schema["properties"]),
            *shape_problems(schema, inventory),
            *_host_problems(schema, set(fleet_wide), task_vars),
            *rule_problems(inventory, fleet),
        ]
        result |= {"changed": False, "errors": [problem.as_dict() for problem in problems]}
        result |= {"failed": bool(problems), "msg": report(problems) if problems else "The inventory is valid."}
        return result


def _schema(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            schema: dict[str, Any] = json.load(file)
    except (OSError, ValueError) as error:
        hint = "give the path of inventory.schema.json"
        raise AnsibleActionFail(f"schema = {path}: cannot be read: {error}; {hint}") from None
    return schema


def _bases(task_vars: Mapping[str, Any]) -> Iterator[str]:
    """The directories that workload files are looked for in: those of the inventory's sources."""
    for source in task_vars.get("ansible_inventory_sources") or ():
        yield source if os.path.isdir(source) else os.path.dirname(source)


def _sets(task_vars: Mapping[str, Any], group: str) -> dict[str, str]:
    """The set of controllers that each host of a group belongs to."""
    hosts = task_vars.get("groups", {}).get(group, ())
    return {host: str(task_vars["hostvars"][host].get("qnet_controller_set", "default")) for host in hosts}


def _host_problems(schema: Mapping[str, Any], fleet_wide: set[str], task_vars: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong with the variables of each host."""
    names = set(schema["properties"]) - fleet_wide
    for host in task_vars.get("groups", {}).get("all", ()):
        variables = task_vars["hostvars"][host]
        mine = {name: variables[name] for name in sorted(names & set(variables))}
        for problem in shape_problems(schema, mine):
            yield dataclasses.replace(problem, path=("hostvars", host, *problem.path))


def _unknown(task_vars: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[Problem]:
    """Variables of any host that look like ours and are not; each is named once."""
    seen: dict[str, Any] = dict(task_vars)
    hosts = task_vars.get("hostvars")
    for host in task_vars.get("groups", {}).get("all", ()):
        seen |= hosts.raw_get(host) if hosts is not None else {}
    for name in sorted(seen):
        if name.startswith("qnet_") and name not in known:
            yield Problem((name,), seen[name], "is no known variable", suggest(name, known, "Remove it or rename it"))
        elif f"qnet_{name}" in known and f"qnet_{name}" not in seen:
            yield Problem((name,), seen[name], "has no qnet_ before its name", f"Rename it to qnet_{name}.")
