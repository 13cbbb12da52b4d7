#!/usr/bin/python
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: read the services of the fleet."""

from __future__ import annotations

DOCUMENTATION = r"""
module: qnet_service_info
short_description: Read the services of the fleet
version_added: 0.1.0
description:
  - Returns what the intent database says about services, all references by name. Changes nothing.
  - A name in O(names) is said as C(group/service).
extends_documentation_fragment:
  - qiniu.qnet.intent
  - qiniu.qnet.intent.reads
seealso:
  - module: qiniu.qnet.qnet_service
"""

EXAMPLES = r"""
- name: Read all services
  qiniu.qnet.qnet_service_info:
  register: result

- name: Read one of them over the network
  qiniu.qnet.qnet_service_info:
    names: [fop/image]
    database: [ssl:192.0.2.11:6641, ssl:192.0.2.12:6641, ssl:192.0.2.13:6641]
    private_key: /etc/qnet/pki/host.key
    certificate: /etc/qnet/pki/host.pem
    ca_certificate: /etc/qnet/pki/ca.pem
"""

RETURN = r"""
services:
  description: The services, sorted by name.
  returned: success
  type: list
  elements: dict
  contains:
    group:
      description: Security group.
      type: str
      returned: success
    name:
      description: Name of the service.
      type: str
      returned: success
    network:
      description: Network of its pods and Service IPs.
      type: str
      returned: success
    health_check:
      description: All options of its health check; empty without one.
      type: dict
      returned: success
    drain_seconds:
      description: How long a draining pod keeps its connections; null for as long as they last.
      type: int
      returned: success
    l7:
      description: How L7 balancers ask it.
      type: dict
      returned: success
  sample:
    - group: fop
      name: image
      network: prod
      health_check: {}
      drain_seconds: null
      l7: {}
generation:
  description: Number of changes of the intent so far.
  returned: success
  type: int
  sample: 42
"""

from ansible_collections.qiniu.qnet.plugins.module_utils import _module


def main() -> None:
    """Run the module."""
    _module.run_info_module("service")


if __name__ == "__main__":
    main()
