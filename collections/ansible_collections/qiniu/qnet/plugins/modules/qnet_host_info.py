#!/usr/bin/python
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: read the hosts that carry pods of the fleet."""

from __future__ import annotations

DOCUMENTATION = r"""
module: qnet_host_info
short_description: Read the hosts that carry pods of the fleet
version_added: 0.1.0
description:
  - Returns what the intent database says about hosts that carry pods, all references by name. Changes nothing.
extends_documentation_fragment:
  - qiniu.qnet.intent
  - qiniu.qnet.intent.reads
seealso:
  - module: qiniu.qnet.qnet_host
"""

EXAMPLES = r"""
- name: Read all hosts that carry pods
  qiniu.qnet.qnet_host_info:
  register: result

- name: Read one of them over the network
  qiniu.qnet.qnet_host_info:
    names: [h1]
    database: [ssl:192.0.2.11:6641, ssl:192.0.2.12:6641, ssl:192.0.2.13:6641]
    private_key: /etc/qnet/pki/host.key
    certificate: /etc/qnet/pki/host.pem
    ca_certificate: /etc/qnet/pki/ca.pem
"""

RETURN = r"""
hosts:
  description: The hosts, sorted by name.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the host.
      type: str
      returned: success
    vteps:
      description: Addresses that its tunnels end at.
      type: list
      elements: str
      returned: success
    datapath_id:
      description: OpenFlow datapath id.
      type: str
      returned: success
    datapath_kind:
      description: V(system) or V(netdev).
      type: str
      returned: success
    controller_set:
      description: Set of controllers that serves it.
      type: str
      returned: success
    draining:
      description: Whether it is being emptied.
      type: bool
      returned: success
  sample:
    - controller_set: default
      datapath_id: 33112ee14ee469c3
      datapath_kind: system
      draining: false
      name: h1
      vteps: [192.0.2.21]
generation:
  description: Number of changes of the intent so far.
  returned: success
  type: int
  sample: 42
"""

from ansible_collections.qiniu.qnet.plugins.module_utils import _module


def main() -> None:
    """Run the module."""
    _module.run_info_module("host")


if __name__ == "__main__":
    main()
