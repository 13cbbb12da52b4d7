#!/usr/bin/python
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: say what networks, tenants and exports of the inventory would change, and change nothing."""

from __future__ import annotations

DOCUMENTATION = r"""
module: qnet_what_if
short_description: Say what networks, tenants and exports would change, and change nothing
version_added: 0.1.0
description:
  - Takes what M(qiniu.qnet.qnet_tenant) takes, and says who would gain and lose reach, which open connections would be
    ended, and how many flows would change on which host. Nothing is written.
  - The controllers predict it with the functions that would do it, from the pods and connections of the moment.
extends_documentation_fragment:
  - qiniu.qnet.intent
  - qiniu.qnet.tenants
attributes:
  check_mode:
    support: full
    description: Can run in check mode and return changed status prediction without modifying target.
  diff_mode:
    support: full
    description: Will return details on what has changed (or possibly needs changing in check mode), when in diff
      mode.
  idempotent:
    support: full
    description: When run twice in a row outside check mode, with the same arguments, the second invocation
      indicates no change.
options:
  controller_api:
    description:
      - Where a controller answers, as an URL. Any controller will do, it asks the others.
      - The default is the controller on the same host. Its API listens on the loopback only.
    type: str
    default: http://127.0.0.1:9680
seealso:
  - module: qiniu.qnet.qnet_tenant
"""

EXAMPLES = r"""
- name: Ask what closing all exports would mean
  qiniu.qnet.qnet_what_if:
    exports: []
    purge: true
  register: closing

- name: Stop when that would end a connection
  ansible.builtin.assert:
    that: closing.what_if.connections_ended == 0
"""

RETURN = r"""
plan:
  description: What would be changed, one entry per object.
  returned: success
  type: list
  elements: dict
  contains:
    action:
      description: V(create), V(change) or V(remove).
      type: str
      returned: success
    kind:
      description: Kind of the object.
      type: str
      returned: success
    name:
      description: Its name.
      type: str
      returned: success
  sample:
    - action: remove
      kind: export
      name: alice/resize -> entry
text:
  description: The same as RV(what_if), for people.
  returned: success
  type: str
  sample: "- entry reaches alice/resize:main (10.96.0.10 in prod): tcp/80"
what_if:
  description:
    - What the change would do, as the controllers predict it from the pods, packets and connections of the moment.
      C(gained) and C(lost) say which group reaches which pod or Service IP, with which ports.
    - C(requests) says the same of the requests of L7 listeners, and of which balancers nginx is reloaded.
  returned: success
  type: dict
  sample:
    connections_ended: 1
    ended:
      - tcp entry/web-1 10.10.0.4:40000 -> alice/resize-1 10.10.0.2:80 in prod
    gained: []
    hosts:
      - connections: 1
        flows_added: 0
        flows_removed: 6
        groups_changed: 0
        host: h1
        problem: null
    lost:
      - address: 10.96.0.10
        group: entry
        network: prod
        ports: tcp/80
        target: "alice/resize:main"
    requests:
      gained: []
      lost: []
      reloaded: []
    unknown: []
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.qiniu.qnet.plugins.module_utils import _model, _module, _ovsdb, _tenant, _what_if


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **_module.DATABASE_OPTIONS,
            "controller_api": _module.CHANGE_OPTIONS["controller_api"],
            **_tenant.options(_module.element_options),
        },
        required_one_of=[list(_tenant.LISTS)],
        supports_check_mode=True,
    )
    params = module.params
    try:
        plan = _ovsdb.converge(_module.connection_of(module), _tenant.planner(params), check_mode=True).plan
        found = _what_if.ask(params["controller_api"], plan)
    except _model.IntentRefused as refused:
        _module.fail(module, refused.problems)
    except _ovsdb.DatabaseError as error:
        _module.fail(module, [str(error)])
    except (OSError, ValueError) as error:
        api = params["controller_api"]
        _module.fail(
            module, [f"controller_api: the controller at {api} does not say: {error}; check qnet-controller there"]
        )
    text = _what_if.text(found)
    module.exit_json(changed=False, plan=plan.steps(), what_if=found, text=text, diff={"prepared": text})


if __name__ == "__main__":
    main()
