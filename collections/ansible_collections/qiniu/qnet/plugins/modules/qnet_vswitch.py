#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: the desired state of Open vSwitch on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: qnet_vswitch
short_description: Make the Open vSwitch of a host as described, in one transaction
version_added: 0.1.0
description:
  - Takes the whole desired state of a host's Open vSwitch (bridges, their controllers and ports, keys and
    certificates,
    global settings) and applies the difference in one transaction of the local C(Open_vSwitch) database. Either all
    of it is
    applied or nothing.
  - Bridges and ports that are not mentioned are left alone, so the ports of pods survive it.
  - An option that is omitted leaves things as they are; an empty one clears them.
  - A module call fails when C(ovs-vswitchd) reports an error for a bridge or port that is mentioned, even when
    nothing was to be changed.
author:
  - qnet contributors (@qnet)
requirements:
  - Open vSwitch 2.17 or newer (C(openvswitch-switch) on Debian)
  - The Python library C(ovs) (C(python3-openvswitch) on Debian)
attributes:
  check_mode:
    support: full
    description: The database server carries out the transaction and throws it away, so what it would refuse is
      reported.
  diff_mode:
    support: full
    description: Shows the bridges and ports that are mentioned, before and after.
  idempotent:
    support: full
    description: A second call changes nothing.
options:
  bridges:
    description: The bridges that this call is about. Others are left alone.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the bridge, 1 to 15 characters. It is the name of its internal port and network
          interface as well.
        type: str
        required: true
      state:
        description: Whether the bridge exists. With V(absent) it goes with all of its ports.
        type: str
        choices: [present, absent]
        default: present
      datapath_type:
        description:
          - V(system) is the datapath in the kernel, V(netdev) the one in user space.
          - A new bridge without it gets V(system).
        type: str
        choices: [system, netdev]
      fail_mode:
        description:
          - What the bridge does without a controller. V(secure) goes on with the flows it has, V(standalone) becomes
            an ordinary switch.
          - An empty text clears it.
        type: str
        choices: [secure, standalone, ""]
      protocols:
        description: Versions of OpenFlow that the bridge speaks. An empty list means the default of Open vSwitch.
        type: list
        elements: str
        choices: [OpenFlow10, OpenFlow11, OpenFlow12, OpenFlow13, OpenFlow14, OpenFlow15]
      datapath_id:
        description: Identity of the bridge towards controllers, 16 hexadecimal digits. An empty text lets Open
          vSwitch choose.
        type: str
      other_config:
        description:
          - The settings in the column C(other_config) of the bridge; keys that are not given are removed.
          - C(datapath-id) is kept out of this, see O(bridges[].datapath_id).
        type: dict
      external_ids:
        description: The notes in the column C(external_ids) of the bridge; keys that are not given are removed.
        type: dict
      controllers:
        description: The OpenFlow controllers of the bridge; those that are not given are removed.
        type: list
        elements: dict
        suboptions:
          target:
            description: Where the controller is, such as V(ssl:192.0.2.1:6653).
            type: str
            required: true
          max_backoff_milliseconds:
            description: Longest time between two attempts to connect, at least 1000.
            type: int
          inactivity_probe_milliseconds:
            description: Silence after which the connection is probed, and closed after the same time again. 0
              switches it off.
            type: int
          connection_mode:
            description: Whether the connection may run through the bridge itself (V(in-band)) or does not
              (V(out-of-band)).
            type: str
            choices: [in-band, out-of-band]
      ports:
        description:
          - The ports that this call is about, each with one interface of the same name. Others are left alone.
          - A port that sits on another bridge moves to this one, with its settings.
        type: list
        elements: dict
        suboptions:
          name:
            description: Name of the port and of its interface, 1 to 15 characters.
            type: str
            required: true
          state:
            description: Whether the bridge has the port.
            type: str
            choices: [present, absent]
            default: present
          type:
            description:
              - Type of the interface, such as V(system) (a network device that exists), V(internal), V(vxlan) or
                V(patch).
              - A new port without it is of type V(system).
            type: str
          options:
            description: Options of the interface's type, such as C(remote_ip) and C(key); keys that are not given
              are removed.
            type: dict
          other_config:
            description: The column C(other_config) of the interface; keys that are not given are removed.
            type: dict
          external_ids:
            description: The column C(external_ids) of the interface; keys that are not given are removed.
            type: dict
          mtu:
            description: MTU that Open vSwitch sets on the interface, 0 to let it choose.
            type: int
  ssl:
    description:
      - Files of this host that Open vSwitch uses for C(ssl:) connections. All three, or none of them (V({})) to
        clear.
      - The files are read by C(ovs-vswitchd); it notices by itself when their content changes.
    type: dict
    suboptions:
      private_key:
        description: Path of the private key.
        type: path
      certificate:
        description: Path of the certificate.
        type: path
      ca_certificate:
        description: Path of the certificate of the authority that the peers' certificates are checked with.
        type: path
  other_config:
    description:
      - Settings of the whole Open vSwitch. Keys that are given are set, one with the value null is removed, others
        are left alone.
    type: dict
  external_ids:
    description:
      - Notes of the whole Open vSwitch, such as C(system-id). Keys that are given are set, one with the value null
        is removed,
        others are left alone.
    type: dict
  database:
    description: Where the C(Open_vSwitch) database listens.
    type: str
    default: unix:/run/openvswitch/db.sock
  wait_seconds:
    description:
      - How long to wait until C(ovs-vswitchd) has applied the configuration. V(0) does not wait and does not look
        for errors.
    type: int
    default: 30
