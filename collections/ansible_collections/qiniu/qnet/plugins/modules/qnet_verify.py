#!/usr/bin/python
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: compare what the switches hold with what is intended."""

from __future__ import annotations

DOCUMENTATION = r"""
module: qnet_verify
short_description: Compare what the switches hold with what is intended
version_added: 0.1.0
description:
  - Asks a controller to read back the flows, groups and meters of every switch that it is master of and to compare them
    with what it intends. Every difference comes with its object and with a packet that would meet it.
  - Runs on a controller host; ask all of them to have all switches checked.
options:
  repair:
    description: Whether to put right what differs.
    type: bool
    default: false
  api:
    description: Where the controller serves its API.
    type: str
    default: http://127.0.0.1:9680
attributes:
  check_mode:
    description: Can run in check mode and return what it would without. Then nothing is repaired.
    support: full
  diff_mode:
    description: Returns what has changed, or would.
    support: full
  idempotent:
    description: Running it again changes nothing.
    support: full
author:
  - qnet contributors (@qnet)
seealso:
  - module: qiniu.qnet.qnet_trace
"""

EXAMPLES = r"""
- name: Compare all switches with what is intended, and put right what differs
  hosts: controllers
  tasks:
    - name: Compare
      qiniu.qnet.qnet_verify:
        repair: true
"""

RETURN = r"""
hosts:
  description: The hosts whose switches were checked.
  returned: success
  type: list
  elements: str
differences:
  description: >-
    What differs, each with C(host), C(what) (flow, group or meter) and C(problem) (missing, changed or foreign); a flow
    also with C(table), C(priority), C(packet), C(object) and C(intended), its actions; others with C(number).
  returned: success
  type: list
  elements: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.qiniu.qnet.plugins.module_utils import _receipt


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "repair": {"type": "bool", "default": False},
            "api": {"type": "str", "default": _receipt.DEFAULT_API},
        },
        supports_check_mode=True,
    )
    api = module.params["api"]
    repair = module.params["repair"] and not module.check_mode
    try:
        found = _receipt.ask(api, "/v1/verify", body={} if repair else None)
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"the controller at {api} cannot compare: {_receipt.reason(error)}")
    differences = found["differences"]
    module.exit_json(
        changed=module.params["repair"] and bool(differences),
        hosts=found["hosts"],
        differences=differences,
        diff={"before": "".join(_line(row) for row in differences), "after": ""},
    )


def _line(row: dict[str, t.Any]) -> str:
    if row["what"] == "flow":
        return f"{row['host']}: {row['problem']} flow of {row['object']} in {row['table']}: {row['packet']}\n"
    return f"{row['host']}: {row['problem']} {row['what']} {row['number']}\n"


if __name__ == "__main__":
    main()
