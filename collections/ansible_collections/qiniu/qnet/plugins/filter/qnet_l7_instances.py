# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter qiniu.qnet.qnet_l7_instances."""

from __future__ import annotations

DOCUMENTATION = r"""
name: qnet_l7_instances
short_description: The configuration of nginx in each pod of L7 balancers
version_added: 0.1.0
author: qnet authors
description:
  - Renders listeners and routes for each pod. The same data gives the same text.
options:
  _input:
    description: Pods of balancers, as the filter P(qiniu.qnet.qnet_pods#filter) gives them.
    type: list
    elements: dict
    required: true
  listeners:
    description: The value of C(qnet_l7_listeners).
    type: list
    elements: dict
    required: true
  routes:
    description: The value of C(qnet_l7_routes).
    type: list
    elements: dict
    required: true
  tenants:
    description: The value of C(qnet_tenants).
    type: list
    elements: dict
    required: true
  service_ips:
    description: Service IPs with their addresses, as M(qiniu.qnet.qnet_service_ip_info) returns them.
    type: list
    elements: dict
    required: true
  worker:
    description: >-
      C(processes), C(connections), C(shutdown_seconds), C(cache_size), C(error_level) and C(ipv6) of nginx.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show the configuration of the balancers of this host
  ansible.builtin.debug:
    msg: >-
      {{ pods | qiniu.qnet.qnet_l7_instances(listeners=qnet_l7_listeners, routes=qnet_l7_routes, tenants=qnet_tenants,
                                             service_ips=service_ips, worker={}) }}
"""

RETURN = r"""
_value:
  description: >-
    For each pod C(instance) (its network namespace), C(group), C(files) (path to text), C(beside) (file beside the
    inventory to where it is put), C(ports) and C(services), those whose pods are chosen among.
  type: list
  elements: dict
"""

from collections.abc import Callable, Iterator, Mapping, Sequence  # noqa: E402
from typing import Any  # noqa: E402

from ansible_collections.qiniu.qnet.plugins.plugin_utils.l7_render import Worker, render  # noqa: E402


def qnet_l7_instances(
    pods: Sequence[Mapping[str, Any]],
    listeners: Sequence[Mapping[str, Any]],
    routes: Sequence[Mapping[str, Any]],
    tenants: Sequence[Mapping[str, Any]],
    service_ips: Sequence[Mapping[str, Any]],
    worker: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """One entry for each pod."""
    addresses = {(f"{ip['group']}/{ip['service']}", str(ip["name"])): str(ip["address"]) for ip in service_ips}
    owners = {
        group["name"]: tenant["name"] for tenant in tenants for group in tenant.get("security_groups") or () if group
    }
    found = []
    for pod in pods:
        rendered = render(pod["service"], listeners, routes, addresses, owners, Worker(**worker), dict(_l7_of(tenants)))
        found.append(
            {
                "instance": pod["name"].replace("/", "."),
                "group": pod["service"].split("/")[0],
                "files": dict(rendered.files),
                "beside": dict(rendered.beside),
                "ports": list(rendered.ports),
                "services": list(rendered.services),
            }
        )
    return found


def _l7_of(tenants: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What services say for l7, by group/service."""
    for tenant in tenants:
        for group in tenant.get("security_groups") or ():
            for service in group.get("services") or ():
                yield f"{group['name']}/{service['name']}", service.get("l7") or {}


class FilterModule:
    """The filter, for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"qnet_l7_instances": qnet_l7_instances}
