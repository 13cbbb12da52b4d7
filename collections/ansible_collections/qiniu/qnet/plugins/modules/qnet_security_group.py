#!/usr/bin/python
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: manage the security groups of tenants."""

from __future__ import annotations

DOCUMENTATION = r"""
module: qnet_security_group
short_description: Manage the security groups of tenants
version_added: 0.1.0
description:
  - Inside a security group everything is open; between groups nothing is, until a service is exported.
  - An option that is left out leaves things as they are; an empty one clears them.
  - One call is one transaction. Either all of it is applied or nothing, and all problems are reported at once.
extends_documentation_fragment:
  - qiniu.qnet.intent
  - qiniu.qnet.intent.changes
  - qiniu.qnet.intent.objects
options:
  name:
    description:
      - Name of the group, a DNS label, unique in the fleet.
      - Exactly one of O(name) and O(security_groups) is needed.
    type: str
  tenant:
    description:
      - Name of the tenant that owns the group, a DNS label. Being of the same tenant gives no reach.
      - Needed when the group is created.
    type: str
  number:
    description:
      - Number that stands for the group in flow tables, 1 to 65535, unique in the fleet.
      - Without it, a new group gets the lowest free number. Leave it out unless you restore a fleet.
    type: int
  egress:
    description:
      - What pods of the group reach outside of the overlay. Together the rules open what any of them opens, and
        nothing else.
      - No rule opens addresses of pods and Service IPs, which are reached by exports alone, nor those of hosts
        and tunnels, of a link, of groups, or of the metadata of clouds.
      - An empty list closes everything; so does a new group without it.
    type: list
    elements: dict
    suboptions:
      to:
        description: The addresses, as a subnet such as V(203.0.113.0/24) or as one address, IPv4 or IPv6.
        type: str
        required: true
      ports:
        description:
          - Protocols and ports that the rule is limited to, each V(tcp/PORT), V(udp/PORT) or V(icmp).
          - An empty list opens all; so does a rule without it.
        type: list
        elements: str
  broadcast:
    description:
      - Whether what a pod of the group sends to all, by broadcast or multicast, comes to all other pods
        of the group in the same network, on whatever host. It never comes to anybody else.
      - A new group gets V(false), and such packets are dropped.
    type: bool
  security_groups:
    description: Many security groups at once, in one transaction, instead of the options for a single one.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the group, a DNS label, unique in the fleet.
        type: str
        required: true
      tenant:
        description:
          - Name of the tenant that owns the group, a DNS label. Being of the same tenant gives no reach.
          - Needed when the group is created.
        type: str
      number:
        description:
          - Number that stands for the group in flow tables, 1 to 65535, unique in the fleet.
          - Without it, a new group gets the lowest free number. Leave it out unless you restore a fleet.
        type: int
      egress:
        description:
          - What pods of the group reach outside of the overlay. Together the rules open what any of them opens, and
            nothing else.
          - No rule opens addresses of pods and Service IPs, which are reached by exports alone, nor those of hosts
            and tunnels, of a link, of groups, or of the metadata of clouds.
          - An empty list closes everything; so does a new group without it.
        type: list
        elements: dict
        suboptions:
          to:
            description: The addresses, as a subnet such as V(203.0.113.0/24) or as one address, IPv4 or IPv6.
            type: str
            required: true
          ports:
            description:
              - Protocols and ports that the rule is limited to, each V(tcp/PORT), V(udp/PORT) or V(icmp).
              - An empty list opens all; so does a rule without it.
            type: list
            elements: str
      broadcast:
        description:
          - Whether what a pod of the group sends to all, by broadcast or multicast, comes to all other pods
            of the group in the same network, on whatever host. It never comes to anybody else.
          - A new group gets V(false), and such packets are dropped.
        type: bool
seealso:
  - module: qiniu.qnet.qnet_security_group_info
  - module: qiniu.qnet.qnet_tenant
"""

EXAMPLES = r"""
- name: Create a group
  qiniu.qnet.qnet_security_group:
    name: fop
    tenant: fop

- name: Create the groups of two users
  qiniu.qnet.qnet_security_group:
    security_groups:
      - name: alice
        tenant: alice
      - name: bob
        tenant: bob

- name: Let a group reach a web service and two resolvers outside
  qiniu.qnet.qnet_security_group:
    name: fop
    egress:
      - to: 203.0.113.0/24
        ports: [tcp/443]
      - to: 2001:db8::53
        ports: [udp/53, tcp/53]

- name: Let the pods of a group find each other by multicast
  qiniu.qnet.qnet_security_group:
    name: fop
    broadcast: true

- name: Remove a group that has no services any more
  qiniu.qnet.qnet_security_group:
    name: fop
    state: absent
"""

RETURN = r"""
security_groups:
  description: The security groups that were asked for, as they are (or in check mode would be); empty with
    O(state=absent).
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
      kind: security_group
      name: fop
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
    _module.run_object_module("security_group")


if __name__ == "__main__":
    main()
