#!/usr/bin/python
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: read which networks may call services of which other networks."""

from __future__ import annotations

DOCUMENTATION = r"""
module: qnet_guest_info
short_description: Read which networks may call services of which other networks
version_added: 1.0.0
description:
  - Returns what the intent database says about guests, all references by name. Changes nothing.
extends_documentation_fragment:
  - qiniu.qnet.intent
  - qiniu.qnet.intent.reads
seealso:
  - module: qiniu.qnet.qnet_guest
"""

EXAMPLES = r"""
- name: Read all guests
  qiniu.qnet.qnet_guest_info:
  register: result

- name: Read one of them over the network
  qiniu.qnet.qnet_guest_info:
    names: ["blue>red"]
    database: [ssl:192.0.2.11:6641, ssl:192.0.2.12:6641, ssl:192.0.2.13:6641]
    private_key: /etc/qnet/pki/host.key
    certificate: /etc/qnet/pki/host.pem
    ca_certificate: /etc/qnet/pki/ca.pem
"""

RETURN = r"""
guests:
  description: The guests, sorted by name.
  returned: success
  type: list
  elements: dict
  contains:
    network:
      description: Name of the network that calls.
      type: str
      returned: success
    home:
      description: Name of the network of the services that are called.
      type: str
      returned: success
    vni:
      description: VNI of calls; answers have the number after it.
      type: int
      returned: success
    addresses:
      description: Addresses at which the called pods see the callers, IPv4 first.
      type: list
      elements: str
      returned: success
  sample:
    - addresses: [10.96.0.1]
      home: red
      network: blue
      vni: 16777214
generation:
  description: Number of changes of the intent so far.
  returned: success
  type: int
  sample: 42
"""

from ansible_collections.qiniu.qnet.plugins.module_utils import _module


def main() -> None:
    """Run the module."""
    _module.run_info_module("guest")


if __name__ == "__main__":
    main()
