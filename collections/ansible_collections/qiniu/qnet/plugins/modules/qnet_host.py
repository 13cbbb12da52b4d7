#!/usr/bin/python
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: manage the hosts that carry pods."""

from __future__ import annotations

DOCUMENTATION = r"""
module: qnet_host
short_description: Manage the hosts that carry pods
version_added: 0.1.0
description:
  - Tells the controllers which hosts there are, where their tunnels end and which datapath identifies them.
  - It does not say which pods a host has; that comes from the hosts' switches alone.
  - An option that is left out leaves things as they are; an empty one clears them.
  - One call is one transaction. Either all of it is applied or nothing, and all problems are reported at once.
extends_documentation_fragment:
  - qiniu.qnet.intent
  - qiniu.qnet.intent.changes
  - qiniu.qnet.intent.objects
options:
  name:
    description:
      - Name of the host, a DNS label, the same as in its certificate.
      - Exactly one of O(name) and O(hosts) is needed.
    type: str
  vteps:
    description:
      - Addresses of the underlay that the host's VXLAN tunnels end at. No two hosts may share one.
      - Needed when the host is created.
    type: list
    elements: str
  datapath_id:
    description:
      - OpenFlow datapath id of the host's integration bridge, 16 hexadecimal digits.
      - Without it, a new host gets the first 16 hexadecimal digits of the SHA-256 of its name.
    type: str
  datapath_kind:
    description:
      - Whether the host forwards in the kernel (V(system)) or in user space (V(netdev)).
      - A new host gets V(system).
    type: str
    choices: [system, netdev]
  controller_set:
    description:
      - Name of the set of controllers that serves the host.
      - A new host gets V(default).
    type: str
  draining:
    description:
      - Whether the host is being emptied, so that its pods take no new connections.
      - A new host is not.
    type: bool
  hosts:
    description: Many hosts at once, in one transaction, instead of the options for a single one.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the host, a DNS label, the same as in its certificate.
        type: str
        required: true
      vteps:
        description:
          - Addresses of the underlay that the host's VXLAN tunnels end at. No two hosts may share one.
          - Needed when the host is created.
        type: list
        elements: str
      datapath_id:
        description:
          - OpenFlow datapath id of the host's integration bridge, 16 hexadecimal digits.
          - Without it, a new host gets the first 16 hexadecimal digits of the SHA-256 of its name.
        type: str
      datapath_kind:
        description:
          - Whether the host forwards in the kernel (V(system)) or in user space (V(netdev)).
          - A new host gets V(system).
        type: str
        choices: [system, netdev]
      controller_set:
        description:
          - Name of the set of controllers that serves the host.
          - A new host gets V(default).
        type: str
      draining:
        description:
          - Whether the host is being emptied, so that its pods take no new connections.
          - A new host is not.
        type: bool
seealso:
  - module: qiniu.qnet.qnet_host_info
  - module: qiniu.qnet.qnet_tenant
"""

EXAMPLES = r"""
- name: Make all switches known
  qiniu.qnet.qnet_host:
    hosts:
      - name: h1
        vteps: [192.0.2.21]
      - name: h2
        vteps: [192.0.2.22]
        datapath_kind: netdev
    purge: true

- name: Let a host take no new connections
  qiniu.qnet.qnet_host:
    name: h1
    draining: true

- name: Forget a host
  qiniu.qnet.qnet_host:
    name: h1
    state: absent
"""

RETURN = r"""
hosts:
  description: The hosts that were asked for, as they are (or in check mode would be); empty with O(state=absent).
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the host.
      type: str
      returned: success
    vteps:
      description: Addresses that its tunnels end at.
      type: list
      elements: str
      returned: success
    datapath_id:
      description: OpenFlow datapath id.
      type: str
      returned: success
    datapath_kind:
      description: V(system) or V(netdev).
      type: str
      returned: success
    controller_set:
      description: Set of controllers that serves it.
      type: str
      returned: success
    draining:
      description: Whether it is being emptied.
      type: bool
      returned: success
  sample:
    - controller_set: default
      datapath_id: 33112ee14ee469c3
      datapath_kind: system
      draining: false
      name: h1
      vteps: [192.0.2.21]
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
      kind: host
      name: h1
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
    _module.run_object_module("host")


if __name__ == "__main__":
    main()
