# SPDX-License-Identifier: GPL-3.0-or-later
"""A host with an intent database, as the tests of qnet_pod need it."""

from __future__ import annotations

import json
import typing as t

from ansible_collections.qiniu.qnet.plugins.module_utils import _model
from ansible_collections.qiniu.qnet.tests.integration.ovs_fixture import Host

Options = dict[str, t.Any]
NETWORKS = [
    {"name": "prod", "vni": 100, "pod_subnets": ["10.10.0.0/16", "fd10::/64"], "service_subnets": ["10.96.0.0/16"]},
    {"name": "small", "vni": 101, "pod_subnets": ["10.11.0.0/24"], "mtu": 1300},
]
TENANTS = [
    {
        "name": "t",
        "security_groups": [
            {"name": "g", "services": [{"name": "s", "network": "prod"}, {"name": "tiny", "network": "small"}]}
        ],
    }
]
ONE, TWO = "g/s-1", "g/s-2"
PORT, OTHER_PORT = _model.port_name_of(ONE), _model.port_name_of(TWO)


class Site:
    """One host and its intent database."""

    def __init__(self, host: Host, remote: str) -> None:
        self.host = host
        self.remote = remote

    def pods(self, check_mode: bool = False, **options: t.Any) -> Options:
        """Run qnet_pod."""
        return self.host.module("qnet_pod", check_mode, **{"database": [self.remote], "mtu": 1400, **options})

    def declared(self) -> Options:
        """The declared pods, by name."""
        found = self.host.module("qnet_pod_info", database=[self.remote])
        return {f"{pod['group']}/{pod['name']}": pod for pod in found["pods"]}

    def ports(self) -> set[str]:
        """Ports of the bridge."""
        return set(self.host.run("ovs-vsctl", "list-ports", "br-int").split())

    def namespaces(self) -> set[str]:
        """Names of the namespaces on the host."""
        return {line.split()[0] for line in self.host.run("ip", "netns", "list").splitlines()}

    def inside(self, namespace: str, *command: str) -> str:
        """Run a command in a namespace by name."""
        return self.host.run("ip", "netns", "exec", namespace, *command)

    def reaches(self, namespace: str, address: str) -> bool:
        """Whether a ping from the namespace is answered."""
        return " 0% packet loss" in self.host.run(
            "ip", "netns", "exec", namespace, "ping", "-c1", "-W2", address, check=False
        )


def pods(*names: str, **options: t.Any) -> Options:
    return {"pods": [{"name": name, "service": "g/s"} for name in names], **options}


def good(result: Options) -> Options:
    assert "failed" not in result, result["msg"]
    return result


def prepare(site: Site) -> None:
    """The intent that the tests declare pods in, and the bridge."""
    good(site.host.module("qnet_tenant", database=[site.remote], networks=NETWORKS, tenants=TENANTS))
    good(site.host.module("qnet_vswitch", bridges=[{"name": "br-int", "datapath_type": "netdev"}]))


def links(site: Site) -> list[Options]:
    return t.cast("list[Options]", json.loads(site.host.run("ip", "-j", "link", "show", "type", "veth")))
