#!/usr/bin/python
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: apply networks, tenants and exports of the inventory in one transaction."""

from __future__ import annotations

DOCUMENTATION = r"""
module: qnet_tenant
short_description: Apply networks, tenants and exports of the inventory in one transaction
version_added: 0.1.0
description:
  - Takes networks, tenants with their security groups, services and Service IPs, and exports, in the shape of the
    inventory variables
    C(qnet_networks), C(qnet_guests), C(qnet_tenants) and C(qnet_exports), L7 listeners and L7 routes, and applies the
    difference in one transaction.
  - Either all of it is applied or nothing, and all problems are reported at once, each with its place in the lists.
  - A list that is left out is left alone. What says something about pods (such as C(replicas) or C(placement)) does
    not belong here,
    see M(qiniu.qnet.qnet_pod).
extends_documentation_fragment:
  - qiniu.qnet.intent
  - qiniu.qnet.intent.changes
  - qiniu.qnet.tenants
seealso:
  - module: qiniu.qnet.qnet_network
  - module: qiniu.qnet.qnet_security_group
  - module: qiniu.qnet.qnet_service
  - module: qiniu.qnet.qnet_service_ip
  - module: qiniu.qnet.qnet_export
  - module: qiniu.qnet.qnet_pod
  - module: qiniu.qnet.qnet_l7_listener
  - module: qiniu.qnet.qnet_l7_route
"""

EXAMPLES = r"""
- name: Apply two users and the entry that uses their services
  qiniu.qnet.qnet_tenant:
    networks:
      - name: prod
        vni: 100
        pod_subnets: [10.10.0.0/16]
        service_subnets: [10.96.0.0/16]
    tenants:
      - name: alice
        security_groups:
          - name: alice
            services:
              - name: resize
                network: prod
                service_ips:
                  - address: 10.96.0.10
      - name: platform
        security_groups:
          - name: entry
            services:
              - name: web
                network: prod
    exports:
      - service: alice/resize
        to: entry
        ports: [tcp/80]
    purge: true

- name: Close all exports and leave everything else
  qiniu.qnet.qnet_tenant:
    exports: []
    purge: true
"""

RETURN = r"""
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
      description: Kind of the object, such as V(service_ip).
      type: str
      returned: success
    name:
      description: Its name, such as V(alice/resize:main).
      type: str
      returned: success
  sample:
    - action: create
      kind: export
      name: alice/resize -> entry
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

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.qiniu.qnet.plugins.module_utils import _module, _tenant


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **_module.CHANGE_OPTIONS,
            **_tenant.options(_module.element_options),
        },
        required_one_of=[list(_tenant.LISTS)],
        supports_check_mode=True,
    )
    dummy, result = _module.converge(module, _tenant.planner(module.params))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
