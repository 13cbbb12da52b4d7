#!/usr/bin/python
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: read the L7 routes of the fleet."""

from __future__ import annotations

DOCUMENTATION = r"""
module: qnet_l7_route_info
short_description: Read the L7 routes of the fleet
version_added: 0.1.0
description:
  - Returns what the intent database says about L7 routes, all references by name. Changes nothing.
  - A name in O(names) is said as C(listener/name).
extends_documentation_fragment:
  - qiniu.qnet.intent
  - qiniu.qnet.intent.reads
seealso:
  - module: qiniu.qnet.qnet_l7_route
"""

EXAMPLES = r"""
- name: Read all L7 routes
  qiniu.qnet.qnet_l7_route_info:
  register: result

- name: Read one of them
  qiniu.qnet.qnet_l7_route_info:
    names: [web/image]
"""

RETURN = r"""
l7_routes:
  description: The routes, sorted by name.
  returned: success
  type: list
  elements: dict
  contains:
    listener:
      description: Name of its listener.
      type: str
      returned: success
    name:
      description: Its name.
      type: str
      returned: success
    settings:
      description: Its options.
      type: dict
      returned: success
  sample:
    - listener: web
      name: image
      settings:
        backends:
          - port: 8081
            service: fop/image
generation:
  description: Number of changes of the intent so far.
  returned: success
  type: int
  sample: 42
"""

from ansible_collections.qiniu.qnet.plugins.module_utils import _module


def main() -> None:
    """Run the module."""
    _module.run_info_module("l7_route")


if __name__ == "__main__":
    main()
