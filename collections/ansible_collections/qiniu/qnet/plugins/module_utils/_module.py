# Copyright (c) qnet authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all modules of the intent share: options, the run from plan to result, and errors as sentences."""

from __future__ import annotations

import copy
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.qiniu.qnet.plugins.module_utils import _model, _ovsdb, _parse, _plan, _receipt, _what_if

_PROBLEMS_SHOWN = 50

DATABASE_OPTIONS: dict[str, t.Any] = {
    "database": {"type": "list", "elements": "str", "default": [_ovsdb.DEFAULT_REMOTE]},
    "private_key": {"type": "path"},
    "certificate": {"type": "path"},
    "ca_certificate": {"type": "path"},
    "timeout_seconds": {"type": "int", "default": 30},
}

# Options of modules that change the intent.
CHANGE_OPTIONS: dict[str, t.Any] = {
    **DATABASE_OPTIONS,
    "revision": {"type": "int"},
    "wait": {"type": "bool", "default": False},
    "wait_seconds": {"type": "int", "default": 30},
    "controller_api": {"type": "str", "default": _receipt.DEFAULT_API},
}

# Options that describe one object of a kind. Names are required of list elements (see element_options).
OBJECT_OPTIONS: dict[str, dict[str, t.Any]] = {
    "network": {
        "name": {"type": "str"},
        "vni": {"type": "int"},
        "pod_subnets": {"type": "list", "elements": "str"},
        "service_subnets": {"type": "list", "elements": "str"},
        "mtu": {"type": "int"},
    },
    "guest": {
        "network": {"type": "str"},
        "home": {"type": "str"},
        "vni": {"type": "int"},
        "addresses": {"type": "list", "elements": "str"},
    },
    "host": {
        "name": {"type": "str"},
        "vteps": {"type": "list", "elements": "str"},
        "datapath_id": {"type": "str"},
        "datapath_kind": {"type": "str", "choices": ["system", "netdev"]},
        "controller_set": {"type": "str"},
        "draining": {"type": "bool"},
    },
    "security_group": {
        "name": {"type": "str"},
        "tenant": {"type": "str"},
        "number": {"type": "int"},
        "egress": {
            "type": "list",
            "elements": "dict",
            "options": {"to": {"type": "str", "required": True}, "ports": {"type": "list", "elements": "str"}},
        },
        "broadcast": {"type": "bool"},
    },
    "service": {
        "group": {"type": "str"},
        "name": {"type": "str"},
        "network": {"type": "str"},
        "drain_seconds": {"type": "int"},
        "l7": {"type": "dict"},
        "health_check": {
            "type": "dict",
            "options": {
                "type": {"type": "str", "choices": ["tcp", "http", "icmp"]},
                "port": {"type": "int"},
                "path": {"type": "str"},
                "interval_seconds": {"type": "float"},
                "timeout_seconds": {"type": "float"},
                "healthy_threshold": {"type": "int"},
                "unhealthy_threshold": {"type": "int"},
            },
        },
    },
    "service_ip": {
        "group": {"type": "str"},
        "service": {"type": "str"},
        "name": {"type": "str", "default": "main"},
        "network": {"type": "str"},
        "address": {"type": "str"},
        "affinity": {"type": "str", "choices": ["none", "client"]},
        "affinity_seconds": {"type": "int"},
    },
    "export": {
        "service": {"type": "str"},
        "to": {"type": "str"},
        "ports": {"type": "list", "elements": "str"},
        "direct": {"type": "bool"},
        "expires": {"type": "str"},
    },
    "l7_listener": {
        "name": {"type": "str"},
        "balancer": {"type": "str"},
        "protocol": {"type": "str", "choices": ["http", "https", "tcp", "udp"]},
        "port": {"type": "int"},
        "settings": {"type": "dict"},
    },
    "l7_route": {"listener": {"type": "str"}, "name": {"type": "str"}, "settings": {"type": "dict"}},
}


def element_options(kind: str) -> dict[str, t.Any]:
    """Options of one element of a plural list: as for a single object, but its key is required."""
    options: dict[str, t.Any] = copy.deepcopy(OBJECT_OPTIONS[kind])
    for field in _model.KINDS[kind].key_fields:
        if "default" not in options[field]:
            options[field]["required"] = True
    return options


def connection_of(module: AnsibleModule) -> _ovsdb.Connection:
    """The database options of a module. Fails the module when a library is missing or no remote is given."""
    for library, package, error in (
        ("ovs", "python3-openvswitch", _ovsdb.OVS_ERROR),
        ("netaddr", "python3-netaddr", _parse.NETADDR_ERROR),
    ):
        if error is not None:
            reason = f"on Debian and Ubuntu install the package {package}; the roles of qnet do"
            module.fail_json(msg=missing_required_lib(library, reason=reason), exception=str(error))
    params = module.params
    if not params["database"]:
        module.fail_json(
            msg="database: the list is empty; give at least one remote, for example "
            f"{_ovsdb.DEFAULT_REMOTE}, or leave it out"
        )
    if params["timeout_seconds"] < 1:
        module.fail_json(msg=f"timeout_seconds: {params['timeout_seconds']} is out of range; it is 1 or more")
    return _ovsdb.Connection(
        tuple(params["database"]),
        params["private_key"],
        params["certificate"],
        params["ca_certificate"],
        params["timeout_seconds"],
        params.get("revision"),
    )


