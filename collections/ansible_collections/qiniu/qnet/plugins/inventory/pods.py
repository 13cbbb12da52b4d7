# Copyright (c) qnet authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inventory plugin qiniu.qnet.pods."""

from __future__ import annotations

DOCUMENTATION = r"""
name: pods
short_description: Pods as hosts of the inventory
version_added: 0.1.0
author:
  - qnet contributors (@qnet)
description:
  - Adds every pod that C(qnet_tenants) asks for as a host. Tasks on it run inside of the pod; Ansible comes in by way
    of the host that the pod is placed on, with that host's connection variables.
  - Comes after the sources that it reads, so give it last, for example as C(-i inventories/fop -i pods.qnet.yml), or
    let its name sort last in a directory.
  - A pod is called C(<group>.<pod>), as its network namespace is. Pods are in the groups C(pods), C(pods_of_<group>),
    C(pods_of_<group>_<service>) and C(pods_on_<host>). Characters that a group cannot have become underscores.
options:
  plugin:
    description: Says that the file is meant for this plugin.
    type: str
    required: true
    choices: [qiniu.qnet.pods]
  switches:
    description: The inventory group of the hosts that carry the pods of services that name none.
    type: str
    default: switches
seealso:
  - plugin: qiniu.qnet.pod
    plugin_type: become
"""

EXAMPLES = r"""
# pods.qnet.yml
plugin: qiniu.qnet.pods

# What does every pod of the service fop/image see as its way out?
#   ansible -i inventories/fop -i .lab/qnet/hosts.yml -i pods.qnet.yml pods_of_fop_image -m command -a "ip route"
"""

from typing import Any  # noqa: E402

from ansible.errors import AnsibleParserError  # noqa: E402
from ansible.inventory.helpers import sort_groups  # noqa: E402
from ansible.plugins.inventory import BaseInventoryPlugin, Constructable  # noqa: E402
from ansible.utils.vars import combine_vars  # noqa: E402
from ansible.vars.plugins import get_vars_from_inventory_sources  # noqa: E402

from ansible_collections.qiniu.qnet.plugins.plugin_utils.placement import PlacementError, place  # noqa: E402

SUFFIXES = ("qnet.yml", "qnet.yaml")
PLACED = ("qnet_pod", "qnet_pod_service", "qnet_pod_network", "qnet_pod_host", "qnet_pod_addresses")
"""Variables of a pod: its name and its service as group/…, its network, its host, and the addresses it is given."""


class InventoryModule(BaseInventoryPlugin, Constructable):
    """Reads what other sources have put into the inventory and adds the pods."""

    NAME = "qiniu.qnet.pods"

    def verify_file(self, path: str) -> bool:
        """Whether the source is for this plugin: a file called *.qnet.yml."""
        return bool(super().verify_file(path)) and path.endswith(SUFFIXES)

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Add pods and their groups. AnsibleParserError when a pod has no host that is in the inventory."""
        super().parse(inventory, loader, path, cache=cache)
        self._read_config_data(path)
        switches = inventory.groups.get(self.get_option("switches"))
        hosts = [host.name for host in switches.get_hosts()] if switches else []
        try:
            pods = place(self._tenants(inventory, loader), hosts)
        except PlacementError as error:
            raise AnsibleParserError(f"{path}: qnet_tenants: {error}") from None
        for pod in pods:
            self._add(inventory, loader, path, pod)

    def _tenants(self, inventory: Any, loader: Any) -> list[dict[str, Any]]:
        everyone = inventory.groups["all"]
        variables = self._variables(inventory, loader, everyone)
        self.templar.available_variables = {**variables, "groups": self._groups(inventory)}
        tenants: list[dict[str, Any]] = self.templar.template(variables.get("qnet_tenants") or [])
        return tenants

    @staticmethod
    def _groups(inventory: Any) -> dict[str, list[str]]:
        return {name: [host.name for host in group.get_hosts()] for name, group in inventory.groups.items()}

    @staticmethod
    def _variables(inventory: Any, loader: Any, entity: Any) -> dict[str, Any]:
        sources = inventory.processed_sources
        found = get_vars_from_inventory_sources(loader, sources, [entity], "all")
        combined: dict[str, Any] = combine_vars(entity.get_vars(), found)
        return combined

    def _add(self, inventory: Any, loader: Any, path: str, pod: dict[str, Any]) -> None:
        host = inventory.hosts.get(pod["host"])
        if host is None:
            where = f"{path}: qnet_tenants: pod {pod['name']} is placed on {pod['host']}"
            raise AnsibleParserError(
                f"{where}, which is no host of the sources before this one; add it or place it elsewhere"
            )
        group, dummy, own = pod["name"].partition("/")
        name = f"{group}.{own}"
        inventory.add_host(name)
        variables: dict[str, Any] = {}
        for entity in (*sort_groups(host.get_groups()), host):
            variables = combine_vars(variables, self._variables(inventory, loader, entity))
        carried = {key: value for key, value in variables.items() if key.startswith("ansible_")}
        values = (pod["name"], pod["service"], pod["network"], pod["host"], pod.get("addresses", []))
        described = {
            "ansible_host": pod["host"],
            **carried,
            **dict(zip(PLACED, values, strict=True)),
            "ansible_become": True,
            "ansible_become_method": "qiniu.qnet.pod",
            "ansible_pod_namespace": name,
        }
        for key, value in described.items():
            inventory.set_variable(name, key, value)
        service = pod["service"].replace("/", "_")
        for member_of in ("pods", f"pods_of_{group}", f"pods_of_{service}", f"pods_on_{pod['host']}"):
            inventory.add_child(inventory.add_group(self._sanitize_group_name(member_of)), name)
