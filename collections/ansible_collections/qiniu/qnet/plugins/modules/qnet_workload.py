#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run the processes of the pods of a host."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: qnet_workload
short_description: Run the processes of the pods of a host
version_added: 1.0.0
author: qnet authors (@qiniu)
description:
  - Runs one process inside the network namespace of each pod, as an instance of the systemd template unit
    C(qnet-pod@.service), which the role C(pods) installs.
  - One call takes all workloads of the host. A process is started again when its command, its environment, one of its
    files, the template unit, or the network namespace behind the name of its pod is another one than when it started.
options:
  workloads:
    description: The workloads of this host.
    required: true
  enable:
    description: Other units that are enabled with O(state=started), so that they start whenever the host does.
  purge:
    description: Whether to stop and remove the workloads of all pods that are not listed.
    type: bool
    default: false
  state:
    description:
      - V(started) writes, enables and starts what is listed.
      - V(retained) starts nothing and, with O(purge), stops what is not listed.
    type: str
    choices: [started, retained]
    default: started
attributes:
  check_mode:
    support: full
    description: Returns what would change and changes nothing.
  diff_mode:
    support: full
    description: Shows the unit and the state of each process that changes, without values that may be secrets.
  idempotent:
    support: full
    description: A second call changes nothing.
extends_documentation_fragment: [qiniu.qnet.workloads]
"""

EXAMPLES = r"""
- name: Run the workloads of this host
  qiniu.qnet.qnet_workload:
    workloads:
      - pod: fop/image-1
        command: /usr/bin/python3 /opt/qnet/workloads/image_worker.py
        environment: {PORT: "8080"}
        files: [/opt/qnet/workloads/image_worker.py]
    files:
      - path: /opt/qnet/workloads/image_worker.py
        content: "{{ lookup('ansible.builtin.file', 'workloads/image_worker.py', rstrip=false) }}"
    purge: true
"""

RETURN = r"""
started:
  description: Units that were started.
  returned: success
  type: list
  elements: str
restarted:
  description: Units that were started again.
  returned: success
  type: list
  elements: str
stopped:
  description: Units that were stopped and removed.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.qiniu.qnet.plugins.module_utils import _workload_host


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **_workload_host.OPTIONS,
            "purge": {"type": "bool", "default": False},
            "state": {"type": "str", "choices": ["started", "retained"], "default": "started"},
        },
        supports_check_mode=True,
    )
    params = module.params
    module.exit_json(**_workload_host.converge(module, params, params["state"] == "started", params["purge"]))


if __name__ == "__main__":
    main()
