#!/usr/bin/python
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: read the pods of the fleet."""

from __future__ import annotations

DOCUMENTATION = r"""
module: qnet_pod_info
short_description: Read the pods of the fleet
version_added: 0.1.0
description:
  - Returns what the intent database says about pods, all references by name. Changes nothing.
  - A name in O(names) is said as C(group/pod).
  - It does not say where a pod is; that comes from the switches alone, and the controller's API tells it.
extends_documentation_fragment:
  - qiniu.qnet.intent
  - qiniu.qnet.intent.reads
seealso:
  - module: qiniu.qnet.qnet_pod
"""

EXAMPLES = r"""
- name: Read all pods
  qiniu.qnet.qnet_pod_info:
  register: result

- name: Read one of them over the network
  qiniu.qnet.qnet_pod_info:
    names: [fop/image-1]
    database: [ssl:192.0.2.11:6641, ssl:192.0.2.12:6641, ssl:192.0.2.13:6641]
    private_key: /etc/qnet/pki/host.key
    certificate: /etc/qnet/pki/host.pem
    ca_certificate: /etc/qnet/pki/ca.pem
"""

RETURN = r"""
pods:
  description: The pods, sorted by name.
  returned: success
  type: list
  elements: dict
  contains:
    group:
      description: Security group.
      type: str
      returned: success
    service:
      description: Name of the service.
      type: str
      returned: success
    name:
      description: Name of the pod.
      type: str
      returned: success
    network:
      description: Network it is in.
      type: str
      returned: success
    mac:
      description: MAC address.
      type: str
      returned: success
    addresses:
      description: Its addresses, IPv4 first.
      type: list
      elements: str
      returned: success
    port_name:
      description: Name of its port on Open vSwitch.
      type: str
      returned: success
    weight:
      description: Share of new connections relative to the other pods of the service.
      type: int
      returned: success
    state:
      description: V(active), or V(draining) when it takes no new connections.
      type: str
      returned: success
    drain_until:
      description: When the connections of a draining pod are ended, in seconds since 1970; null for never.
      type: int
      returned: success
    containers:
      description: Containers that share the pod.
      type: list
      elements: str
      returned: success
  sample:
    - addresses: [10.10.0.2]
      containers: []
      drain_until: null
      group: fop
      mac: "02:1a:2b:3c:4d:5e"
      name: image-1
      network: prod
      port_name: qn0123456789ab
      service: image
      state: active
      weight: 100
generation:
  description: Number of changes of the intent so far.
  returned: success
  type: int
  sample: 42
"""

from ansible_collections.qiniu.qnet.plugins.module_utils import _module


def main() -> None:
    """Run the module."""
    _module.run_info_module("pod")


if __name__ == "__main__":
    main()
