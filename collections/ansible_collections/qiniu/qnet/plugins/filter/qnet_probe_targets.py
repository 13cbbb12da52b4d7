# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter qiniu.qnet.qnet_probe_targets."""

from __future__ import annotations

DOCUMENTATION = r"""
name: qnet_probe_targets
short_description: Every pod and Service IP, as qnet_probe takes targets
version_added: 1.0.0
description:
  - Turns what the database knows into the targets of M(qiniu.qnet.qnet_probe), every pod and every Service IP
    once, with the protocols and ports to try on it.
author: qnet authors
positional: _input, service_ips, exports, protocols
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
    description: The value of C(qnet_exports). The ports that an export is limited to are probed as well.
    type: list
    elements: dict
    required: true
  protocols:
    description: What to try on every target, each V(icmp), V(tcp/PORT) or V(udp/PORT).
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Ask the pods of this host what they reach
  qiniu.qnet.qnet_probe:
    probes: [{pod: entry/entry-1}]
    targets: "{{ pods | qiniu.qnet.qnet_probe_targets(service_ips, qnet_exports, ['icmp']) }}"
"""

RETURN = r"""
_value:
  description: Targets, for the option C(targets) of M(qiniu.qnet.qnet_probe).
  type: list
  elements: dict
"""

from collections.abc import Callable, Mapping, Sequence  # noqa: E402
from typing import Any  # noqa: E402

from ansible_collections.qiniu.qnet.plugins.plugin_utils.reach import targets  # noqa: E402
from ansible_collections.qiniu.qnet.plugins.plugin_utils.reach_report import probe_targets  # noqa: E402

Objects = Sequence[Mapping[str, Any]]


def qnet_probe_targets(
    pods: Objects, service_ips: Objects, exports: Objects, protocols: Sequence[str]
) -> list[dict[str, Any]]:
    """Targets with their protocols."""
    return probe_targets(targets(pods, service_ips), exports, protocols)


class FilterModule:
    """The filter, for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"qnet_probe_targets": qnet_probe_targets}
