#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module of the role underlay: what the underlay of a host carries, in one call."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: underlay_facts
short_description: Find out what the underlay of a host carries, or refuse it
description:
  - Fails with all reasons at once for which the host cannot carry the overlay. Changes nothing.
options:
  host:
    description: Name of the host in the inventory, for messages.
    type: str
    required: true
  interface:
    description: The interface that leads to the other hosts.
    type: str
    required: true
  vtep_address:
    description: The address of the host as a tunnel end point; empty means the first of the interface.
    type: str
    default: ""
  minimum_overlay_mtu:
    description: The smallest overlay MTU that is accepted.
    type: int
    required: true
  networks:
    description: The networks of the inventory, of which those with an C(mtu) are compared with the underlay.
    type: list
    elements: dict
    default: []
  datapath_identity:
    description: Identity of the host's switch, which is returned as it is.
    type: str
    required: true
author:
  - qnet contributors (@qnet)
"""

EXAMPLES = r"""
- name: Find out what the underlay carries
  underlay_facts:
    host: h1
    interface: eth1
    minimum_overlay_mtu: 1280
    datapath_identity: 2f7c1a9de0b45310
  register: underlay_facts
"""

RETURN = r"""
vtep:
  description: The address of the host as a tunnel end point.
  returned: success
  type: str
overlay_mtu:
  description: The MTU of the interface less what the tunnel adds.
  returned: success
  type: int
pods_mtu:
  description: What the pods of this host may send now, which a play before this one has settled; 0 without pods.
  returned: success
  type: int
address:
  description: The MAC address of the interface.
  returned: success
  type: str
datapath_identity:
  description: Identity of the host's switch.
  returned: success
  type: str
bridges:
  description: The bridges of Open vSwitch; null where it does not run or does not answer.
  returned: success
  type: list
  elements: str
balancers:
  description: The L7 balancers that are configured on the host.
  returned: success
  type: list
  elements: str
"""

ARGUMENTS: dict[str, Any] = {
    "host": {"type": "str", "required": True},
    "interface": {"type": "str", "required": True},
    "vtep_address": {"type": "str", "default": ""},
    "minimum_overlay_mtu": {"type": "int", "required": True},
    "networks": {"type": "list", "elements": "dict", "default": []},
    "datapath_identity": {"type": "str", "required": True},
}
OVSDB = "/run/openvswitch/db.sock"
BALANCERS = "/etc/qnet/l7"
POD_PORT = re.compile(r"qn[0-9a-f]{12}")
# With the datapath in user space the addresses of the interface are on br-phy once the role has run.
BRIDGE = "br-phy"

Tree = dict[str, Any]


def addresses_of(links: list[Tree], interface: str) -> list[str]:
    """The global addresses by which other hosts reach this one, IPv4 before IPv6."""
    found = [
        item
        for link in links
        if link["ifname"] in (interface, BRIDGE)
        for item in link["addr_info"]
        if item["scope"] == "global"
    ]
    return [item["local"] for item in sorted(found, key=lambda item: str(item["family"]))]


def facts(links: list[Tree], wanted: Tree) -> tuple[Tree, list[str]]:
    """What the role publishes of `links` (from `ip -json address show`), and why the host is refused."""
    name, host = wanted["interface"], wanted["host"]
    link = next((link for link in links if link["ifname"] == name), None)
    if link is None:
        there = ", ".join(str(link["ifname"]) for link in links)
        return {}, [f"qnet_underlay_interface: {host} has no interface '{name}'; it has {there}"]
    addresses = addresses_of(links, name)
    vtep = wanted["vtep_address"] or (addresses[0] if addresses else "")
    mtu = int(link["mtu"]) - (70 if ":" in vtep else 50)
    pods = [int(link["mtu"]) for link in links if POD_PORT.fullmatch(str(link["ifname"]))]
    found = {
        "vtep": vtep,
        "overlay_mtu": mtu,
        "pods_mtu": max(pods, default=0),
        "address": link.get("address", ""),
        "datapath_identity": wanted["datapath_identity"],
    }
    return found, faults(found, addresses, int(link["mtu"]), wanted)


def faults(found: Tree, addresses: list[str], underlay_mtu: int, wanted: Tree) -> list[str]:
    """Why a host that has the interface is refused all the same."""
    name, host, mtu = wanted["interface"], wanted["host"], found["overlay_mtu"]
    reasons = []
    if found["vtep"] not in addresses:
        reasons.append(
            f"underlay_vtep_address: '{found['vtep']}' is not an address of {name} on {host}; it has "
            f"{', '.join(addresses) or 'none'}: give the interface an address that the other hosts can reach"
        )
    if mtu < wanted["minimum_overlay_mtu"]:
        reasons.append(
            f"{name} on {host} has MTU {underlay_mtu}, which leaves {mtu} for the overlay, less than "
            f"underlay_minimum_overlay_mtu ({wanted['minimum_overlay_mtu']}); raise the MTU of the interface"
        )
    large = [str(net["name"]) for net in wanted["networks"] if net.get("mtu") is not None and int(net["mtu"]) > mtu]
    if large:
        reasons.append(
            f"qnet_networks: the mtu of {', '.join(large)} is more than the {mtu} that {name} on {host} can carry; "
            "lower it, omit it, or raise the MTU of the interface"
        )
    return reasons


def bridges(module: AnsibleModule) -> list[str] | None:
    """The bridges of Open vSwitch, None where it does not answer."""
    if not os.path.exists(OVSDB):
        return None
    status, out, dummy = module.run_command(["ovs-vsctl", "--timeout=10", "list-br"])
    return out.split() if status == 0 else None


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    dummy, shown, dummy = module.run_command(["ip", "-json", "address", "show"], check_rc=True)
    found, reasons = facts(json.loads(shown), module.params)
    if reasons:
        module.fail_json(msg="\n".join(reasons))
    balancers = sorted(os.listdir(BALANCERS)) if os.path.isdir(BALANCERS) else []
    module.exit_json(changed=False, bridges=bridges(module), balancers=balancers, **found)


if __name__ == "__main__":
    main()
