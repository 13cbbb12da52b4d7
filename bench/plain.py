# SPDX-License-Identifier: Apache-2.0
"""Peers without a controller: plain Open vSwitch on the same hosts, a DNAT map of nftables between two namespaces."""

from __future__ import annotations

from bench.pods import Fleet

from contract.real import run

PLAIN_CLIENT, PLAIN_SERVER = "10.9.0.1", "10.9.0.2"
NFT_SERVICE, NFT_CLIENT, NFT_SERVER = "10.8.0.10", "10.7.0.1", "10.7.0.2"
_KEY = 4711


def plain_ovs(fleet: Fleet, client_host: str, server_host: str) -> tuple[str, str]:
    """A learning bridge (NORMAL) with a tunnel on the switches of two hosts; returns the namespaces of both ends."""
    ends = ((client_host, server_host, PLAIN_CLIENT, "pc"), (server_host, client_host, PLAIN_SERVER, "ps"))
    for here, there, address, name in ends:
        host, namespace = fleet.hosts[here], f"{fleet.prefix}{name}"
        fleet.add_namespace(namespace)
        fleet.ip(host.namespace, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        fleet.ip(host.namespace, "link", "set", name, "up")
        fleet.ip(namespace, "link", "set", "eth0", "mtu", "1400", "up")
        fleet.ip(namespace, "addr", "add", f"{address}/24", "dev", "eth0")
        run("ip", "netns", "exec", namespace, "ethtool", "-K", "eth0", "tx", "off")
        remote = f"options:remote_ip=10.200.1.{fleet.hosts[there].number}"
        host.vsctl(
            "add-br", "br-plain", "--", "set", "bridge", "br-plain", "datapath_type=netdev", "fail_mode=standalone",
            "--", "add-port", "br-plain", name, "--", "add-port", "br-plain", "plain-vxlan",
            "--", "set", "interface", "plain-vxlan", "type=vxlan", remote, f"options:key={_KEY}",
        )  # fmt: skip
    return f"{fleet.prefix}pc", f"{fleet.prefix}ps"


def nftables_map(fleet: Fleet) -> tuple[str, str]:
    """Two namespaces with a wire; the client's kernel translates the service address by a map, as kube-proxy does."""
    client, server = f"{fleet.prefix}nc", f"{fleet.prefix}ns"
    fleet.add_namespace(client)
    fleet.add_namespace(server)
    fleet.ip(client, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", server)
    for namespace, address in ((client, NFT_CLIENT), (server, NFT_SERVER)):
        fleet.ip(namespace, "addr", "add", f"{address}/24", "dev", "eth0")
        fleet.ip(namespace, "link", "set", "eth0", "up")
    fleet.ip(client, "route", "add", "default", "via", NFT_SERVER)
    chain = (
        "add table ip bench; add chain ip bench out { type nat hook output priority -100; }; add rule ip bench out "
        f"ip daddr {NFT_SERVICE} tcp dport 1-65535 dnat to jhash ip saddr . tcp sport mod 1 map {{ 0 : {NFT_SERVER} }}"
    )
    run("ip", "netns", "exec", client, "nft", chain)
    return client, server
