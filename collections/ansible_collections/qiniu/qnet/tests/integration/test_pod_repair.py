# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that can be half made or spoiled about a pod is repaired by running qnet_pod again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from ansible_collections.qiniu.qnet.tests.conftest import start_database
from ansible_collections.qiniu.qnet.tests.integration.ovs_fixture import Host, reason_to_skip, wait_until
from ansible_collections.qiniu.qnet.tests.integration.pod_site import (
    ONE,
    OTHER_PORT,
    PORT,
    TWO,
    Site,
    good,
    links,
    pods,
    prepare,
)

pytestmark = pytest.mark.skipif(reason_to_skip() is not None, reason=str(reason_to_skip()))


@pytest.fixture(scope="module")
def attached(tmp_path_factory: pytest.TempPathFactory, target_python: str, import_path: str) -> Iterator[Site]:
    """A site with two pods, which every test leaves as it found it."""
    directory = tmp_path_factory.mktemp("attached")
    host = Host(directory, target_python, import_path)
    with contextlib.contextmanager(start_database)(directory) as database:
        try:
            site = Site(host.start(), database.remote)
            prepare(site)
            good(site.pods(**pods(ONE, TWO)))
            yield site
        finally:
            host.stop()


def in_pod(*command: str) -> Callable[[Site], object]:
    return lambda site: site.inside("g.s-1", *command)


def on_host(*command: str) -> Callable[[Site], object]:
    return lambda site: site.host.run(*command)


def rebooted(site: Site) -> None:
    """What a reboot leaves: the database of Open vSwitch, and nothing else."""
    site.host.run("ip", "netns", "delete", "g.s-1")
    site.host.run("ip", "netns", "delete", "g.s-2")
    wait_until(lambda: "type veth" not in site.host.run("ip", "link", "show", "type", "veth") and not links(site), 5)
    site.host.kill("ovs-vswitchd")
    site.host.start_daemon()


def left_a_plain_file(site: Site) -> None:
    """What a kill between making the file and mounting the namespace on it leaves."""
    site.host.run("ip", "netns", "delete", "g.s-1")
    site.host.run("touch", "/run/netns/g.s-1")


def strange_interface(site: Site) -> None:
    site.inside("g.s-1", "ip", "link", "delete", "eth0")
    site.inside("g.s-1", "ip", "link", "add", "name", "eth0", "type", "veth", "peer", "name", "x0")


HALVES: dict[str, Callable[[Site], object]] = {
    "no port": on_host("ovs-vsctl", "del-port", PORT),
    "no veth": on_host("ip", "link", "delete", PORT),
    "no namespace": on_host("ip", "netns", "delete", "g.s-1"),
    "a plain file for a namespace": left_a_plain_file,
    "another interface of that name": strange_interface,
    "after a reboot": rebooted,
    "host interface down": on_host("ip", "link", "set", PORT, "down"),
    "host interface with arp": on_host("ip", "link", "set", PORT, "arp", "on"),
    "host interface with another mtu": on_host("ip", "link", "set", PORT, "mtu", "1500"),
    "host interface unguarded": on_host("sh", "-c", f"echo 0 > /proc/sys/net/ipv4/conf/{PORT}/rp_filter"),
    "wrong mac": in_pod("ip", "link", "set", "eth0", "address", "02:00:00:00:00:77"),
    "wrong mtu": in_pod("ip", "link", "set", "eth0", "mtu", "1500"),
    "interface down": in_pod("ip", "link", "set", "eth0", "down"),
    "no address": in_pod("ip", "addr", "flush", "dev", "eth0", "scope", "global"),
    "no IPv6 address": in_pod("ip", "addr", "delete", "fd10::2/64", "dev", "eth0"),
    "one address too many": in_pod("ip", "addr", "add", "10.10.0.99/16", "dev", "eth0"),
    "wrong prefix length": in_pod(
        "sh", "-c", "ip addr delete 10.10.0.2/16 dev eth0; ip addr add 10.10.0.2/24 dev eth0"
    ),
    "no default route": in_pod("ip", "route", "delete", "default"),
    "no IPv6 default route": in_pod("ip", "-6", "route", "delete", "default"),
    "wrong default route": in_pod("ip", "route", "replace", "default", "via", "10.10.0.77"),
    "a second default route": in_pod("ip", "route", "add", "default", "via", "10.10.0.77", "metric", "9"),
    "no route to the subnet": in_pod("ip", "route", "delete", "10.10.0.0/16"),
    "no IPv6 route to the subnet": in_pod("ip", "-6", "route", "delete", "fd10::/64"),
    "checksums offloaded": in_pod("ethtool", "-K", "eth0", "tx", "on"),
    "IPv6 off": in_pod("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6"),
    "accepts router advertisements": in_pod("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/eth0/accept_ra"),
    "port says another address": on_host("ovs-vsctl", "set", "interface", PORT, "external_ids:qnet-addresses=1.2.3.4"),
    "port says nothing": on_host("ovs-vsctl", "clear", "interface", PORT, "external_ids"),
    "port on another bridge": on_host(
        "sh", "-c", f"ovs-vsctl --may-exist add-br br-x -- set bridge br-x datapath_type=netdev -- del-port {PORT}"
        f" -- add-port br-x {PORT}"
    ),
}  # fmt: skip


@pytest.mark.parametrize("half", HALVES)
def test_a_half_made_pod_is_repaired(attached: Site, half: str) -> None:
    HALVES[half](attached)
    foreseen = good(attached.pods(True, **pods(ONE, TWO)))
    assert foreseen["changed"] is True
    repaired = good(attached.pods(**pods(ONE, TWO)))
    assert repaired["changed"] is True
    assert repaired["diff"] == foreseen["diff"]
    again = good(attached.pods(**pods(ONE, TWO)))
    assert again["changed"] is False, again["diff"]
    assert attached.ports() == {PORT, OTHER_PORT}
    assert attached.reaches("g.s-2", "10.10.0.2")
    assert attached.reaches("g.s-1", "fd10::3")
