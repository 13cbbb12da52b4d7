#!/usr/bin/python
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: manage exports, services opened to another security group."""

from __future__ import annotations

DOCUMENTATION = r"""
module: qnet_export
short_description: Manage exports, services opened to another security group
version_added: 0.1.0
description:
  - An export lets the pods of one security group reach one service of another group, and nothing else of it.
  - Exporting a service to its own group is refused, since a group reaches its own services anyway.
  - An option that is left out leaves things as they are; an empty one clears them.
  - One call is one transaction. Either all of it is applied or nothing, and all problems are reported at once.
extends_documentation_fragment:
  - qiniu.qnet.intent
  - qiniu.qnet.intent.changes
  - qiniu.qnet.intent.objects
options:
  service:
    description:
      - The service, said as group/service.
      - Exactly one of O(service) and O(exports) is needed.
    type: str
  to:
    description: Name of the security group that may reach it.
    type: str
  ports:
    description:
      - Protocols and ports that the export is limited to, each V(tcp/PORT), V(udp/PORT) or V(icmp).
      - An empty list opens all; so does a new export without it.
    type: list
    elements: str
  direct:
    description:
      - Whether the pods' own addresses may be reached as well as the Service IPs.
      - A new export does not allow it.
    type: bool
  expires:
    description:
      - When the export ends, in ISO 8601 with a time zone, such as V(2027-01-01T00:00:00Z). An expired export
        counts as removed.
      - An empty text means never; so does a new export without it.
    type: str
  exports:
    description: Many exports at once, in one transaction, instead of the options for a single one.
    type: list
    elements: dict
    suboptions:
      service:
        description: The service, said as group/service.
        type: str
        required: true
      to:
        description: Name of the security group that may reach it.
        type: str
        required: true
      ports:
        description:
          - Protocols and ports that the export is limited to, each V(tcp/PORT), V(udp/PORT) or V(icmp).
          - An empty list opens all; so does a new export without it.
        type: list
        elements: str
      direct:
        description:
          - Whether the pods' own addresses may be reached as well as the Service IPs.
          - A new export does not allow it.
        type: bool
      expires:
        description:
          - When the export ends, in ISO 8601 with a time zone, such as V(2027-01-01T00:00:00Z). An expired export
            counts as removed.
          - An empty text means never; so does a new export without it.
        type: str
seealso:
  - module: qiniu.qnet.qnet_export_info
  - module: qiniu.qnet.qnet_tenant
"""

EXAMPLES = r"""
- name: Let the entry reach a user's service over HTTP until the end of the year
  qiniu.qnet.qnet_export:
    service: alice/resize
    to: entry
    ports: [tcp/80]
    expires: "2027-01-01T00:00:00Z"

- name: Open all of its ports, for good
  qiniu.qnet.qnet_export:
    service: alice/resize
    to: entry
    ports: []
    expires: ""

- name: Have exactly these exports
  qiniu.qnet.qnet_export:
    exports:
      - service: alice/resize
        to: entry
      - service: bob/convert
        to: entry
        direct: true
    purge: true

- name: Close it again
  qiniu.qnet.qnet_export:
    service: alice/resize
    to: entry
    state: absent
"""

RETURN = r"""
exports:
  description: The exports that were asked for, as they are (or in check mode would be); empty with O(state=absent).
  returned: success
  type: list
  elements: dict
  contains:
    service:
      description: The service, said as group/service.
      type: str
      returned: success
    to:
      description: Security group that may reach it.
      type: str
      returned: success
    ports:
      description: What it is limited to; empty when all is open.
      type: list
      elements: str
      returned: success
    direct:
      description: Whether the pods' own addresses may be reached.
      type: bool
      returned: success
    expires:
      description: When it ends, null for never.
      type: str
      returned: success
  sample:
    - direct: false
      expires: "2027-01-01T00:00:00Z"
      ports: [tcp/80, udp/53]
      service: alice/resize
      to: entry
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
      kind: export
      name: "alice/resize -> entry"
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
    _module.run_object_module("export")


if __name__ == "__main__":
    main()
