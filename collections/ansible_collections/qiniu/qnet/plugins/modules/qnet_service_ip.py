#!/usr/bin/python
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: manage Service IPs, addresses that stand for a service."""

from __future__ import annotations

DOCUMENTATION = r"""
module: qnet_service_ip
short_description: Manage Service IPs, addresses that stand for a service
version_added: 0.1.0
description:
  - Every port that a pod of the service listens on is reachable at the Service IP at the same port.
  - The address is unique in its network, which is that of the service unless said otherwise, and lies in the service
    subnets of that network.
  - An option that is left out leaves things as they are; an empty one clears them.
  - One call is one transaction. Either all of it is applied or nothing, and all problems are reported at once.
extends_documentation_fragment:
  - qiniu.qnet.intent
  - qiniu.qnet.intent.changes
  - qiniu.qnet.intent.objects
options:
  group:
    description:
      - Name of the security group of the service.
      - Exactly one of O(group) and O(service_ips) is needed.
    type: str
  service:
    description: Name of the service, without its group.
    type: str
  name:
    description: Name of the Service IP, a DNS label, unique in the service.
    type: str
    default: main
  network:
    description:
      - Name of the network that it lies in, if not that of the service; that network needs to be a guest of the
        network of the service, see M(qiniu.qnet.qnet_guest). Then only groups that the service is exported to use it.
      - Without it, a new Service IP is in the network of the service, and an existing one stays in its network.
    type: str
  address:
    description:
      - The IPv4 or IPv6 address. It must not be the network or the broadcast address of its subnet.
      - Without it, a new Service IP gets the lowest free address (IPv4 if the network has IPv4 service subnets),
        and an existing one keeps its address.
    type: str
  affinity:
    description:
      - V(none) balances every connection by itself; with V(client) one client address keeps its pod while the set
        of pods stays the same.
      - A new Service IP gets V(none).
    type: str
    choices: [none, client]
  affinity_seconds:
    description:
      - With O(affinity=client), a client keeps its pod for so many seconds after its last new connection, whatever
        other pods come and go meanwhile; after that it may get another one. 1 to 65535.
      - V(0) removes it. Without it, a client keeps its pod while the set of pods stays the same.
    type: int
  service_ips:
    description: Many Service IPs at once, in one transaction, instead of the options for a single one.
    type: list
    elements: dict
    suboptions:
      group:
        description: Name of the security group of the service.
        type: str
        required: true
      service:
        description: Name of the service, without its group.
        type: str
        required: true
      name:
        description: Name of the Service IP, a DNS label, unique in the service.
        type: str
        default: main
      network:
        description:
          - Name of the network that it lies in, if not that of the service; that network needs to be a guest of the
            network of the service, see M(qiniu.qnet.qnet_guest). Then only groups that the service is exported to use
            it.
          - Without it, a new Service IP is in the network of the service, and an existing one stays in its network.
        type: str
      address:
        description:
          - The IPv4 or IPv6 address. It must not be the network or the broadcast address of its subnet.
          - Without it, a new Service IP gets the lowest free address (IPv4 if the network has IPv4 service
            subnets), and an existing one keeps its address.
        type: str
      affinity:
        description:
          - V(none) balances every connection by itself; with V(client) one client address keeps its pod while the
            set of pods stays the same.
          - A new Service IP gets V(none).
        type: str
        choices: [none, client]
      affinity_seconds:
        description:
          - With O(affinity=client), a client keeps its pod for so many seconds after its last new connection, whatever
            other pods come and go meanwhile; after that it may get another one. 1 to 65535.
          - V(0) removes it. Without it, a client keeps its pod while the set of pods stays the same.
        type: int
seealso:
  - module: qiniu.qnet.qnet_service_ip_info
  - module: qiniu.qnet.qnet_tenant
"""

EXAMPLES = r"""
- name: Give a service an address
  qiniu.qnet.qnet_service_ip:
    group: fop
    service: image
  register: result

- name: Show it
  ansible.builtin.debug:
    msg: "{{ result.service_ips[0].address }}"

- name: Give a service a certain address, and keep clients on their pods
  qiniu.qnet.qnet_service_ip:
    group: fop
    service: agent
    address: 10.96.0.10
    affinity: client
    affinity_seconds: 10800

- name: Remove it
  qiniu.qnet.qnet_service_ip:
    group: fop
    service: agent
    state: absent
"""

RETURN = r"""
service_ips:
  description: The Service IPs that were asked for, as they are (or in check mode would be); empty with
    O(state=absent).
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
      kind: service_ip
      name: fop/image:main
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
    _module.run_object_module("service_ip")


if __name__ == "__main__":
    main()
