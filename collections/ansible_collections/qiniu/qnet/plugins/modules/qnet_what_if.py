#!/usr/bin/python
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: say what networks, tenants and exports of the inventory would change, and change nothing."""

from __future__ import annotations

DOCUMENTATION = r"""
module: qnet_what_if
short_description: Say what networks, tenants and exports would change, and change nothing
version_added: 0.1.0
description:
  - Takes what M(qiniu.qnet.qnet_tenant) takes, and says who would gain and lose reach, which open connections would be
    ended, and how many flows would change on which host. Nothing is written.
  - The controllers predict it with the functions that would do it, from the pods and connections of the moment.
extends_documentation_fragment:
  - qiniu.qnet.intent
attributes:
  check_mode:
    support: full
    description: Can run in check mode and return changed status prediction without modifying target.
  diff_mode:
    support: full
    description: Will return details on what has changed (or possibly needs changing in check mode), when in diff
      mode.
  idempotent:
    support: full
    description: When run twice in a row outside check mode, with the same arguments, the second invocation
      indicates no change.
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
  controller_api:
    description:
      - Where a controller answers, as an URL. Any controller will do, it asks the others.
      - The default is the controller on the same host. Its API listens on the loopback only.
    type: str
    default: http://127.0.0.1:9680
seealso:
  - module: qiniu.qnet.qnet_tenant
"""

EXAMPLES = r"""
- name: Ask what closing all exports would mean
  qiniu.qnet.qnet_what_if:
    exports: []
    purge: true
  register: closing

- name: Stop when that would end a connection
  ansible.builtin.assert:
    that: closing.what_if.connections_ended == 0
"""

RETURN = r"""
plan:
  description: What would be changed, one entry per object.
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
    - action: remove
      kind: export
      name: alice/resize -> entry
text:
  description: The same as RV(what_if), for people.
  returned: success
  type: str
  sample: "- entry reaches alice/resize:main (10.96.0.10 in prod): tcp/80"
what_if:
  description:
    - What the change would do, as the controllers predict it from the pods, packets and connections of the moment.
      C(gained) and C(lost) say which group reaches which pod or Service IP, with which ports.
  returned: success
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
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.qiniu.qnet.plugins.module_utils import _model, _module, _ovsdb, _plan, _tenant, _what_if


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
            **_module.DATABASE_OPTIONS,
            "controller_api": _module.CHANGE_OPTIONS["controller_api"],
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

    try:
        plan = _ovsdb.converge(_module.connection_of(module), planner, check_mode=True).plan
        found = _what_if.ask(params["controller_api"], plan)
    except _model.IntentRefused as refused:
        _module.fail(module, refused.problems)
    except _ovsdb.DatabaseError as error:
        _module.fail(module, [str(error)])
    except (OSError, ValueError) as error:
        api = params["controller_api"]
        _module.fail(
            module, [f"controller_api: the controller at {api} does not say: {error}; check qnet-controller there"]
        )
    text = _what_if.text(found)
    module.exit_json(changed=False, plan=plan.steps(), what_if=found, text=text, diff={"prepared": text})


if __name__ == "__main__":
    main()
