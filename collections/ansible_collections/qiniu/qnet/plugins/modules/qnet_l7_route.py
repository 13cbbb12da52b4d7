#!/usr/bin/python
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: manage L7 routes, what an L7 listener does with requests."""

from __future__ import annotations

DOCUMENTATION = r"""
module: qnet_l7_route
short_description: Manage L7 routes, what an L7 listener does with requests
version_added: 0.1.0
description:
  - An L7 route says which requests of a listener go to which services, and how.
  - A service that it asks has to be exported to the group of the balancer, unless it is of the same group; with
    C(direct) when the balancer chooses among the pods themselves.
  - An option that is left out leaves things as they are; an empty one clears them.
  - One call is one transaction. Either all of it is applied or nothing, and all problems are reported at once.
extends_documentation_fragment:
  - qiniu.qnet.intent
  - qiniu.qnet.intent.changes
  - qiniu.qnet.intent.objects
options:
  listener:
    description:
      - Name of the listener.
      - Exactly one of O(listener) and O(l7_routes) is needed.
    type: str
  name:
    description:
      - Name of the route, a DNS label, unique in its listener.
    type: str
  settings:
    description:
      - The options of the route, such as C(hosts), C(path) and C(backends).
      - C(docs/design/l7.md) lists them with the nginx directives behind them.
      - They are replaced as a whole; an empty map clears them.
    type: dict
  l7_routes:
    description: Many routes at once, in one transaction, instead of the options for a single one.
    type: list
    elements: dict
    suboptions:
      listener:
        description:
          - Name of the listener.
        type: str
        required: true
      name:
        description:
          - Name of the route, a DNS label, unique in its listener.
        type: str
        required: true
      settings:
        description:
          - The options of the route, such as C(hosts), C(path) and C(backends).
          - C(docs/design/l7.md) lists them with the nginx directives behind them.
          - They are replaced as a whole; an empty map clears them.
        type: dict
seealso:
  - module: qiniu.qnet.qnet_l7_route_info
  - module: qiniu.qnet.qnet_tenant
"""

EXAMPLES = r"""
- name: Send requests for images to the service fop/image
  qiniu.qnet.qnet_l7_route:
    listener: web
    name: image
    settings:
      hosts: [img.example.org]
      path: /image/
      backends:
        - service: fop/image
          port: 8081

- name: Remove it again
  qiniu.qnet.qnet_l7_route:
    listener: web
    name: image
    state: absent
"""

RETURN = r"""
l7_routes:
  description: The routes that were asked for, as they are (or in check mode would be); empty with O(state=absent).
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
plan:
  description: What was changed (or in check mode would be), one entry per object. Empty when nothing was.
  returned: success
  type: list
  elements: dict
  contains:
    action:
      description: V(create), V(change) or V(remove).
      type: str
      returned: success
    kind:
      description: Kind of the object.
      type: str
      returned: success
    name:
      description: Its name.
      type: str
      returned: success
  sample:
    - action: create
      kind: l7_route
      name: web/image
generation:
  description: Number of changes of the intent so far. In check mode it is not counted up.
  returned: success
  type: int
  sample: 42
what_if:
  description:
    - What the change would do. C(requests) says which requests would go where and no longer, and which balancers nginx
      is reloaded; the other entries are those of M(qiniu.qnet.qnet_what_if).
    - Null when no controller answers at O(controller_api).
  returned: in check mode with diff, when there is something to change
  type: dict
  sample:
    requests:
      gained:
        - listener: web (http port 80 of edge/balancer)
          requests: for img.example.org prefix /image/
          to: fop/image port 8081
      lost: []
      reloaded:
        - edge/balancer
"""

from ansible_collections.qiniu.qnet.plugins.module_utils import _module


def main() -> None:
    """Run the module."""
    _module.run_object_module("l7_route")


if __name__ == "__main__":
    main()