seealso:
  - module: qiniu.qnet.qnet_vswitch_info
  - module: qiniu.qnet.qnet_pod
"""

EXAMPLES = r"""
- name: Set up the integration bridge
  qiniu.qnet.qnet_vswitch:
    ssl:
      private_key: /etc/qnet/pki/host.key
      certificate: /etc/qnet/pki/host.pem
      ca_certificate: /etc/qnet/pki/ca.pem
    bridges:
      - name: br-int
        datapath_type: netdev
        fail_mode: secure
        protocols: [OpenFlow15]
        datapath_id: 2f7c1a9de0b45310
        controllers:
          - target: ssl:192.0.2.11:6653
            max_backoff_milliseconds: 5000
            inactivity_probe_milliseconds: 5000
            connection_mode: out-of-band
        ports:
          - name: qnet-vxlan
            type: vxlan
            options:
              remote_ip: flow
              key: flow

- name: Put the underlay interface on a bridge of its own, with its MAC address
  qiniu.qnet.qnet_vswitch:
    bridges:
      - name: br-phy
        datapath_type: netdev
        fail_mode: standalone
        other_config:
          hwaddr: "{{ ansible_facts.default_ipv4.macaddress }}"
        ports:
          - name: eth0

- name: Remove the controllers of the integration bridge and leave the rest
  qiniu.qnet.qnet_vswitch:
    bridges:
      - name: br-int
        controllers: []

- name: Remove the integration bridge
  qiniu.qnet.qnet_vswitch:
    bridges:
      - name: br-int
        state: absent
"""

RETURN = r"""
vswitch:
  description: The wanted state of what the options mention, as it is (or in check mode would be) in the database.
  returned: success
  type: dict
  sample:
    bridges:
      br-int:
        controllers: {}
        datapath_type: netdev
        external_ids: {}
        fail_mode: secure
        other_config: {datapath-id: 2f7c1a9de0b45310}
        ports: {}
        protocols: [OpenFlow15]
interface_errors:
  description: Interface name to the error that C(ovs-vswitchd) reports, of all interfaces of the host, mentioned or
    not.
  returned: when not in check mode and O(wait_seconds) is not 0
  type: dict
  sample: {qnbf34dead9001: could not open network device qnbf34dead9001 (No such device)}
