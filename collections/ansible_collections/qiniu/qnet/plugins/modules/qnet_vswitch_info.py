#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: the state of Open vSwitch on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: qnet_vswitch_info
short_description: Read the state of the Open vSwitch of a host
version_added: 0.1.0
description:
  - Returns how the Open vSwitch of a host is configured, in the terms of M(qiniu.qnet.qnet_vswitch), and what it
    reports.
author:
  - qnet contributors (@qnet)
requirements:
  - Open vSwitch 2.17 or newer (C(openvswitch-switch) on Debian)
  - The Python library C(ovs) (C(python3-openvswitch) on Debian)
attributes:
  check_mode:
    support: full
    description: Nothing is changed.
  diff_mode:
    support: none
    description: Nothing is changed.
  idempotent:
    support: full
    description: Nothing is changed.
options:
  bridges:
    description: Names of the bridges to return. All when omitted.
    type: list
    elements: str
  database:
    description: Where the C(Open_vSwitch) database listens.
    type: str
    default: unix:/run/openvswitch/db.sock
seealso:
  - module: qiniu.qnet.qnet_vswitch
"""

EXAMPLES = r"""
- name: Read the integration bridge
  qiniu.qnet.qnet_vswitch_info:
    bridges: [br-int]
  register: switch

- name: Check that a controller is connected
  ansible.builtin.assert:
    that: switch.status.bridges['br-int'].controllers.values() | selectattr('is_connected') | length > 0
"""

RETURN = r"""
vswitch:
  description: The configuration, by bridge and port name.
  returned: success
  type: dict
  sample:
    external_ids: {system-id: 5a9c0a5e}
    other_config: {}
    ssl: null
    bridges:
      br-int:
        controllers: {}
        datapath_type: netdev
        external_ids: {}
        fail_mode: secure
        other_config: {}
        ports:
          br-int: {external_ids: {}, mtu: null, options: {}, other_config: {}, type: internal}
        protocols: [OpenFlow15]
status:
  description:
    - What C(ovs-vswitchd) reports. C(datapath_id), C(ofport) and C(link_state) are null until it has made the bridge
      or port.
  returned: success
  type: dict
  sample:
    ovs_version: 3.1.0
    bridges:
      br-int:
        datapath_id: 2f7c1a9de0b45310
        controllers:
          "ssl:192.0.2.11:6653": {is_connected: true, role: master}
        ports:
          br-int: {error: null, link_state: up, ofport: 65534}
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.qiniu.qnet.plugins.module_utils import _vswitch
from ansible_collections.qiniu.qnet.plugins.module_utils._vswitch_db import DatabaseError

ARGUMENTS: dict[str, t.Any] = {
    "bridges": {"type": "list", "elements": "str"},
    "database": {"type": "str", "default": _vswitch.DEFAULT_DATABASE},
}


def run(options: dict[str, t.Any]) -> dict[str, t.Any]:
    """Read and return what the module returns."""
    database = _vswitch.connect(options["database"])
    found = {"vswitch": _vswitch.read(database), "status": _vswitch.status(database)}
    if options["bridges"] is not None:
        for part in found.values():
            part["bridges"] = {name: part["bridges"][name] for name in options["bridges"] if name in part["bridges"]}
    return found


def main() -> None:
    """Entry point of Ansible."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        found = run(module.params)
    except DatabaseError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
