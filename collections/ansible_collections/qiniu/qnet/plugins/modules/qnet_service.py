#!/usr/bin/python
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: manage services, sets of identical pods."""

from __future__ import annotations

DOCUMENTATION = r"""
module: qnet_service
short_description: Manage services, sets of identical pods
version_added: 0.1.0
description:
  - A service belongs to one security group and one network. Its pods are declared with M(qiniu.qnet.qnet_pod), its
    Service IPs with M(qiniu.qnet.qnet_service_ip).
  - Moving it to another network is refused while it has pods or Service IPs, whose addresses belong to the old one.
  - An option that is left out leaves things as they are; an empty one clears them.
  - One call is one transaction. Either all of it is applied or nothing, and all problems are reported at once.
extends_documentation_fragment:
  - qiniu.qnet.intent
  - qiniu.qnet.intent.changes
  - qiniu.qnet.intent.objects
options:
  group:
    description:
      - Name of the security group.
      - Exactly one of O(group) and O(services) is needed.
    type: str
  name:
    description: Name of the service, a DNS label, unique in its group.
    type: str
  network:
    description:
      - Name of the network that its pods and Service IPs are in.
      - Needed when the service is created.
    type: str
  drain_seconds:
    description:
      - How long a pod that begins to drain keeps the connections that it has; then they are ended.
      - V(-1) means as long as they last; so does a new service without it.
    type: int
  l7:
    description:
      - How L7 balancers ask the service over HTTP, such as C(timeouts), C(retries) and C(backend_protocol).
      - C(docs/design/l7.md) lists the options. A route that says one of them itself replaces it as a whole.
      - They are replaced as a whole; an empty map clears them, and a new service without it has none.
    type: dict
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
  services:
    description: Many services at once, in one transaction, instead of the options for a single one.
    type: list
    elements: dict
    suboptions:
      group:
        description: Name of the security group.
        type: str
        required: true
      name:
        description: Name of the service, a DNS label, unique in its group.
        type: str
        required: true
      network:
        description:
          - Name of the network that its pods and Service IPs are in.
          - Needed when the service is created.
        type: str
      drain_seconds:
        description:
          - How long a pod that begins to drain keeps the connections that it has; then they are ended.
          - V(-1) means as long as they last; so does a new service without it.
        type: int
      l7:
        description:
          - How L7 balancers ask the service over HTTP, such as C(timeouts), C(retries) and C(backend_protocol).
          - C(docs/design/l7.md) lists the options. A route that says one of them itself replaces it as a whole.
          - They are replaced as a whole; an empty map clears them, and a new service without it has none.
        type: dict
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
seealso:
  - module: qiniu.qnet.qnet_service_info
  - module: qiniu.qnet.qnet_tenant
"""

EXAMPLES = r"""
- name: Create a service
  qiniu.qnet.qnet_service:
    group: fop
    name: image
    network: prod

- name: Keep pods that do not answer out of the rotation
  qiniu.qnet.qnet_service:
    group: fop
    name: image
    health_check:
      type: http
      port: 8080
      path: /healthz

- name: Create several at once
  qiniu.qnet.qnet_service:
    services:
      - group: fop
        name: image
        network: prod
      - group: fop
        name: video
        network: prod

- name: Remove a service that has no pods, Service IPs or exports any more
  qiniu.qnet.qnet_service:
    group: fop
    name: video
    state: absent
"""

RETURN = r"""
services:
  description: The services that were asked for, as they are (or in check mode would be); empty with O(state=absent).
  returned: success
  type: list
  elements: dict
  contains:
    group:
      description: Security group.
      type: str
      returned: success
    name:
      description: Name of the service.
      type: str
      returned: success
    network:
      description: Network of its pods and Service IPs.
      type: str
      returned: success
    health_check:
      description: All options of its health check; empty without one.
      type: dict
      returned: success
    drain_seconds:
      description: How long a draining pod keeps its connections; null for as long as they last.
      type: int
      returned: success
    l7:
      description: How L7 balancers ask it.
      type: dict
      returned: success
  sample:
    - group: fop
      name: image
      network: prod
      health_check:
        type: http
        port: 8080
        path: /healthz
        interval_seconds: 2
        timeout_seconds: 1
        healthy_threshold: 2
        unhealthy_threshold: 3
      drain_seconds: 300
      l7:
        timeouts:
          read_seconds: 120
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
      kind: service
      name: fop/image
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
    _module.run_object_module("service")


if __name__ == "__main__":
    main()
