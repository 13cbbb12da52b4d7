# SPDX-License-Identifier: GPL-3.0-or-later
"""qnet_mesh on two hosts with a router between them, and what it says when that is broken."""

from __future__ import annotations

import pathlib
import typing as t
from collections.abc import Iterator

import pytest

from ansible_collections.qiniu.qnet.plugins.plugin_utils.mesh_report import Host as Judged
from ansible_collections.qiniu.qnet.plugins.plugin_utils.mesh_report import report
from ansible_collections.qiniu.qnet.tests.integration.ovs_fixture import Host, reason_to_skip

pytestmark = pytest.mark.skipif(reason_to_skip() is not None, reason=str(reason_to_skip()))
ADDRESS = {"h1": "192.0.2.1", "h2": "198.51.100.1"}
GATEWAY = {"h1": "192.0.2.254", "h2": "198.51.100.254"}


class Mesh:
    """Two hosts and the router."""

    def __init__(self, hosts: dict[str, Host], router: Host) -> None:
        self.hosts, self.router = hosts, router

    def faults(self, mtu: int = 1500) -> list[str]:
        """One examination, as the playbook does it."""
        asked: dict[str, t.Any] = {}
        for host in self.hosts.values():
            assert "failed" not in host.module("qnet_mesh", state="listening", interface="eth1")
        for name, host in self.hosts.items():
            peers = [{"name": other, "address": ADDRESS[other]} for other in self.hosts if other != name]
            options = {"name": name, "local": ADDRESS[name], "peers": peers, "mtu": mtu, "timeout_seconds": 0.2}
            asked[name] = host.module("qnet_mesh", **options)
        judged = []
        for name, host in self.hosts.items():
            heard = host.module("qnet_mesh", state="heard")["heard"]
            judged.append(Judged(name, ADDRESS[name], asked[name]["ways"], heard))
        return t.cast("list[str]", report(judged, mtu)["faults"])


@pytest.fixture
def mesh(tmp_path: pathlib.Path, target_python: str, import_path: str) -> Iterator[Mesh]:
    made: dict[str, Host] = {}
    try:
        for name in ("router", "h1", "h2"):
            (tmp_path / name).mkdir()
            made[name] = Host(tmp_path / name, target_python, import_path).start(switch=False)
        router, hosts = made["router"], {name: made[name] for name in ADDRESS}
        for name, host in hosts.items():
            host.run("ip", "link", "add", "eth1", "type", "veth", "peer", "name", name, "netns", str(router.pid))
            host.run("ip", "address", "add", f"{ADDRESS[name]}/24", "dev", "eth1")
            host.run("ip", "link", "set", "eth1", "up")
            router.run("ip", "address", "add", f"{GATEWAY[name]}/24", "dev", name)
            router.run("ip", "link", "set", name, "up")
            host.run("ip", "route", "add", "default", "via", GATEWAY[name])
        router.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
        yield Mesh(hosts, router)
    finally:
        for host in made.values():
            host.stop()


def test_a_routed_underlay_is_well(mesh: Mesh) -> None:
    assert mesh.faults() == []


def test_a_firewall_that_drops_one_direction_is_named(mesh: Mesh) -> None:
    mesh.router.run("nft", "add table ip f; add chain ip f f { type filter hook forward priority 0; }")
    mesh.router.run("nft", "add rule ip f f ip daddr 198.51.100.1 udp dport 4789 drop")
    assert mesh.faults() == [
        "h1 -> h2: firewall: echoes pass, UDP port 4789 from h1 does not arrive at h2",
    ]


def test_a_path_with_a_smaller_mtu_is_named_with_its_size(mesh: Mesh) -> None:
    mesh.router.run("ip", "link", "set", "h2", "mtu", "1400")
    assert "h1 -> h2: MTU: the path carries 1400, the overlay needs 1500" in mesh.faults()


def test_a_missing_route_is_named(mesh: Mesh) -> None:
    mesh.hosts["h1"].run("ip", "route", "delete", "default")
    assert [fault for fault in mesh.faults() if fault.startswith("h1 -> h2: route: h1 has none")]


def test_a_host_that_is_gone_is_named(mesh: Mesh) -> None:
    mesh.hosts["h2"].run("ip", "link", "set", "eth1", "down")
    assert [fault for fault in mesh.faults() if fault.startswith("h1 -> h2: nothing from h1 arrives")]