ovs_version:
  description: Version of Open vSwitch, null when C(ovs-vswitchd) never ran.
  returned: success
  type: str
  sample: 3.1.0
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.qiniu.qnet.plugins.module_utils import _vswitch
from ansible_collections.qiniu.qnet.plugins.module_utils._vswitch_db import DatabaseError
from ansible_collections.qiniu.qnet.plugins.module_utils._vswitch_plan import Refused

_CONTROLLER = {
    "target": {"type": "str", "required": True},
    "max_backoff_milliseconds": {"type": "int"},
    "inactivity_probe_milliseconds": {"type": "int"},
    "connection_mode": {"type": "str", "choices": ["in-band", "out-of-band"]},
}
_PORT = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "type": {"type": "str"},
    "options": {"type": "dict"},
    "other_config": {"type": "dict"},
    "external_ids": {"type": "dict"},
    "mtu": {"type": "int"},
}
_BRIDGE = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "datapath_type": {"type": "str", "choices": ["system", "netdev"]},
    "fail_mode": {"type": "str", "choices": ["secure", "standalone", ""]},
    "protocols": {
        "type": "list",
        "elements": "str",
        "choices": ["OpenFlow10", "OpenFlow11", "OpenFlow12", "OpenFlow13", "OpenFlow14", "OpenFlow15"],
    },
    "datapath_id": {"type": "str"},
    "other_config": {"type": "dict"},
    "external_ids": {"type": "dict"},
    "controllers": {"type": "list", "elements": "dict", "options": _CONTROLLER},
    "ports": {"type": "list", "elements": "dict", "options": _PORT},
}
_SSL = {
    "private_key": {"type": "path", "no_log": False},
    "certificate": {"type": "path"},
    "ca_certificate": {"type": "path"},
}
ARGUMENTS: dict[str, t.Any] = {
    "bridges": {"type": "list", "elements": "dict", "default": [], "options": _BRIDGE},
    "ssl": {
        "type": "dict",
        "options": _SSL,
        "required_together": [("private_key", "certificate", "ca_certificate")],
    },
    "other_config": {"type": "dict"},
    "external_ids": {"type": "dict"},
    "database": {"type": "str", "default": _vswitch.DEFAULT_DATABASE},
    "wait_seconds": {"type": "int", "default": 30},
}


def run(module: AnsibleModule) -> dict[str, t.Any]:
    """Apply the options and return what the module returns."""
    options = module.params
    database = _vswitch.connect(options["database"])
    outcome = _vswitch.apply(database, options, module.check_mode)
    result: dict[str, t.Any] = {
        "changed": outcome.changed,
        "vswitch": outcome.after,
        "diff": {"before": outcome.before, "after": outcome.after},
        "ovs_version": _vswitch.status(database)["ovs_version"],
    }
    if not module.check_mode and options["wait_seconds"] > 0:
        _vswitch.wait_until_applied(database, outcome.awaited, options["wait_seconds"])
        result["interface_errors"] = _vswitch.errors_by_interface(database)
        faults = _faults(options["bridges"], result["interface_errors"], _vswitch.bridges_without_datapath(database))
        if faults:
            module.fail_json(msg="\n".join(faults), **result)
    return result


def _faults(bridges: list[dict[str, t.Any]], errors: dict[str, str], dead: list[str]) -> list[str]:
    faults = []
    for bridge in bridges:
        if bridge["state"] == "absent":
            continue
        if bridge["name"] in dead:
            faults.append(
                f"bridge {bridge['name']}: ovs-vswitchd could not create its datapath: see its log; "
                "without the kernel module openvswitch (modprobe openvswitch) only datapath_type=netdev works"
            )
        names = [bridge["name"]] + [port["name"] for port in bridge["ports"] or [] if port["state"] == "present"]
        faults += [
            f"bridge {bridge['name']}, port {name}: {errors[name]}: see 'ovs-vsctl list interface {name}'"
            for name in dict.fromkeys(names)
            if name in errors
        ]
    return faults


def main() -> None:
    """Entry point of Ansible."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        result = run(module)
    except (Refused, DatabaseError, _vswitch.NotApplied) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
