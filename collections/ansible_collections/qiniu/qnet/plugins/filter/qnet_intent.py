# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter qiniu.qnet.qnet_intent."""

from __future__ import annotations

DOCUMENTATION = r"""
name: qnet_intent
short_description: Tenants without what is about pods, as qnet_tenant takes them
version_added: 1.0.0
author: qnet authors
description:
  - Removes C(replicas), C(hosts), C(placement), C(weights), C(addresses), C(draining) and C(workload) from each
    service.
options:
  _input:
    description: The value of C(qnet_tenants).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Apply tenants
  qiniu.qnet.qnet_tenant:
    tenants: "{{ qnet_tenants | qiniu.qnet.qnet_intent }}"
"""

RETURN = r"""
_value:
  description: The tenants, for the option C(tenants) of M(qiniu.qnet.qnet_tenant).
  type: list
  elements: dict
"""

from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

from ansible_collections.qiniu.qnet.plugins.plugin_utils.placement import intent  # noqa: E402


class FilterModule:
    """The filter, for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"qnet_intent": intent}
