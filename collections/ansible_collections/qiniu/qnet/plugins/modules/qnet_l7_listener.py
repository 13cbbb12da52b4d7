#!/usr/bin/python
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: manage L7 listeners, the ports of an L7 balancer."""

from __future__ import annotations

DOCUMENTATION = r"""
module: qnet_l7_listener
short_description: Manage L7 listeners, the ports of an L7 balancer
version_added: 0.1.0
description:
  - An L7 listener is a port on which the pods of a service, the balancer, run nginx. What it does with requests
    is said by routes, see M(qiniu.qnet.qnet_l7_route).
  - The role C(l7_balancer) puts it into effect.
  - An option that is left out leaves things as they are; an empty one clears them.
  - One call is one transaction. Either all of it is applied or nothing, and all problems are reported at once.
extends_documentation_fragment:
  - qiniu.qnet.intent
  - qiniu.qnet.intent.changes
  - qiniu.qnet.intent.objects
options:
  name:
    description:
      - Name of the listener, a DNS label, unique in the fleet.
      - Exactly one of O(name) and O(l7_listeners) is needed.
    type: str
  balancer:
    description:
      - The service whose pods run nginx, said as group/service.
      - Needed when the listener is created.
    type: str
  protocol:
    description:
      - What is spoken there.
      - Needed when the listener is created.
    type: str
    choices: [http, https, tcp, udp]
  port:
    description:
      - The port, 1 to 65535, unique in the balancer for TCP and for UDP.
      - Needed when the listener is created.
    type: int
  settings:
    description:
      - All other options of the listener. C(docs/design/l7.md) lists them with the nginx directives behind them.
      - They are replaced as a whole; an empty map clears them.
    type: dict
  l7_listeners:
    description: Many listeners at once, in one transaction, instead of the options for a single one.
    type: list
    elements: dict
    suboptions:
      name:
        description:
          - Name of the listener, a DNS label, unique in the fleet.
        type: str
        required: true
      balancer:
        description:
          - The service whose pods run nginx, said as group/service.
          - Needed when the listener is created.
        type: str
      protocol:
        description:
          - What is spoken there.
          - Needed when the listener is created.
        type: str
        choices: [http, https, tcp, udp]
      port:
        description:
          - The port, 1 to 65535, unique in the balancer for TCP and for UDP.
          - Needed when the listener is created.
        type: int
      settings:
        description:
          - All other options of the listener. C(docs/design/l7.md) lists them with the nginx directives behind them.
          - They are replaced as a whole; an empty map clears them.
        type: dict
seealso:
  - module: qiniu.qnet.qnet_l7_listener_info
  - module: qiniu.qnet.qnet_tenant
"""

EXAMPLES = r"""
- name: Have a listener for HTTPS
  qiniu.qnet.qnet_l7_listener:
    name: web
    balancer: platform/edge
    protocol: https
    port: 443
    settings:
      certificates:
        - certificate: certificates/www.pem
          key: certificates/www.key
          names: [www.example.org]

- name: Remove it again
  qiniu.qnet.qnet_l7_listener:
    name: web
    state: absent
"""

RETURN = r"""
l7_listeners:
  description: The listeners that were asked for, as they are (or in check mode would be); empty with O(state=absent).
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
      kind: l7_listener
      name: web
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
    _module.run_object_module("l7_listener")


if __name__ == "__main__":
    main()
