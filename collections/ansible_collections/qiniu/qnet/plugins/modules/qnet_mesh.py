#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: the ways from this host to the others, as tunnels use them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: qnet_mesh
short_description: Measure the underlay between hosts
version_added: 0.1.0
description:
  - Measures route, loss, latency and the largest packet from a host to others, and whether VXLAN packets arrive.
  - Run it three times on all hosts, with O(state=listening), O(state=measured) and O(state=heard), and give the
    results to the filter P(qiniu.qnet.qnet_mesh_report#filter).
author:
  - qnet contributors (@qnet)
requirements:
  - Root on the host
attributes:
  check_mode:
    support: full
    description: Packets are sent in check mode as well.
  diff_mode:
    support: none
    description: Nothing is changed.
  idempotent:
    support: full
    description: Nothing is changed.
options:
  state:
    description:
      - V(listening) begins to write down whose VXLAN packets arrive, in the background.
      - V(measured) sends.
      - V(heard) ends listening and returns who was heard.
    type: str
    choices: [listening, measured, heard]
    default: measured
  name:
    description: The name of this host. Needed with O(state=measured).
    type: str
  local:
    description: The address of this host as a tunnel end point. Needed with O(state=measured).
    type: str
  interface:
    description: The interface of the underlay. Needed with O(state=listening).
    type: str
  peers:
    description: The other hosts.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The name of the host.
        type: str
        required: true
      address:
        description: Its address as a tunnel end point.
        type: str
        required: true
  mtu:
    description: The largest packet to try, in bytes with its IP header.
    type: int
    default: 1500
  count:
    description: How many echoes to send to each host.
    type: int
    default: 10
  timeout_seconds:
    description: How long to wait for an answer.
    type: float
    default: 0.5
  listen_seconds:
    description: When listening ends by itself.
    type: float
    default: 300
seealso:
  - module: qiniu.qnet.qnet_probe
"""

EXAMPLES = r"""
- name: Measure the way to another host
  qiniu.qnet.qnet_mesh:
    name: h1
    local: 192.0.2.1
    peers:
      - {name: h2, address: 192.0.2.2}
"""

RETURN = r"""
ways:
  description: What was measured, an entry for each of O(peers).
  returned: with O(state=measured)
  type: list
  elements: dict
  sample:
    - {peer: h2, address: 192.0.2.2, route: eth1, sent: 10, answered: 10, latency_milliseconds: 0.2, mtu: 1500}
heard:
  description: The hosts whose VXLAN packets have arrived.
  returned: with O(state=heard)
  type: list
  elements: str
  sample: [h2]
"""

import concurrent.futures
import dataclasses
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.qiniu.qnet.plugins.module_utils import _mesh

PEER = {"name": {"type": "str", "required": True}, "address": {"type": "str", "required": True}}
ARGUMENTS: dict[str, t.Any] = {
    "state": {"type": "str", "choices": ["listening", "measured", "heard"], "default": "measured"},
    "name": {"type": "str"},
    "local": {"type": "str"},
    "interface": {"type": "str"},
    "peers": {"type": "list", "elements": "dict", "default": [], "options": PEER},
    "mtu": {"type": "int", "default": 1500},
    "count": {"type": "int", "default": 10},
    "timeout_seconds": {"type": "float", "default": 0.5},
    "listen_seconds": {"type": "float", "default": 300},
}
NEEDED = [("state", "measured", ["name", "local"]), ("state", "listening", ["interface"])]
AT_A_TIME = 16


def measured(module: AnsibleModule) -> list[dict[str, t.Any]]:
    """Send to all peers, some at a time."""
    options = module.params

    def one(peer: dict[str, str]) -> dict[str, t.Any]:
        way = _mesh.Way(peer["name"], peer["address"])
        way.route = _mesh.route_to(module.run_command, way.address, options["local"])
        if not way.route.startswith("no route"):
            _mesh.measure(way, options["local"], options["mtu"], options["count"], options["timeout_seconds"])
            _mesh.call(options["name"], way.address, options["local"])
        return dataclasses.asdict(way)

    with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        return list(pool.map(one, options["peers"]))


def main() -> None:
    """Entry point of Ansible."""
    module = AnsibleModule(argument_spec=ARGUMENTS, required_if=NEEDED, supports_check_mode=True)
    state = module.params["state"]
    try:
        if state == "listening":
            _mesh.listen(_mesh.listening_device(module.params["interface"]), module.params["listen_seconds"])
            module.exit_json(changed=False)
        elif state == "measured":
            module.exit_json(changed=False, ways=measured(module))
        else:
            module.exit_json(changed=False, heard=_mesh.stop())
    except OSError as error:
        module.fail_json(msg=f"measuring failed: {error}")


if __name__ == "__main__":
    main()
