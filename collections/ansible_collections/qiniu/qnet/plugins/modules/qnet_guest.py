#!/usr/bin/python
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: manage which networks may call services of which other networks."""

from __future__ import annotations

DOCUMENTATION = r"""
module: qnet_guest
short_description: Manage which networks may call services of which other networks
version_added: 1.0.0
description:
  - A guest lets pods of one network be served by pods of another one, its home, also when the two use the same
    addresses.
  - By itself it opens nothing. A service of the home network that is to be called gets a Service IP in the callers'
    network (O(qiniu.qnet.qnet_service_ip#module:network)) and an export to the callers' group.
  - Pods of the home network see such callers at the addresses of the guest.
  - An option that is left out leaves things as they are; an empty one clears them.
  - One call is one transaction. Either all of it is applied or nothing, and all problems are reported at once.
extends_documentation_fragment:
  - qiniu.qnet.intent
  - qiniu.qnet.intent.changes
  - qiniu.qnet.intent.objects
options:
  network:
    description:
      - Name of the network that calls.
      - Exactly one of O(network) and O(guests) is needed.
    type: str
  home:
    description: Name of the network of the services that are called.
    type: str
  vni:
    description:
      - VNI of calls, 1 to 16777214; answers have the number after it. Neither may be that of a network or of another
        guest.
      - Without it, a new guest gets the highest two that are free, and an existing one keeps its VNI.
    type: int
  addresses:
    description:
      - Addresses at which the called pods see the callers, one of each IP version at most, from the service subnets of
        O(home) and outside of the pod subnets of O(network).
      - Without it, a new guest gets the lowest free ones, and an existing one keeps its addresses.
    type: list
    elements: str
  guests:
    description: Many guests at once, in one transaction, instead of the options for a single one.
    type: list
    elements: dict
    suboptions:
      network:
        description: Name of the network that calls.
        type: str
        required: true
      home:
        description: Name of the network of the services that are called.
        type: str
        required: true
      vni:
        description:
          - VNI of calls, 1 to 16777214; answers have the number after it. Neither may be that of a network or of
            another guest.
          - Without it, a new guest gets the highest two that are free, and an existing one keeps its VNI.
        type: int
      addresses:
        description:
          - Addresses at which the called pods see the callers, one of each IP version at most, from the service subnets
            of O(guests[].home) and outside of the pod subnets of O(guests[].network).
          - Without it, a new guest gets the lowest free ones, and an existing one keeps its addresses.
        type: list
        elements: str
seealso:
  - module: qiniu.qnet.qnet_guest_info
  - module: qiniu.qnet.qnet_service_ip
  - module: qiniu.qnet.qnet_tenant
"""

EXAMPLES = r"""
- name: Let pods of network blue be served by pods of network red
  qiniu.qnet.qnet_guest:
    network: blue
    home: red

- name: Offer a service of red to a group in blue
  qiniu.qnet.qnet_tenant:
    tenants:
      - name: alice
        security_groups:
          - name: alice
            services:
              - name: resize
                network: red
                service_ips: [{name: for-blue, network: blue, address: 10.96.0.40}]
    exports: [{service: alice/resize, to: bob}]

- name: Take the Service IP back, open connections included
  qiniu.qnet.qnet_service_ip:
    group: alice
    service: resize
    name: for-blue
    state: absent

- name: End it
  qiniu.qnet.qnet_guest:
    network: blue
    home: red
    state: absent
"""

RETURN = r"""
guests:
  description: The guests that were asked for, as they are (or in check mode would be); empty with O(state=absent).
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
      kind: guest
      name: "blue>red"
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
    _module.run_object_module("guest")


if __name__ == "__main__":
    main()
