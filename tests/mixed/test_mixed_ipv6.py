# SPDX-License-Identifier: Apache-2.0
"""Tunnels over IPv6 between all kinds of hosts, through the router: the running fleet goes over to it, and back."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from tests.e2e.fleet import Fleet, Pod
from tests.mixed.test_mixed import IP_HEADERS, pings, pod_on

pytestmark = pytest.mark.timeout(7200)
ROUTER = 2
OVERLAY_MTU = 1430


def devices(fleet: Fleet) -> dict[str, tuple[str, str, int]]:
    """Host -> the device its tunnels end at, the prefix of its underlay and the end of its address there."""
    return {
        host: ("eth1" if host in fleet.virtual else "br-phy", f"fd20:{number % 2 + 1}", 101 + number)
        for number, host in enumerate(fleet.groups["switches"])
    }


def on_router(fleet: Fleet, line: str) -> None:
    """A command on the router of the lab."""
    argv = ["podman", "--runtime", "runc", "exec", f"{fleet.name}-r1", "sh", "-ec", line]
    subprocess.run(argv, check=True, capture_output=True, timeout=60)


@pytest.fixture
def wide(fop: Fleet, tmp_path: Path) -> Iterator[Path]:
    """IPv6 on the underlays; an inventory that has the tunnels end there."""
    on_router(
        fop,
        "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding;"
        + "".join(f"ip address replace fd20:{n + 1}::{ROUTER}/64 dev eth{n} nodad;" for n in (0, 1)),
    )
    ends = {}
    for host, (device, prefix, last) in devices(fop).items():
        other = "fd20:2" if prefix == "fd20:1" else "fd20:1"
        ends[host] = f"{prefix}::{last}"
        fop.run(host, "ip", "address", "replace", f"{ends[host]}/64", "dev", device, "nodad")
        fop.run(host, "ip", "route", "replace", f"{other}::/64", "via", f"{prefix}::{ROUTER}", "dev", device)
    inventory = tmp_path / "wide.yml"
    hosts = {host: {"underlay_vtep_address": address} for host, address in ends.items()}
    inventory.write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    yield inventory
    fop.play("site", "fop")
    for host, (device, prefix, last) in devices(fop).items():
        fop.run(host, "ip", "address", "delete", f"{prefix}::{last}/64", "dev", device)


def test_tunnels_over_ipv6_carry_everything(fop: Fleet, pods: dict[str, Pod], wide: Path) -> None:
    fop.play("site", "fop", "-i", str(wide))
    assert fop.play("site", "fop", "-i", str(wide)).changed == {}
    fop.play("verify", "fop", "-i", str(wide))
    for host in fop.groups["switches"]:
        flows = fop.run(host, "ovs-ofctl", "-O", "OpenFlow15", "dump-flows", "br-int")
        assert "tun_ipv6_src=fd20:" in flows  # members are let in by their address, and nobody else
        assert "tun_src=172." not in flows
    whole = OVERLAY_MTU - IP_HEADERS
    hosts = fop.groups["switches"]
    for sender, receiver in pairwise([*hosts, hosts[0]]):
        pod, peer = pod_on(pods, sender), pod_on(pods, receiver)
        assert " 0% packet loss" in pings(fop, pod, peer.address, "-c2", "-M", "do", "-s", str(whole))
        assert "essage too long" in pings(fop, pod, peer.address, "-c1", "-M", "do", "-s", str(whole + 1))
