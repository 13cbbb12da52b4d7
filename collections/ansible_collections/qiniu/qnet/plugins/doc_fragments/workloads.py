# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation that the modules which run processes in pods share."""

from __future__ import annotations


class ModuleDocFragment:
    """The options of processes and of what they need."""

    DOCUMENTATION = r"""
options:
  workloads:
    description: Processes that run in pods.
    type: list
    elements: dict
    suboptions:
      pod:
        description: The pod, said as group/pod.
        type: str
        required: true
      command:
        description: Command line of the process, beginning with an absolute path.
        type: str
        required: true
      environment:
        description:
          - Environment variables. Their values are in no log, diff or return value.
          - All users of the host can read them in the unit, so secrets belong into files.
        type: dict
        default: {}
      files:
        description: Paths of files on the host that the process is started again for when one of them changes.
        type: list
        elements: path
        default: []
  files:
    description: Text files of this host that workloads need, written before any process is started.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where the file is on the host. Missing directories are made.
        type: path
        required: true
      content:
        description:
          - What is in the file. It is in no log, diff or return value.
          - All users of the host can read the file.
        type: str
        required: true
  enable:
    description: Other units that are enabled, so that they start whenever the host does.
    type: list
    elements: str
    default: []
    version_added: 1.0.0
"""
