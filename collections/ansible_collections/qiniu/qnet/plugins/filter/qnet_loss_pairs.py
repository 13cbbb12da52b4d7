# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter qiniu.qnet.qnet_loss_pairs."""

from __future__ import annotations

DOCUMENTATION = r"""
name: qnet_loss_pairs
short_description: Pairs of pods that show what is lost between hosts
version_added: 1.0.0
author: qnet authors
description:
  - For every ordered pair of hosts, one pod of the first and one pod of the second that it reaches because both are of
    one security group and network.
  - A host has at most O(most) of them, to hosts that follow it in order of name, so that the work stays in proportion.
positional: _input, placed, most
options:
  _input:
    description: Pods, as M(qiniu.qnet.qnet_pod_info) returns them.
    type: list
    elements: dict
    required: true
  placed:
    description: The same pods with their hosts, from P(qiniu.qnet.qnet_pods#filter).
    type: list
    elements: dict
    required: true
  most:
    description: The largest number of other hosts that one host probes.
    type: int
    default: 16
"""

EXAMPLES = r"""
- name: Say what this host probes
  ansible.builtin.debug:
    msg: "{{ (pods | qiniu.qnet.qnet_loss_pairs(placed))[inventory_hostname] | default([]) }}"
"""

RETURN = r"""
_value:
  description: Host to its pairs, each with C(namespace), C(source), C(target) and C(address).
  type: dict
"""

from collections.abc import Callable, Mapping, Sequence  # noqa: E402
from typing import Any  # noqa: E402

Objects = Sequence[Mapping[str, Any]]
MOST = 16


def qnet_loss_pairs(pods: Objects, placed: Objects, most: int = MOST) -> dict[str, list[dict[str, str]]]:
    """Host to the pairs that are probed from it."""
    host_of = {pod["name"]: pod["host"] for pod in placed}
    there: dict[str, dict[tuple[str, str], Mapping[str, Any]]] = {}
    for pod in pods:
        host = host_of.get(f"{pod['group']}/{pod['name']}")
        if host is not None and pod["addresses"]:
            there.setdefault(host, {}).setdefault((pod["group"], pod["network"]), pod)
    return {host: _pairs(host, there, most) for host in sorted(there)}


def _pairs(
    host: str, there: Mapping[str, Mapping[tuple[str, str], Mapping[str, Any]]], most: int
) -> list[dict[str, str]]:
    names = sorted(there)
    following = names[names.index(host) + 1 :] + names[: names.index(host)]
    found: list[dict[str, str]] = []
    for other in following:
        shared = sorted(there[host].keys() & there[other].keys())
        if shared and len(found) < most:
            source, target = there[host][shared[0]], there[other][shared[0]]
            found.append(
                {
                    "namespace": f"{source['group']}.{source['name']}",
                    "source": f"{source['group']}/{source['name']}",
                    "target": f"{target['group']}/{target['name']}",
                    "address": target["addresses"][0],
                }
            )
    return found


class FilterModule:
    """The filter, for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"qnet_loss_pairs": qnet_loss_pairs}
