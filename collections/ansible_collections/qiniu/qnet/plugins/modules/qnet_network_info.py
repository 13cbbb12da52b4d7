#!/usr/bin/python
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: read the overlay networks of the fleet."""

from __future__ import annotations

DOCUMENTATION = r"""
module: qnet_network_info
short_description: Read the overlay networks of the fleet
version_added: 0.1.0
description:
  - Returns what the intent database says about overlay networks, all references by name. Changes nothing.
extends_documentation_fragment:
  - qiniu.qnet.intent
  - qiniu.qnet.intent.reads
seealso:
  - module: qiniu.qnet.qnet_network
"""

EXAMPLES = r"""
- name: Read all overlay networks
  qiniu.qnet.qnet_network_info:
  register: result

- name: Read one of them over the network
  qiniu.qnet.qnet_network_info:
    names: [prod]
    database: [ssl:192.0.2.11:6641, ssl:192.0.2.12:6641, ssl:192.0.2.13:6641]
    private_key: /etc/qnet/pki/host.key
    certificate: /etc/qnet/pki/host.pem
    ca_certificate: /etc/qnet/pki/ca.pem
"""

RETURN = r"""
networks:
  description: The networks, sorted by name.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the network.
      type: str
      returned: success
    vni:
      description: VXLAN network identifier.
      type: int
      returned: success
    pod_subnets:
      description: Subnets of pods, IPv4 first.
      type: list
      elements: str
      returned: success
    service_subnets:
      description: Subnets of Service IPs, IPv4 first.
      type: list
      elements: str
      returned: success
    mtu:
      description: MTU inside the pods, null if the hosts compute it.
      type: int
      returned: success
  sample:
    - mtu: null
      name: prod
      pod_subnets: [10.10.0.0/16]
      service_subnets: [10.96.0.0/16]
      vni: 100
generation:
  description: Number of changes of the intent so far.
  returned: success
  type: int
  sample: 42
"""

from ansible_collections.qiniu.qnet.plugins.module_utils import _module


def main() -> None:
    """Run the module."""
    _module.run_info_module("network")


if __name__ == "__main__":
    main()
