# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter qiniu.qnet.qnet_declarations."""

from __future__ import annotations

DOCUMENTATION = r"""
name: qnet_declarations
short_description: Pods as qnet_pod declares them
version_added: 1.0.0
author: qnet authors
description:
  - Removes from each pod where it is and what runs in it.
  - With O(hold), a pod with a workload that does not take connections yet takes none until something answers.
positional: _input
options:
  _input:
    description: Pods, as P(qiniu.qnet.qnet_pods#filter) returns them.
    type: list
    elements: dict
    required: true
  hold:
    description: Whether to add C(hold) to pods with a workload.
    type: bool
    default: false
  bare:
    description: Whether to keep the names only, for pods that are declared already.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Declare pods
  qiniu.qnet.qnet_pod:
    pods: "{{ qnet_tenants | qiniu.qnet.qnet_pods(groups['switches']) | qiniu.qnet.qnet_declarations }}"
    state: declared
    purge: true
"""

RETURN = r"""
_value:
  description: Pods, for the option C(pods) of M(qiniu.qnet.qnet_pod).
  type: list
  elements: dict
"""

from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

from ansible_collections.qiniu.qnet.plugins.plugin_utils.placement import declarations  # noqa: E402


class FilterModule:
    """The filter, for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"qnet_declarations": declarations}