def converge(module: AnsibleModule, planner: _ovsdb.Planner) -> tuple[_ovsdb.Outcome, dict[str, t.Any]]:
    """Run a planner against the database of a module's options.

    Returns the outcome and the results that every module returns: changed, diff, plan, generation, and the receipt
    that was waited for. Ends the module with a message when the wish is refused, the database cannot be reached, or
    the switches do not confirm the change.
    """
    connection = connection_of(module)
    began = time.monotonic()
    try:
        outcome = _ovsdb.converge(connection, planner, module.check_mode)
    except _model.IntentRefused as refused:
        fail(module, refused.problems)
    except _ovsdb.DatabaseError as error:
        fail(module, [str(error)])
    plan = outcome.plan
    result = {
        "changed": plan.changed,
        "diff": plan.diff(),
        "plan": plan.steps(),
        "generation": outcome.generation,
    }
    if module.check_mode:
        predict(module, plan, result)
    elif module.params["wait"]:
        _wait(module, result, began)
    return outcome, result


def predict(module: AnsibleModule, plan: _plan.Plan, result: dict[str, t.Any]) -> None:
    """Say in check mode with diff what the change would mean, as far as a controller can be asked here."""
    if not module._diff or not plan.changed:
        return
    try:
        found = _what_if.ask(module.params["controller_api"], plan)
    except (OSError, ValueError):
        result["what_if"] = None
        return
    result["what_if"] = found
    result["diff"] = [result["diff"], {"prepared": _what_if.text(found)}]


def _wait(module: AnsibleModule, result: dict[str, t.Any], began: float) -> None:
    """Wait until every switch has confirmed what is in the database; a change gets its receipt."""
    params = module.params
    try:
        receipt = _receipt.wait(params["controller_api"], result["generation"], params["wait_seconds"], began)
    except _receipt.Unconfirmed as error:
        module.fail_json(msg=str(error), **{**result, "receipt": error.receipt})
    result["receipt"] = receipt if result["changed"] else None


def read(module: AnsibleModule) -> tuple[_model.State, int]:
    """The whole intent and its generation. Ends the module with a message when the database cannot be reached."""
    connection = connection_of(module)
    try:
        return _ovsdb.read(connection)
    except _ovsdb.DatabaseError as error:
        fail(module, [str(error)])


def fail(module: AnsibleModule, problems: t.Sequence[str]) -> t.NoReturn:
    """End a module with all problems at once: the message has the first of them, ``problems`` has all."""
    shown = list(problems[:_PROBLEMS_SHOWN])
    if len(problems) > len(shown):
        shown.append(f"and {len(problems) - len(shown)} more")
    module.fail_json(msg="\n".join(shown), problems=list(problems))
    raise AssertionError("fail_json returned")


def run_object_module(kind: str) -> None:
    """The whole of a module that manages objects of one kind: one by its options, or many by the plural list."""
    many = _model.plural(kind)
    keys = [field for field in _model.KINDS[kind].key_fields if "default" not in OBJECT_OPTIONS[kind][field]]
    module = AnsibleModule(
        argument_spec={
            **CHANGE_OPTIONS,
            **OBJECT_OPTIONS[kind],
            many: {"type": "list", "elements": "dict", "options": element_options(kind)},
            "purge": {"type": "bool", "default": False},
            "state": {"type": "str", "default": "present", "choices": ["present", "absent"]},
        },
        required_one_of=[[keys[0], many]],
        required_together=[keys] if len(keys) > 1 else [],
        mutually_exclusive=[[keys[0], many]],
        supports_check_mode=True,
    )
    params = module.params
    if params["purge"] and (params[many] is None or params["state"] == "absent"):
        fail(module, [f"purge: needs the list '{many}' and state present; it removes what is not in that list"])
    wishes = _wishes(module, kind, many)
    keys_of_wishes: list[str] = []

    def planner(have: _model.State) -> _plan.Plan:
        draft = _plan.Draft(have)
        ask = draft.put if params["state"] == "present" else draft.remove
        keys_of_wishes[:] = [key for path, wish in wishes if (key := ask(kind, wish, path)) is not None]
        if params["purge"]:
            draft.keep_only(kind, set(keys_of_wishes))
        return draft.plan()

    outcome, result = converge(module, planner)
    records = outcome.state[kind]
    result[many] = [_model.render(records[key]) for key in keys_of_wishes if key in records]
    module.exit_json(**result)


def _wishes(module: AnsibleModule, kind: str, many: str) -> list[tuple[str, dict[str, t.Any]]]:
    """(path, fields) of each object asked for."""
    params = module.params
    if params[many] is not None:
        defaults = {field: option.get("default") for field, option in OBJECT_OPTIONS[kind].items()}
        set_beside = [field for field, default in defaults.items() if params[field] not in (None, default)]
        if set_beside:
            fail(module, [f"{', '.join(set_beside)}: belongs to a single object; put it into the elements of '{many}'"])
        return [(f"{many}[{index}]", element) for index, element in enumerate(params[many])]
    return [("", {field: params[field] for field in OBJECT_OPTIONS[kind]})]


def run_info_module(kind: str) -> None:
    """The whole of a module that reads objects of one kind."""
    many = _model.plural(kind)
    module = AnsibleModule(
        argument_spec={**DATABASE_OPTIONS, "names": {"type": "list", "elements": "str"}},
        supports_check_mode=True,
    )
    state, generation = read(module)
    names = module.params["names"]
    shown = [_model.render(record) for key, record in sorted(state[kind].items()) if names is None or key in names]
    module.exit_json(changed=False, generation=generation, **{many: shown})
