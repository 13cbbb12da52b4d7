# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible filter: what hosts have measured of each other as one table that names causes."""

from __future__ import annotations

import typing as t

from ansible_collections.qiniu.qnet.plugins.plugin_utils import mesh_report

DOCUMENTATION = r"""
name: qnet_mesh_report
short_description: What hosts have measured of each other, as one table that names causes
version_added: 0.1.0
description:
  - Judges the results of M(qiniu.qnet.qnet_mesh) of all hosts together.
author:
  - qnet contributors (@qnet)
positional: _input
options:
  _input:
    description: A dictionary for each host, with C(name), C(vtep), C(ways), C(heard), C(vteps) and C(faults).
    type: list
    elements: dict
    required: true
  mtu:
    description: The size that packets of the underlay need to carry the overlay.
    type: int
    required: true
"""

EXAMPLES = r"""
- name: Judge the mesh
  ansible.builtin.set_fact:
    report: "{{ measured | qiniu.qnet.qnet_mesh_report(1500) }}"
"""

RETURN = r"""
_value:
  description: C(rows), for P(qiniu.qnet.qnet_table#filter), and C(faults), a line for each thing that is wrong.
  type: dict
"""


def qnet_mesh_report(hosts: t.Sequence[t.Mapping[str, t.Any]], mtu: int) -> dict[str, t.Any]:
    """See DOCUMENTATION."""
    return mesh_report.report([mesh_report.Host(**host) for host in hosts], int(mtu))


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Filters by name."""
        return {"qnet_mesh_report": qnet_mesh_report}
