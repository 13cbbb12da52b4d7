#!/usr/bin/python
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: read the security groups of the fleet."""

from __future__ import annotations

DOCUMENTATION = r"""
module: qnet_security_group_info
short_description: Read the security groups of the fleet
version_added: 0.1.0
description:
  - Returns what the intent database says about security groups, all references by name. Changes nothing.
extends_documentation_fragment:
  - qiniu.qnet.intent
  - qiniu.qnet.intent.reads
seealso:
  - module: qiniu.qnet.qnet_security_group
"""

EXAMPLES = r"""
- name: Read all security groups
  qiniu.qnet.qnet_security_group_info:
  register: result

- name: Read one of them over the network
  qiniu.qnet.qnet_security_group_info:
    names: [fop]
    database: [ssl:192.0.2.11:6641, ssl:192.0.2.12:6641, ssl:192.0.2.13:6641]
    private_key: /etc/qnet/pki/host.key
    certificate: /etc/qnet/pki/host.pem
    ca_certificate: /etc/qnet/pki/ca.pem
"""

RETURN = r"""
security_groups:
  description: The security groups, sorted by name.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the group.
      type: str
      returned: success
    tenant:
      description: Tenant that owns it.
      type: str
      returned: success
    number:
      description: Number that stands for it in flow tables.
      type: int
      returned: success
    egress:
      description: What its pods reach outside; a rule without ports opens all.
      type: list
      elements: dict
      returned: success
    broadcast:
      description: Whether what a pod sends to all comes to the others of the group.
      type: bool
      returned: success
  sample:
    - broadcast: false
      egress:
        - ports: [tcp/443]
          to: 203.0.113.0/24
      name: fop
      number: 1
      tenant: fop
generation:
  description: Number of changes of the intent so far.
  returned: success
  type: int
  sample: 42
"""

from ansible_collections.qiniu.qnet.plugins.module_utils import _module


def main() -> None:
    """Run the module."""
    _module.run_info_module("security_group")


if __name__ == "__main__":
    main()
