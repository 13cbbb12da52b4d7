#!/usr/bin/python
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: follow the first packet of a connection."""

from __future__ import annotations

DOCUMENTATION = r"""
module: qnet_trace
short_description: Follow the first packet of a connection from a pod
version_added: 0.1.0
description:
  - Asks a controller what would become of a new connection, at both ends and to every backend of a Service IP, with the
    table, the object and the verdict of every step. Nothing is sent.
  - With O(expect) the module fails when it would become of it something else, so that a play can hold on to what must
    and what must not be reachable.
  - Runs on a controller host. Any controller can answer.
options:
  source:
    description: The sending pod, said as group/pod.
    type: str
    required: true
  target:
    description: An address, a pod C(group/pod), a service C(group/service) or a Service IP C(group/service:name).
    type: str
    required: true
  protocol:
    description: V(icmp), V(tcp/PORT), V(udp/PORT) or V(sctp/PORT).
    type: str
    default: icmp
  expect:
    description: What must become of the connection.
    type: str
    choices: [delivered, refused]
  api:
    description: Where the controller serves its API.
    type: str
    default: http://127.0.0.1:9680
attributes:
  check_mode:
    description: Can run in check mode and return what it would without.
    support: full
  diff_mode:
    description: Returns what has changed, or would.
    support: none
  idempotent:
    description: Running it again changes nothing.
    support: full
author:
  - qnet contributors (@qnet)
seealso:
  - module: qiniu.qnet.qnet_probe
  - module: qiniu.qnet.qnet_verify
"""

EXAMPLES = r"""
- name: Hold on to what the entry may reach
  qiniu.qnet.qnet_trace:
    source: entry/entry-1
    target: fop/agents
    protocol: tcp/8080
    expect: delivered
  delegate_to: c1

- name: Ask why another group does not get through
  qiniu.qnet.qnet_trace:
    source: alice/resize-1
    target: fop/agents
    protocol: tcp/8080
  register: traced
  delegate_to: c1

- name: Show the step at which it ends
  ansible.builtin.debug:
    msg: "{{ traced.trace.steps | rejectattr('passes') | map(attribute='text') }}"
"""

RETURN = r"""
delivered:
  description: Whether the packet arrives, whichever backend is chosen.
  returned: success, or when it is not as expected
  type: bool
trace:
  description: >-
    C(steps) that all packets take, then C(ways), one for each pod that may be chosen, with its C(target) and C(steps).
    A step has C(host), C(table), C(because) (the object), C(text) and C(passes).
  returned: success, or when it is not as expected
  type: dict
"""

import typing as t
import urllib.parse

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.qiniu.qnet.plugins.module_utils import _receipt


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "source": {"type": "str", "required": True},
            "target": {"type": "str", "required": True},
            "protocol": {"type": "str", "default": "icmp"},
            "expect": {"type": "str", "choices": ["delivered", "refused"]},
            "api": {"type": "str", "default": _receipt.DEFAULT_API},
        },
        supports_check_mode=True,
    )
    params = module.params
    protocol, dummy, port = params["protocol"].partition("/")
    question = {"from": params["source"], "to": params["target"], "protocol": protocol, "port": port}
    try:
        trace = _receipt.ask(params["api"], f"/v1/trace?{urllib.parse.urlencode(question)}")
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"the controller at {params['api']} gives no trace: {_receipt.reason(error)}")
    result = {"changed": False, "delivered": trace["passes"], "trace": trace}
    found = "delivered" if trace["passes"] else "refused"
    if params["expect"] not in (None, found):
        said = f"{params['source']} -> {params['target']} {params['protocol']}"
        module.fail_json(msg=f"{said}: {found}, expected {params['expect']}; {_why(trace)}", **result)
    module.exit_json(**result)


def _why(trace: dict[str, t.Any]) -> str:
    """The step that decides, in words."""
    steps = [*trace["steps"], *(step for way in trace["ways"] for step in way["steps"])]
    last = next((step for step in steps if not step["passes"]), steps[-1])
    return f"{last['host']}, table {last['table']}: {last['text']} ({last['because']})"


if __name__ == "__main__":
    main()
