#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action qiniu.qnet.qnet_validate, which runs on the control node."""

DOCUMENTATION = r"""
---
module: qnet_validate
short_description: Check the inventory before any host is touched
version_added: 1.0.0
author: qnet authors (@qiniu)
description:
  - Checks the inventory variables whose names begin with C(qnet_) against their JSON Schema, against each other and
    against the fleet.
  - Reports all errors at once, each with its path, value, the rule that it breaks, and a hint.
  - Runs on the control node, opens no connection and needs no facts.
requirements:
  - jsonschema (on the control node)
options:
  schema:
    description: Path of C(inventory.schema.json) on the control node.
    type: path
    required: true
  switches:
    description: Names of the hosts that carry pods. When omitted or empty, names of hosts are not checked.
    type: list
    elements: str
  database:
    description: Names of the hosts of the intent database.
    type: list
    elements: str
    default: []
  underlay_payload:
    description: Bytes that the underlay carries inside its tunnels. When omitted, the MTU of networks is not checked.
    type: int
extends_documentation_fragment:
  - action_common_attributes
  - action_common_attributes.conn
  - action_common_attributes.flow
attributes:
  action:
    support: full
  async:
    support: none
  become:
    support: none
  bypass_host_loop:
    support: none
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation
      indicates no change.
    support: full
  check_mode:
    support: full
  connection:
    support: none
  delegation:
    support: none
  diff_mode:
    support: none
  platform:
    platforms: all
"""

EXAMPLES = r"""
- name: Validate the inventory
  qiniu.qnet.qnet_validate:
    schema: "{{ playbook_dir }}/../schemas/inventory.schema.json"
    switches: "{{ groups['switches'] }}"
"""

RETURN = r"""
errors:
  description: What is wrong.
  returned: always
  type: list
  elements: dict
  sample:
    - path: qnet_tenants[0].security_groups[1].services[2].network
      value: '"prd"'
      rule: is no network of qnet_networks
      hint: Did you mean prod?
"""
