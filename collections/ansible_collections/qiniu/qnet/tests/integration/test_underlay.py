# SPDX-License-Identifier: GPL-3.0-or-later
"""qnet-underlay, which moves addresses and routes between a card and a bridge, on devices of the kernel."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from ansible_collections.qiniu.qnet.tests.integration.ovs_fixture import Host, reason_to_skip

pytestmark = pytest.mark.skipif(reason_to_skip() is not None, reason=str(reason_to_skip()))
PROGRAM = pathlib.Path(__file__).resolve().parents[6] / "roles/underlay/files/qnet_underlay.py"
ADDRESSES = {"192.0.2.1/24", "2001:db8::1/64"}


@pytest.fixture
def host(tmp_path: pathlib.Path, target_python: str, import_path: str) -> Iterator[Host]:
    """A host with a card that has addresses and routes of both families, and a bridge that has none."""
    host = Host(tmp_path, target_python, import_path)
    try:
        host.start(switch=False)
        host.run("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "wire")
        host.run("ip", "link", "add", "br-phy", "type", "bridge")
        for device in ("wire", "eth1"):
            host.run("ip", "link", "set", device, "up")
        host.run("ip", "address", "add", "192.0.2.1/24", "dev", "eth1")
        host.run("ip", "address", "add", "2001:db8::1/64", "dev", "eth1", "nodad")
        host.run("ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.254", "dev", "eth1")
        host.run("ip", "-6", "route", "add", "2001:db8:1::/64", "via", "2001:db8::fe", "dev", "eth1")
        yield host
    finally:
        host.stop()


def of(host: Host, device: str) -> tuple[set[str], set[str]]:
    """The addresses of a device, and where its routes through gateways lead."""
    shown = host.run("ip", "-oneline", "address", "show", "dev", device, "scope", "global").splitlines()
    routes = host.run("sh", "-c", f"ip route show dev {device}; ip -6 route show dev {device}").splitlines()
    return {line.split()[3] for line in shown}, {line.split()[0] for line in routes if " via " in line}


def test_addresses_and_routes_move_to_the_bridge_and_back(host: Host) -> None:
    everything = (ADDRESSES, {"198.51.100.0/24", "2001:db8:1::/64"})
    for dummy in range(2):
        host.run("python3", str(PROGRAM), "attach", "eth1", "br-phy")
        assert (of(host, "br-phy"), of(host, "eth1")) == (everything, (set(), set()))
    host.run("python3", str(PROGRAM), "detach", "eth1", "br-phy")
    assert (of(host, "br-phy"), of(host, "eth1")) == ((set(), set()), everything)


def test_what_cannot_be_moved_as_a_whole_stays_where_it_was(host: Host) -> None:
    host.run("sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/br-phy/disable_ipv6")
    said = host.run("python3", str(PROGRAM), "attach", "eth1", "br-phy", check=False)
    assert "qnet-underlay: `ip -batch -` failed" in said
    assert of(host, "eth1") == (ADDRESSES, {"198.51.100.0/24", "2001:db8:1::/64"})
    assert of(host, "br-phy") == (set(), set())
