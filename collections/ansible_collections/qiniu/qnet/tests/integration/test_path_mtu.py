# SPDX-License-Identifier: GPL-3.0-or-later
"""qnet-path-mtu on a host with the datapath in user space, behind a router of the kernel whose other side is narrow."""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from ansible_collections.qiniu.qnet.tests.integration.ovs_fixture import Host, reason_to_skip, wait_until

pytestmark = pytest.mark.skipif(reason_to_skip() is not None, reason=str(reason_to_skip()))
FILES = pathlib.Path(__file__).resolve().parents[6] / "roles/underlay/files"
NARROW = 1400
VIRTUAL_MAC = "0a:00:00:00:00:01"
# Of the underlay, by version: this host, the router, the other host, and what the tunnel adds to a packet.
UNDERLAYS = {
    4: ("192.0.2.1/24", "192.0.2.254/24", "198.51.100.2", 50),
    6: ("2001:db8::1/64", "2001:db8::fe/64", "2001:db8:1::2", 70),
}
PEERS = {4: "10.10.0.3", 6: "fd10::3"}


@pytest.fixture(params=[4, 6], ids=["over IPv4", "over IPv6"])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def host(tmp_path: pathlib.Path, target_python: str, import_path: str, version: int) -> Iterator[Host]:
    """A host with a pod, whose flows know one other host; what that sends through the tunnel goes to the pod."""
    own, via, other, dummy_overhead = UNDERLAYS[version]
    (tmp_path / "router").mkdir()
    host, router = Host(tmp_path, target_python, import_path), Host(tmp_path / "router", target_python, import_path)
    try:
        router.start(switch=False)
        host.start()
        host.run("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "eth1", "netns", str(router.pid))
        route(router, via, other)
        host.run("ip", "address", "add", own, "dev", "eth1", *(["nodad"] if version == 6 else []))
        for device, end in ((host, "eth1"), (router, "eth1")):
            device.run("ip", "link", "set", end, "up")
            device.run("ethtool", "-K", end, "tx", "off")
        switch(host, own.partition("/")[0], other, version)
        host.run("ip", "route", "add", "default", "via", via.partition("/")[0], "dev", "br-phy")
        yield host
    finally:
        host.stop()
        router.stop()


def route(router: Host, via: str, other: str) -> None:
    """A router between the host and a network that carries less."""
    router.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
    router.run("ip", "address", "add", via, "dev", "eth1", *(["nodad"] if ":" in via else []))
    router.run("ip", "link", "add", "beyond", "mtu", str(NARROW), "type", "veth", "peer", "name", "end")
    for device in ("beyond", "end"):
        router.run("ip", "link", "set", device, "up")
    router.run("ip", "route", "add", other, "dev", "beyond")


def switch(host: Host, own: str, other: str, version: int) -> None:
    """br-phy, br-int with its tunnel, and a pod."""
    netdev = "datapath_type=netdev"
    host.run("ovs-vsctl", "add-br", "br-phy", "--", "set", "bridge", "br-phy", netdev)
    host.run("ovs-vsctl", "add-port", "br-phy", "eth1")
    host.run("python3", str(FILES / "qnet_underlay.py"), "attach", "eth1", "br-phy")
    host.run("ip", "netns", "add", "pod")
    mtu = ("mtu", "1450")
    host.run("ip", "link", "add", "pod0", *mtu, "type", "veth", "peer", "name", "eth0", *mtu, "netns", "pod")
    host.run("ip", "link", "set", "pod0", "up")
    inside = ("ip", "-n", "pod")
    host.run("ip", "netns", "exec", "pod", "ethtool", "-K", "eth0", "tx", "off")
    host.run(*inside, "link", "set", "eth0", "up")
    for address, peer in (("10.10.0.2/16", PEERS[4]), ("fd10::2/64", PEERS[6])):
        host.run(*inside, "address", "add", address, "dev", "eth0", *(["nodad"] if ":" in address else []))
        host.run(*inside, "neighbour", "add", peer, "lladdr", VIRTUAL_MAC, "nud", "permanent", "dev", "eth0")
    tunnel = ("type=vxlan", "options:remote_ip=flow", "options:key=flow")
    host.run(
        "ovs-vsctl", "add-br", "br-int", "--", "set", "bridge", "br-int", netdev, "fail_mode=secure",
        "--", "add-port", "br-int", "qnet-vxlan", "--", "set", "interface", "qnet-vxlan", *tunnel,
        "--", "add-port", "br-int", "pod0",
    )  # fmt: skip
    end = "tun" if version == 4 else "tun_ipv6"
    for flow in (
        f"in_port=pod0,actions=set_field:{other}->{end}_dst,set_field:100->tun_id,output:qnet-vxlan",
        f"in_port=qnet-vxlan,tun_id=100,{end}_src={other},{end}_dst={own},actions=output:pod0",
    ):
        host.run("ovs-ofctl", "-O", "OpenFlow15", "add-flow", "br-int", flow)


@pytest.mark.parametrize("inner", [4, 6], ids=["IPv4", "IPv6"])
def test_a_pod_is_told_what_its_path_carries(host: Host, version: int, inner: int) -> None:
    own, dummy_via, dummy_other, overhead = UNDERLAYS[version]
    told = f"mtu = {NARROW - overhead}" if inner == 4 else f"mtu={NARROW - overhead}"
    large = ("ping", "-c1", "-W1", "-M", "do", "-s", "1360", PEERS[inner])

    def said() -> str:
        # What the pod has learnt is forgotten, so that each try is a packet on the wire.
        host.run("ip", "-n", "pod", f"-{inner}", "route", "flush", "cache")
        return host.run("ip", "netns", "exec", "pod", *large, check=False)

    assert "mtu" not in said()
    argv = ("python3", "-u", str(FILES / "qnet_path_mtu.py"), own.partition("/")[0])
    with host.popen(*argv, stderr=subprocess.PIPE) as program:
        try:
            wait_until(lambda: told in said(), 30)
            assert program.poll() is None
        finally:
            program.kill()
