# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter qiniu.qnet.qnet_kept_addresses."""

from __future__ import annotations

DOCUMENTATION = r"""
name: qnet_kept_addresses
short_description: Tenants whose pods are given the addresses that they have already
version_added: 1.0.0
author: qnet authors
description:
  - Adds to C(addresses) of each service what its pods were found with, unless the inventory gives these addresses.
    Used when the intent database is rebuilt, so that nothing is allocated anew for a pod that runs.
positional: _input, found
options:
  _input:
    description: The value of C(qnet_tenants).
    type: list
    elements: dict
    required: true
  found:
    description: Name of the pod (group/pod) to its addresses.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Keep the address of a pod
  ansible.builtin.set_fact:
    qnet_tenants: "{{ qnet_tenants | qiniu.qnet.qnet_kept_addresses({'fop/image-1': ['10.10.0.7']}) }}"
"""

RETURN = r"""
_value:
  description: The tenants, with addresses.
  type: list
  elements: dict
"""

from collections.abc import Callable, Mapping, Sequence  # noqa: E402
from typing import Any  # noqa: E402

from ansible_collections.qiniu.qnet.plugins.plugin_utils.placement import pod_names  # noqa: E402


def qnet_kept_addresses(
    tenants: Sequence[Mapping[str, Any]], found: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """The tenants, with the addresses that their pods have."""
    return [
        {
            **tenant,
            "security_groups": [
                {**group, "services": [_service(group, service, found) for service in group.get("services") or ()]}
                for group in tenant.get("security_groups") or ()
            ],
        }
        for tenant in tenants
    ]


def _service(
    group: Mapping[str, Any], service: Mapping[str, Any], found: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    kept = {
        pod: list(found[f"{group['name']}/{pod}"]) for pod in pod_names(service) if found.get(f"{group['name']}/{pod}")
    }
    return {**service, "addresses": {**kept, **(service.get("addresses") or {})}}


class FilterModule:
    """The filter, for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"qnet_kept_addresses": qnet_kept_addresses}
