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
    C(qnet_networks), C(qnet_tenants) and C(qnet_exports), L7 listeners and L7 routes, and applies the difference in
    one transaction.
  - Either all of it is applied or nothing, and all problems are reported at once, each with its place in the lists.
  - A list that is left out is left alone. What says something about pods (such as C(replicas) or C(placement)) does
    not belong here,
    see M(qiniu.qnet.qnet_pod).
extends_documentation_fragment:
  - qiniu.qnet.intent
  - qiniu.qnet.intent.changes
options:
  networks:
    description: The networks.
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
        description: Subnets that Service IPs take their addresses from.
        type: list
        elements: str
      mtu:
        description: MTU inside the pods, 576 to 65535. V(0) removes it; then the hosts compute it from their
          underlay.
        type: int
  tenants:
    description: The tenants.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the tenant, a DNS label.
        type: str
        required: true
      security_groups:
        description: Its security groups.
        type: list
        elements: dict
        suboptions:
          name:
            description: Name of the group, a DNS label, unique in the fleet.
            type: str
            required: true
          services:
            description: Its services.
            type: list
            elements: dict
            suboptions:
              name:
                description: Name of the service, a DNS label, unique in its group.
                type: str
                required: true
              network:
                description: Name of the network that its pods and Service IPs are in.
                type: str
                required: true
              drain_seconds:
                description:
                  - How long a pod that begins to drain keeps the connections that it has; then they are ended.
                  - V(-1) means as long as they last; so does a new service without it.
                type: int
              health_check:
                description:
                  - How its pods are checked, from the host that they are on.
                  - Only pods that pass are in rotation. A new one enters it when it has passed. While none passes,
                    all are kept.
                  - An empty dictionary means no check; so does a new service without it.
                type: dict
                suboptions:
                  type:
                    description:
                      - V(tcp) opens a connection to the port. V(http) also asks for the path and wants a status from
                        200 to 399. V(icmp) sends an echo request.
                      - Needed for a check.
                    type: str
                    choices: [tcp, http, icmp]
                  port:
                    description: Port to connect to, 1 to 65535. Needed for V(tcp) and V(http).
                    type: int
                  path:
                    description: Path to ask for with V(http), V(/) when left out.
                    type: str
                  interval_seconds:
                    description:
                      - Time from one check to the next, V(2) when left out.
                      - Between two states it is half of that.
                    type: float
                  timeout_seconds:
                    description:
                      - Time for an answer, not longer than the interval.
                      - V(1) when left out, or half the interval if that is less.
                    type: float
                  healthy_threshold:
                    description: Checks in a row that must go well before a pod enters the rotation, V(2) when left out.
                    type: int
                  unhealthy_threshold:
                    description: Checks in a row that must fail before a pod leaves the rotation, V(3) when left out.
                    type: int
              service_ips:
                description: Its Service IPs.
                type: list
                elements: dict
                suboptions:
                  name:
                    description: Name of the Service IP, a DNS label, unique in the service.
                    type: str
                    default: main
                  address:
                    description:
                      - The IPv4 or IPv6 address, from the service subnets of the network.
                      - Without it, a new Service IP gets the lowest free address, and an existing one keeps its
                        address.
                    type: str
                  affinity:
                    description:
                      - V(none) balances every connection by itself; with V(client) one client address keeps its pod
                        while the set of pods
                        stays the same.
                      - A new Service IP gets V(none).
                    type: str
                    choices: [none, client]
  exports:
    description: The exports.
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
  l7_listeners:
    description: The L7 listeners.
    type: list
    elements: dict
    suboptions:
      name:
        description:
          - Name of the listener, a DNS label, unique in the fleet.
        type: str
        required: true
      balancer:
        description:
          - The service whose pods run nginx, said as group/service.
          - Needed when the listener is created.
        type: str
      protocol:
        description:
          - What is spoken there.
          - Needed when the listener is created.
        type: str
        choices: [http, https, tcp, udp]
      port:
        description:
          - The port, 1 to 65535, unique in the balancer for TCP and for UDP.
          - Needed when the listener is created.
        type: int
      settings:
        description:
          - All other options of the listener. C(docs/design/l7.md) lists them with the nginx directives behind them.
          - They are replaced as a whole; an empty map clears them.
        type: dict
  l7_routes:
    description: The L7 routes.
    type: list
    elements: dict
    suboptions:
      listener:
        description:
          - Name of the listener.
        type: str
        required: true
      name:
        description:
          - Name of the route, a DNS label, unique in its listener.
        type: str
        required: true
      settings:
        description:
          - The options of the route, such as C(hosts), C(path) and C(backends).
          - C(docs/design/l7.md) lists them with the nginx directives behind them.
          - They are replaced as a whole; an empty map clears them.
        type: dict
  purge:
    description:
      - V(true) makes the lists that are given the whole truth. Objects of theirs that are in the database and not
        listed are removed in the same
        transaction, in the right order; with a service, its pods go as well, and the diff says so.
      - It holds for what is inside of an object too. An option that is left out takes its default, so that an export
        whose C(expires) was deleted from the inventory no longer expires. Allocated addresses stay as they are.
      - With V(false) what is left out, objects and options, is left alone.
    type: bool
    default: false
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

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.qiniu.qnet.plugins.module_utils import _model, _module, _plan, _tenant


def _list_of(options: dict[str, t.Any]) -> dict[str, t.Any]:
    return {"type": "list", "elements": "dict", "options": options}


def _without(kind: str, *fields: str) -> dict[str, t.Any]:
    return {name: option for name, option in _module.element_options(kind).items() if name not in fields}


def main() -> None:
    """Run the module."""
    service_ip = _without("service_ip", "group", "service")
    service = {
        "name": {"type": "str", "required": True},
        "network": {"type": "str", "required": True},
        **_without("service", "group", "name", "network"),
        "service_ips": _list_of(service_ip),
    }
    group = {**_without("security_group", "tenant", "number"), "services": _list_of(service)}
    tenant = {"name": {"type": "str", "required": True}, "security_groups": _list_of(group)}
    module = AnsibleModule(
        argument_spec={
            **_module.CHANGE_OPTIONS,
            "networks": _list_of(_module.element_options("network")),
            "tenants": _list_of(tenant),
            "exports": _list_of(_module.element_options("export")),
            "l7_listeners": _list_of(_module.element_options("l7_listener")),
            "l7_routes": _list_of(_module.element_options("l7_route")),
            "purge": {"type": "bool", "default": False},
        },
        required_one_of=[["networks", "tenants", "exports", "l7_listeners", "l7_routes"]],
        supports_check_mode=True,
    )
    params = module.params

    def planner(have: _model.State) -> _plan.Plan:
        return _tenant.plan_tenants(
            have,
            params["networks"],
            params["tenants"],
            params["exports"],
            params["purge"],
            params["l7_listeners"],
            params["l7_routes"],
        )

    dummy, result = _module.converge(module, planner)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
