#!/usr/bin/python
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: read the exports of the fleet."""

from __future__ import annotations

DOCUMENTATION = r"""
module: qnet_export_info
short_description: Read the exports of the fleet
version_added: 0.1.0
description:
  - Returns what the intent database says about exports, all references by name. Changes nothing.
  - A name in O(names) is said as C(group/service -> group).
extends_documentation_fragment:
  - qiniu.qnet.intent
  - qiniu.qnet.intent.reads
seealso:
  - module: qiniu.qnet.qnet_export
"""

EXAMPLES = r"""
- name: Read all exports
  qiniu.qnet.qnet_export_info:
  register: result

- name: Read one of them over the network
  qiniu.qnet.qnet_export_info:
    names: ["alice/resize -> entry"]
    database: [ssl:192.0.2.11:6641, ssl:192.0.2.12:6641, ssl:192.0.2.13:6641]
    private_key: /etc/qnet/pki/host.key
    certificate: /etc/qnet/pki/host.pem
    ca_certificate: /etc/qnet/pki/ca.pem
"""

RETURN = r"""
exports:
  description: The exports, sorted by name.
  returned: success
  type: list
  elements: dict
  contains:
    service:
      description: The service, said as group/service.
      type: str
      returned: success
    to:
      description: Security group that may reach it.
      type: str
      returned: success
    ports:
      description: What it is limited to; empty when all is open.
      type: list
      elements: str
      returned: success
    direct:
      description: Whether the pods' own addresses may be reached.
      type: bool
      returned: success
    expires:
      description: When it ends, null for never.
      type: str
      returned: success
  sample:
    - direct: false
      expires: "2027-01-01T00:00:00Z"
      ports: [tcp/80, udp/53]
      service: alice/resize
      to: entry
generation:
  description: Number of changes of the intent so far.
  returned: success
  type: int
  sample: 42
"""

from ansible_collections.qiniu.qnet.plugins.module_utils import _module


def main() -> None:
    """Run the module."""
    _module.run_info_module("export")


if __name__ == "__main__":
    main()
