#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: what the network card of a host may do of the tunnel work, and what is pinned."""

from __future__ import annotations

DOCUMENTATION = r"""
module: qnet_offload_info
short_description: Read what a network card may do of the work on tunnelled packets
version_added: 0.1.0
description:
  - Returns what the table of M(qiniu.qnet.qnet_offload) says of the card of a host, and what is pinned there.
author:
  - qnet contributors (@qnet)
requirements:
  - C(ethtool)
attributes:
  check_mode:
    support: full
    description: Nothing is changed.
  diff_mode:
    support: none
    description: Nothing is changed.
  idempotent:
    support: full
    description: Nothing is changed.
options:
  interface:
    description: The interface of the underlay.
    type: str
    required: true
  datapath:
    description: As O(qiniu.qnet.qnet_offload#module:datapath).
    type: str
    choices: [system, netdev]
    default: system
  pinned_file:
    description: Where the level is pinned.
    type: path
    default: /etc/qnet/offload.json
seealso:
  - module: qiniu.qnet.qnet_offload
"""

EXAMPLES = r"""
- name: Ask what the card may do
  qiniu.qnet.qnet_offload_info:
    interface: eth1
  register: offload
"""

RETURN = r"""
card:
  description: The card, its driver, firmware, features, and what works with it.
  returned: success
  type: dict
  sample: {driver: i40e, firmware: 5.04 0x800024d0 0.0.0, interface: eth1}
level:
  description: The level that would be tried first.
  returned: success
  type: str
  sample: stateless
most:
  description: The highest level that the table allows for the card.
  returned: success
  type: str
  sample: stateless
reasons:
  description: Why.
  returned: success
  type: list
  elements: str
  sample: ["Intel X710 and XL710"]
faults:
  description: What is set on the host that breaks the overlay whatever the card does.
  returned: success
  type: list
  elements: str
  sample: []
pinned:
  description: What is pinned; empty when nothing is.
  returned: success
  type: dict
  sample: {level: stateless, proved: true}
current:
  description: Whether what is pinned was proved on this kernel, driver, firmware and Open vSwitch.
  returned: success
  type: bool
  sample: true
"""

import dataclasses
import pathlib
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.qiniu.qnet.plugins.module_utils import _offload, _offload_host

ARGUMENTS: dict[str, t.Any] = {
    "interface": {"type": "str", "required": True},
    "datapath": {"type": "str", "choices": ["system", "netdev"], "default": "system"},
    "pinned_file": {"type": "path", "default": str(_offload_host.PINNED)},
}


def main() -> None:
    """Entry point of Ansible."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    options = module.params
    try:
        card = _offload_host.read_card(module.run_command, options["interface"], options["datapath"])
    except _offload_host.HostError as error:
        module.fail_json(msg=str(error))
    decision = _offload.decide(card)
    pinned = _offload_host.read_pinned(pathlib.Path(options["pinned_file"]))
    module.exit_json(
        changed=False,
        card=dataclasses.asdict(card),
        pinned=pinned,
        current=pinned.get("identity") == card.identity,
        **dataclasses.asdict(decision),
    )


if __name__ == "__main__":
    main()
