# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter qiniu.qnet.qnet_reach_report."""

from __future__ import annotations

DOCUMENTATION = r"""
name: qnet_reach_report
short_description: Compare what pods reach with what the inventory says
version_added: 1.0.0
author: qnet authors
description:
  - Compares measurements with P(qiniu.qnet.qnet_reach#filter), pair by pair and protocol by protocol. A pair that was
    not measured is a difference.
positional: _input, pods, service_ips, exports, protocols
options:
  _input:
    description: The C(results) of M(qiniu.qnet.qnet_probe) of all hosts, in one list.
    type: list
    elements: dict
    required: true
  pods:
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
    description: The value of C(qnet_exports).
    type: list
    elements: dict
    required: true
  protocols:
    description: The same as for P(qiniu.qnet.qnet_probe_targets#filter).
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Compare
  ansible.builtin.debug:
    msg: "{{ (results | qiniu.qnet.qnet_reach_report(pods, service_ips, qnet_exports, ['icmp'])).text }}"
"""

RETURN = r"""
_value:
  description: >-
    C(text), a matrix and all differences for a person; C(differences), one line each; C(pairs) and C(probes), how many
    were compared.
  type: dict
"""

from collections.abc import Callable, Mapping, Sequence  # noqa: E402
from dataclasses import asdict  # noqa: E402
from datetime import UTC, datetime  # noqa: E402
from typing import Any  # noqa: E402

from ansible_collections.qiniu.qnet.plugins.plugin_utils import reach_report  # noqa: E402
from ansible_collections.qiniu.qnet.plugins.plugin_utils.reach import pairs, targets  # noqa: E402

Objects = Sequence[Mapping[str, Any]]


def qnet_reach_report(
    results: Objects, pods: Objects, service_ips: Objects, exports: Objects, protocols: Sequence[str]
) -> dict[str, Any]:
    """The comparison as of now."""
    known = targets(pods, service_ips)
    asked = reach_report.probe_targets(known, exports, protocols)
    expected = pairs(known, exports, datetime.now(UTC))
    return asdict(reach_report.compare(expected, asked, reach_report.measured(results)))


class FilterModule:
    """The filter, for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"qnet_reach_report": qnet_reach_report}
