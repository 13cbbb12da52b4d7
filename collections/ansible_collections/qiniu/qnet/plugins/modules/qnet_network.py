#!/usr/bin/python
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: manage the overlay networks of the fleet."""

from __future__ import annotations

DOCUMENTATION = r"""
module: qnet_network
short_description: Manage the overlay networks of the fleet
version_added: 0.1.0
description:
  - A network has a VNI of its own, subnets that its pods take their addresses from, and subnets for Service IPs.
  - Two networks may have the same addresses, since the VNI is part of every key. Inside one network no two subnets
    may overlap.
  - Changing the subnets is refused while an address that is in use would fall outside of them.
  - An option that is left out leaves things as they are; an empty one clears them.
  - One call is one transaction. Either all of it is applied or nothing, and all problems are reported at once.
extends_documentation_fragment:
  - qiniu.qnet.intent
  - qiniu.qnet.intent.changes
  - qiniu.qnet.intent.objects
options:
  name:
    description:
      - Name of the network, a DNS label.
      - Exactly one of O(name) and O(networks) is needed.
    type: str
  vni:
    description:
      - VXLAN network identifier, 1 to 16777215, unique in the fleet.
      - Needed when the network is created.
    type: int
  pod_subnets:
    description:
      - Subnets that pods take their addresses from, in CIDR notation without host bits.
      - The first usable address of each is the pods' default gateway and is never given to a pod.
      - Needed when the network is created.
    type: list
    elements: str
  service_subnets:
    description: Subnets that Service IPs take their addresses from. An empty list removes them.
    type: list
    elements: str
  mtu:
    description: MTU inside the pods, 576 to 65535. V(0) removes it; then the hosts compute it from their underlay.
    type: int
  networks:
    description: Many networks at once, in one transaction, instead of the options for a single one.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the network, a DNS label.
        type: str
        required: true
      vni:
        description:
          - VXLAN network identifier, 1 to 16777215, unique in the fleet.
          - Needed when the network is created.
        type: int
      pod_subnets:
        description:
          - Subnets that pods take their addresses from, in CIDR notation without host bits.
          - The first usable address of each is the pods' default gateway and is never given to a pod.
          - Needed when the network is created.
        type: list
        elements: str
      service_subnets:
        description: Subnets that Service IPs take their addresses from. An empty list removes them.
        type: list
        elements: str
      mtu:
        description: MTU inside the pods, 576 to 65535. V(0) removes it; then the hosts compute it from their
          underlay.
        type: int
seealso:
  - module: qiniu.qnet.qnet_network_info
  - module: qiniu.qnet.qnet_tenant
"""

EXAMPLES = r"""
- name: Create a network
  qiniu.qnet.qnet_network:
    name: prod
    vni: 100
    pod_subnets: [10.10.0.0/16]
    service_subnets: [10.96.0.0/16]

- name: Give it a second subnet and leave the rest as it is
  qiniu.qnet.qnet_network:
    name: prod
    pod_subnets: [10.10.0.0/16, 10.11.0.0/16]

- name: Have exactly these networks
  qiniu.qnet.qnet_network:
    networks:
      - name: prod
        vni: 100
        pod_subnets: [10.10.0.0/16]
        service_subnets: [10.96.0.0/16]
      - name: test
        vni: 101
        pod_subnets: [10.10.0.0/16]
    purge: true

- name: Remove a network
  qiniu.qnet.qnet_network:
    name: test
    state: absent
"""

RETURN = r"""
networks:
  description: The networks that were asked for, as they are (or in check mode would be); empty with O(state=absent).
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
plan:
  description: What was changed (or in check mode would be), one entry per object. Empty when nothing was.
  returned: success
  type: list
  elements: dict
  contains:
    action:
      description: V(create), V(change) or V(remove).
      type: str
      returned: success
    kind:
      description: Kind of the object.
      type: str
      returned: success
    name:
      description: Its name.
      type: str
      returned: success
  sample:
    - action: create
      kind: network
      name: prod
generation:
  description: Number of changes of the intent so far. In check mode it is not counted up.
  returned: success
  type: int
  sample: 42
what_if:
  description:
    - What the change would do, as the controllers predict it from the pods, packets and connections of the moment.
      C(gained) and C(lost) say which group reaches which pod or Service IP, with which ports.
    - Null when no controller answers at O(controller_api).
  returned: in check mode with diff, when there is something to change
  type: dict
  sample:
    connections_ended: 1
    ended:
      - tcp entry/web-1 10.10.0.4:40000 -> alice/resize-1 10.10.0.2:80 in prod
    gained: []
    hosts:
      - connections: 1
        flows_added: 0
        flows_removed: 6
        groups_changed: 0
        host: h1
        problem: null
    lost:
      - address: 10.96.0.10
        group: entry
        network: prod
        ports: tcp/80
        target: "alice/resize:main"
    unknown: []
receipt:
  description:
    - What the change has done, as the switches have confirmed it. Null when nothing was changed.
    - C(connections_ended) counts every connection once. A host counts those that had an end there, so a
      connection between two hosts is counted on both. Null means that a host could not say which connections it had.
  returned: with O(wait=true), not in check mode
  type: dict
  sample:
    confirmed: true
    connections_ended: 2
    ended:
      - tcp entry/web-1 10.10.0.4:40000 -> alice/resize-1 10.10.0.2:80 in prod
      - tcp entry/web-1 10.10.0.4:40002 -> alice/resize-1 10.10.0.2:80 in prod
    flows_added: 0
    flows_removed: 6
    generation: 42
    groups_changed: 0
    hosts:
      - connections: 2
        flows_added: 0
        flows_removed: 6
        groups_changed: 0
        host: h1
        milliseconds: 3.1
        problem: null
    milliseconds: 3.1
    pending: []
    total_milliseconds: 12.5
"""

from ansible_collections.qiniu.qnet.plugins.module_utils import _module


def main() -> None:
    """Run the module."""
    _module.run_object_module("network")


if __name__ == "__main__":
    main()
