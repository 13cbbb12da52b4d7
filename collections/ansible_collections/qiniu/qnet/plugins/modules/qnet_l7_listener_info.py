#!/usr/bin/python
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: read the L7 listeners of the fleet."""

from __future__ import annotations

DOCUMENTATION = r"""
module: qnet_l7_listener_info
short_description: Read the L7 listeners of the fleet
version_added: 0.1.0
description:
  - Returns what the intent database says about L7 listeners, all references by name. Changes nothing.
  - A name in O(names) is said as C(name).
extends_documentation_fragment:
  - qiniu.qnet.intent
  - qiniu.qnet.intent.reads
seealso:
  - module: qiniu.qnet.qnet_l7_listener
"""

EXAMPLES = r"""
- name: Read all L7 listeners
  qiniu.qnet.qnet_l7_listener_info:
  register: result

- name: Read one of them
  qiniu.qnet.qnet_l7_listener_info:
    names: [web]
"""

RETURN = r"""
l7_listeners:
  description: The listeners, sorted by name.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Its name.
      type: str
      returned: success
    balancer:
      description: The service whose pods run nginx.
      type: str
      returned: success
    protocol:
      description: What is spoken there.
      type: str
      returned: success
    port:
      description: The port.
      type: int
      returned: success
    settings:
      description: All other options.
      type: dict
      returned: success
  sample:
    - balancer: platform/edge
      name: web
      port: 80
      protocol: http
      settings: {}
generation:
  description: Number of changes of the intent so far.
  returned: success
  type: int
  sample: 42
"""

from ansible_collections.qiniu.qnet.plugins.module_utils import _module


def main() -> None:
    """Run the module."""
    _module.run_info_module("l7_listener")


if __name__ == "__main__":
    main()
