# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter qiniu.qnet.qnet_pods_by_host."""

from __future__ import annotations

DOCUMENTATION = r"""
name: qnet_pods_by_host
short_description: What each host is to attach and to run
version_added: 1.0.0
author: qnet authors
description:
  - Divides the pods of a fleet by host, once, in the form that the modules take. A play in which every host picked its
    own from all pods would spend most of its time on that.
positional: _input, directory
options:
  _input:
    description: Pods, as P(qiniu.qnet.qnet_pods#filter) returns them.
    type: list
    elements: dict
    required: true
  directory:
    description: The directory on the hosts that the files of workloads are copied to.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Work out what each host is to do
  ansible.builtin.set_fact:
    by_host: "{{ qnet_tenants | qiniu.qnet.qnet_pods(groups['switches'])
                 | qiniu.qnet.qnet_pods_by_host('/opt/qnet/workloads') }}"
  run_once: true
"""

RETURN = r"""
_value:
  description: >-
    Host to C(pods) for M(qiniu.qnet.qnet_pod), C(workloads) for M(qiniu.qnet.qnet_workload), and the C(packages) and
    C(files) that the workloads name.
  type: dict
"""

from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

from ansible_collections.qiniu.qnet.plugins.plugin_utils.placement import by_host  # noqa: E402


class FilterModule:
    """The filter, for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"qnet_pods_by_host": by_host}
