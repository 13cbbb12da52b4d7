# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter qiniu.qnet.qnet_workloads."""

from __future__ import annotations

DOCUMENTATION = r"""
name: qnet_workloads
short_description: Workloads of pods as qnet_workload takes them
version_added: 1.0.0
author: qnet authors
description:
  - Leaves out pods without a workload.
  - Adds C(QNET_POD), C(QNET_SERVICE) and C(QNET_HOST) to the environment of each process.
positional: _input, directory
options:
  _input:
    description: Pods, as P(qiniu.qnet.qnet_pods#filter) returns them.
    type: list
    elements: dict
    required: true
  directory:
    description: The directory on the hosts that the files are copied to.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Run workloads
  qiniu.qnet.qnet_workload:
    workloads: "{{ pods | qiniu.qnet.qnet_workloads('/opt/qnet/workloads') }}"
"""

RETURN = r"""
_value:
  description: Workloads, for the option C(workloads) of M(qiniu.qnet.qnet_workload).
  type: list
  elements: dict
"""

from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

from ansible_collections.qiniu.qnet.plugins.plugin_utils.placement import workloads  # noqa: E402


class FilterModule:
    """The filter, for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"qnet_workloads": workloads}
