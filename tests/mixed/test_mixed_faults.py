# SPDX-License-Identifier: Apache-2.0
"""What happens to hosts while the fleet runs: noticed, put right by the system or the play; others do not notice."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from tests.e2e.fleet import Fleet, Pod, eventually
from tests.mixed.conftest import lab_up
from tests.mixed.test_mixed import PORT, pings, pod_on

pytestmark = pytest.mark.timeout(7200)
OTHERS_WAIT_SECONDS = 3.0  # on a busy machine; a connection that is broken never goes on


@contextmanager
def untouched(fleet: Fleet, caller: Pod, server: Pod) -> Iterator[None]:
    """A connection between two pods goes on while the block runs, without a line lost."""
    with (
        fleet.serving([server], "serve-tcp", "{}", PORT, 900),
        fleet.running(caller, "probe.py", "hold", server.address, PORT, 900, 0.05) as held,
    ):
        held.wait_until_ready()
        yield
        seen = held.stop()
    assert seen["lines"] > 20
    assert seen["longest"] < OTHERS_WAIT_SECONDS


def reaches(fleet: Fleet, pod: Pod, peer: Pod) -> bool:
    """Whether an echo from a pod to another is answered."""
    return " 0% packet loss" in pings(fleet, pod, peer.address, "-c1")


@pytest.mark.parametrize("host", ["h1", "v1"])
def test_open_vswitch_restarted(fop: Fleet, pods: dict[str, Pod], host: str) -> None:
    others = [name for name in fop.groups["switches"] if name != host]
    with untouched(fop, pod_on(pods, others[0]), pod_on(pods, others[1])):
        fop.run(host, "systemctl", "restart", "openvswitch-switch")
        here, there = pod_on(pods, host), pod_on(pods, others[0])
        eventually(lambda: reaches(fop, here, there), 60, f"{here.name} is back after a restart of Open vSwitch")
    assert fop.play("site", "fop").changed == {}


@pytest.mark.parametrize("host", ["h1", "v1"])
def test_a_host_that_was_rebooted_has_its_pods_again_without_a_play(
    fop: Fleet, pods: dict[str, Pod], host: str
) -> None:
    others = [name for name in fop.groups["switches"] if name != host]
    with untouched(fop, pod_on(pods, others[0]), pod_on(pods, others[1])):
        reboot(fop, host)
        eventually(lambda: fop.pods() == pods, 120, f"the pods of {host} are back")
        fop.install_scripts()  # they were in /run
    fop.play("verify", "fop")
    assert fop.play("site", "fop").changed == {}


def reboot(fleet: Fleet, host: str) -> None:
    """Boot a host anew, and wait until it lets people in."""
    if host in fleet.virtual:
        booted = fleet.run(host, "cat", "/proc/sys/kernel/random/boot_id")
        fleet.run(host, "sh", "-c", "systemctl reboot", check=False)
        eventually(
            lambda: fleet.run(host, "cat", "/proc/sys/kernel/random/boot_id", check=False) not in ("", booted),
            300,
            f"{host} has booted",
        )
    else:
        subprocess.run(["podman", "--runtime", "runc", "stop", "--time", "30", f"{fleet.name}-{host}"], check=True)
        lab_up()
        # Meanwhile the bridge of the lab has sent frames back to the host, as no network does (forbid_reflection).
        fleet.run(host, "ovs-appctl", "fdb/flush", "br-phy")


def test_the_mtu_of_an_underlay_is_lowered(fop: Fleet, pods: dict[str, Pod]) -> None:
    """The mesh names the host, the play gives all pods the MTU that is left, and the same back again."""
    h2, (one, other) = pod_on(pods, "h2"), [name for name in fop.groups["switches"] if name != "h2"]
    try:
        fop.run("h2", "ip", "link", "set", "dev", "eth1", "mtu", "1400")
        found = fop.try_play("mesh", "fop")
        assert found.status != 0
        assert "MTU" in found.output, found.output[-3000:]
        with untouched(fop, pod_on(pods, one), pod_on(pods, other)):
            fop.play("site", "fop")
        assert "mtu 1350" in fop.run("h2", "ip", "netns", "exec", h2.namespace, "ip", "link", "show", "dev", "eth0")
        fop.play("verify", "fop")
    finally:
        fop.run("h2", "ip", "link", "set", "dev", "eth1", "mtu", "1500")
        fop.play("site", "fop")
    assert "mtu 1450" in fop.run("h2", "ip", "netns", "exec", h2.namespace, "ip", "link", "show", "dev", "eth0")


@pytest.mark.parametrize(("host", "device"), [("h1", "br-phy"), ("v1", "eth1")])
def test_the_address_of_a_tunnel_end_point_is_another_one(
    fop: Fleet, pods: dict[str, Pod], host: str, device: str
) -> None:
    others = [name for name in fop.groups["switches"] if name != host]
    shown = yaml.safe_load(fop.run(host, "ip", "-json", "-4", "address", "show", "dev", device))[0]["addr_info"][0]
    old, length = shown["local"], shown["prefixlen"]
    new = f"{old.rpartition('.')[0]}.77"
    routes = fop.run(host, "ip", "-4", "route", "show", "dev", device).splitlines()

    def change(before: str, after: str) -> None:
        lines = [f"address delete {before}/{length} dev {device}", f"address add {after}/{length} dev {device}"]
        lines += [f"route replace {route} dev {device}" for route in routes if " via " in route]
        fop.run(host, "sh", "-c", f"printf '%s\\n' {shlex.join(lines)} | ip -batch -")

    try:
        with untouched(fop, pod_on(pods, others[0]), pod_on(pods, others[1])):
            change(old, new)
            found = fop.try_play("mesh", "fop")
            assert found.status != 0
            assert "wrong VTEP" in found.output, found.output[-3000:]
            fop.play("site", "fop")
        fop.play("verify", "fop")
    finally:
        change(new, old)
        fop.play("site", "fop")


@pytest.mark.parametrize("host", ["h2", "v1"])
def test_the_card_has_another_name(fop: Fleet, pods: dict[str, Pod], host: str, tmp_path: Path) -> None:
    others = [name for name in fop.groups["switches"] if name != host]
    renamed = tmp_path / "renamed.yml"
    renamed.write_text(yaml.safe_dump({"all": {"hosts": {host: {"qnet_underlay_interface": "uplink0"}}}}))
    here, there = pod_on(pods, host), pod_on(pods, others[0])
    try:
        with untouched(fop, pod_on(pods, others[0]), pod_on(pods, others[1])):
            rename(fop, host, "eth1", "uplink0")
            found = fop.try_play("site", "fop")
            assert found.status != 0
            assert f"{host} has no interface 'eth1'" in " ".join(found.output.split())
            fop.play("site", "fop", "-i", str(renamed))
            eventually(lambda: reaches(fop, here, there), 30, f"{here.name} reaches {there.name} again")
    finally:
        rename(fop, host, "uplink0", "eth1")
        fop.play("site", "fop")
    eventually(lambda: reaches(fop, here, there), 30, f"{here.name} reaches {there.name} with the old name")


def rename(fleet: Fleet, host: str, old: str, new: str) -> None:
    """Another name for an interface, with the routes that go when it is down."""
    routes = [line for line in fleet.run(host, "ip", "-4", "route", "show", "dev", old).splitlines() if " via " in line]
    fleet.run(host, "sh", "-c", f"ip link set dev {old} down && ip link set dev {old} name {new} up")
    time.sleep(1)
    for route in routes:
        fleet.run(host, "ip", "route", "replace", *route.split(), "dev", new)
