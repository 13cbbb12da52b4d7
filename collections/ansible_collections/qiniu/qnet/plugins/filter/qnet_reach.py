# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter qiniu.qnet.qnet_reach."""

from __future__ import annotations

DOCUMENTATION = r"""
name: qnet_reach
short_description: What every pod is expected to reach
version_added: 1.0.0
author: qnet authors
description:
  - States the policy for every ordered pair of a pod and another pod, and of a pod and a Service IP.
  - It is computed from the exports and shares nothing with the controller, so that a measurement can be compared with
    it.
positional: _input, service_ips, exports
options:
  _input:
    description: Pods, as M(qiniu.qnet.qnet_pod_info) returns them.
    type: list
    elements: dict
    required: true
  service_ips:
    description: Service IPs, as M(qiniu.qnet.qnet_service_ip_info) returns them.
    type: list
    elements: dict
    required: true
  exports:
    description: The value of C(qnet_exports). An export that has ended counts for nothing.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: List what may pass
  ansible.builtin.debug:
    msg: "{{ pods | qiniu.qnet.qnet_reach(service_ips, qnet_exports) | selectattr('allowed') }}"
"""

RETURN = r"""
_value:
  description: >-
    One entry for each ordered pair, with C(source) (group/pod), C(target) (group/pod, group/service or
    group/service:name), C(kind) (pod or service_ip), C(address), and C(allowed) (V(all), or some of V(tcp/80),
    V(udp/53) and V(icmp), or nothing), as a list.
  type: list
  elements: dict
"""

from collections.abc import Callable, Mapping, Sequence  # noqa: E402
from datetime import UTC, datetime  # noqa: E402
from typing import Any  # noqa: E402

from ansible_collections.qiniu.qnet.plugins.plugin_utils.reach import pairs, targets  # noqa: E402

Objects = Sequence[Mapping[str, Any]]


def qnet_reach(pods: Objects, service_ips: Objects, exports: Objects) -> list[dict[str, Any]]:
    """Every ordered pair with what may pass now."""
    return [
        {
            "source": pair.source.name,
            "target": pair.target.name,
            "kind": pair.target.kind,
            "address": pair.target.address,
            "allowed": list(pair.allowed),
        }
        for pair in pairs(targets(pods, service_ips), exports, datetime.now(UTC))
    ]


class FilterModule:
    """The filter, for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"qnet_reach": qnet_reach}
