# Copyright (c) qnet authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Become plugin qiniu.qnet.pod."""

from __future__ import annotations

DOCUMENTATION = r"""
name: pod
short_description: Run tasks inside of a pod
version_added: 0.1.0
author:
  - qnet contributors (@qnet)
description:
  - Enters the network namespace of a pod on its host, as root of that host. The file system is the host's.
  - The inventory plugin P(qiniu.qnet.pods#inventory) sets all that it needs.
options:
  namespace:
    description: Name of the pod's network namespace, C(<group>.<pod>).
    type: str
    required: true
    vars:
      - name: ansible_pod_namespace
  become_exe:
    description: What enters a namespace; its name and the command follow.
    type: str
    default: ip netns exec
    vars:
      - name: ansible_become_exe
      - name: ansible_pod_exe
  become_user:
    description: Not used, tasks run as root. Empty, so that Ansible does not take it for the user that it comes in as.
    type: str
    default: ""
  become_flags:
    description: Not used.
    type: str
    default: ""
  become_pass:
    description: Not used, root of the host needs none.
    type: str
"""

import shlex  # noqa: E402

from ansible.plugins.become import BecomeBase  # noqa: E402


class BecomeModule(BecomeBase):
    """Puts `ip netns exec NAMESPACE` before the command."""

    name = "qiniu.qnet.pod"

    def build_become_command(self, cmd: str, shell: object) -> str:
        """The command that runs `cmd` inside of the pod."""
        super().build_become_command(cmd, shell)
        if not cmd:
            return cmd
        enter = f"{self.get_option('become_exe')} {shlex.quote(self.get_option('namespace'))}"
        return f"{enter} {self._build_success_command(cmd, shell)}"
