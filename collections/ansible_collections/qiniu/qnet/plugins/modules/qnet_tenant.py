#!/usr/bin/python
# Copyright (c) qnet authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.qiniu.qnet.plugins.module_utils import _model, _module, _plan, _tenant


def _list_of(options: dict[str, t.Any]) -> dict[str, t.Any]:
    return {"type": "list", "elements": "dict", "options": options}


def _without(kind: str, *fields: str) -> dict[str, t.Any]:
    return {name: option for name, option in _module.element_options(kind).items() if name not in fields}


def main() -> None:
    """Run the module."""
    service_ip = _without("service_ip", "group", "service")
    service = {
        "name": {"type": "str", "required": True},
        "network": {"type": "str", "required": True},
        "service_ips": _list_of(service_ip),
    }
    group = {**_without("security_group", "tenant"), "services": _list_of(service)}
    tenant = {"name": {"type": "str", "required": True}, "security_groups": _list_of(group)}
    module = AnsibleModule(
        argument_spec={
            **_module.DATABASE_OPTIONS,
            "networks": _list_of(_module.element_options("network")),
            "tenants": _list_of(tenant),
            "exports": _list_of(_module.element_options("export")),
            "purge": {"type": "bool", "default": False},
        },
        required_one_of=[["networks", "tenants", "exports"]],
        supports_check_mode=True,
    )
    params = module.params

    def planner(have: _model.State) -> _plan.Plan:
        return _tenant.plan_tenants(have, params["networks"], params["tenants"], params["exports"], params["purge"])

    dummy, result = _module.converge(module, planner)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
