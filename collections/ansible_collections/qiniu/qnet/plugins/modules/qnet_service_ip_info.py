#!/usr/bin/python
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: read the Service IPs of the fleet."""

from __future__ import annotations

DOCUMENTATION = r"""
module: qnet_service_ip_info
short_description: Read the Service IPs of the fleet
version_added: 0.1.0
description:
  - Returns what the intent database says about Service IPs, all references by name. Changes nothing.
  - A name in O(names) is said as C(group/service:name).
extends_documentation_fragment:
  - qiniu.qnet.intent
  - qiniu.qnet.intent.reads
seealso:
  - module: qiniu.qnet.qnet_service_ip
"""

EXAMPLES = r"""
- name: Read all Service IPs
  qiniu.qnet.qnet_service_ip_info:
  register: result

- name: Read one of them over the network
  qiniu.qnet.qnet_service_ip_info:
    names: ["fop/image:main"]
    database: [ssl:192.0.2.11:6641, ssl:192.0.2.12:6641, ssl:192.0.2.13:6641]
    private_key: /etc/qnet/pki/host.key
    certificate: /etc/qnet/pki/host.pem
    ca_certificate: /etc/qnet/pki/ca.pem
"""

RETURN = r"""
service_ips:
  description: The Service IPs, sorted by name.
  returned: success
  type: list
  elements: dict
  contains:
    group:
      description: Security group of the service.
      type: str
      returned: success
    service:
      description: Name of the service.
      type: str
      returned: success
    name:
      description: Name of the Service IP.
      type: str
      returned: success
    network:
      description: Network of the service.
      type: str
      returned: success
    address:
      description: The address.
      type: str
      returned: success
    affinity:
      description: V(none) or V(client).
      type: str
      returned: success
    affinity_seconds:
      description: How long a client keeps its pod after its last new connection; V(null) for as long as the set of pods
        stays the same.
      type: int
      returned: success
    algorithm:
      description: How connections are spread.
      type: str
      returned: success
  sample:
    - address: 10.96.0.10
      affinity: none
      affinity_seconds: null
      algorithm: hash
      group: fop
      name: main
      network: prod
      service: image
generation:
  description: Number of changes of the intent so far.
  returned: success
  type: int
  sample: 42
"""

from ansible_collections.qiniu.qnet.plugins.module_utils import _module


def main() -> None:
    """Run the module."""
    _module.run_info_module("service_ip")


if __name__ == "__main__":
    main()
