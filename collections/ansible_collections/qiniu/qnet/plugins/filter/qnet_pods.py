# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter qiniu.qnet.qnet_pods."""

from __future__ import annotations

DOCUMENTATION = r"""
name: qnet_pods
short_description: The pods that the inventory asks for, each with its host
version_added: 1.0.0
author: qnet authors
description:
  - Turns C(qnet_tenants) into a flat list of pods, in the order of the inventory.
  - Pod I(i) of a service is on the host that C(placement) names, or else on
    C(hosts[(i - 1 + offset) % len(hosts)]), where C(offset) is the first 8 hex digits of the SHA-256 of
    C(group/service).
positional: _input, hosts
options:
  _input:
    description: The value of C(qnet_tenants).
    type: list
    elements: dict
    required: true
  hosts:
    description: Names of the hosts for the services that name none, usually C(groups['switches']).
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Say where each pod is
  ansible.builtin.debug:
    msg: "{{ qnet_tenants | qiniu.qnet.qnet_pods(groups['switches']) | map(attribute='host') }}"
"""

RETURN = r"""
_value:
  description: >-
    Pods, each with C(name) (group/pod), C(service) (group/service), C(network), C(host), C(weight), C(draining), and
    C(addresses) and C(workload) when the inventory gives them.
  type: list
  elements: dict
"""

from collections.abc import Callable, Mapping, Sequence  # noqa: E402
from typing import Any  # noqa: E402

from ansible.errors import AnsibleFilterError  # noqa: E402

from ansible_collections.qiniu.qnet.plugins.plugin_utils.placement import PlacementError, place  # noqa: E402


def qnet_pods(tenants: Sequence[Mapping[str, Any]], hosts: Sequence[str]) -> list[dict[str, Any]]:
    """Pods with their hosts; AnsibleFilterError when a pod has no host."""
    try:
        return place(tenants, hosts)
    except PlacementError as error:
        raise AnsibleFilterError(f"qnet_tenants: {error}") from None


class FilterModule:
    """The filter, for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"qnet_pods": qnet_pods}
