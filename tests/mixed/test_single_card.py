# SPDX-License-Identifier: Apache-2.0
"""Hosts with a single card, for SSH, the controllers and the tunnels alike, and not of one size; a lab of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest
from tests.e2e.fleet import ROOT, Fleet
from tests.mixed.conftest import LAB
from tests.mixed.test_mixed import IP_HEADERS, pings, pod_on

pytestmark = pytest.mark.timeout(3600)
SIZES = {
    "QNET_LAB": f"{LAB['QNET_LAB']}-one",
    "QNET_LAB_CONTROLLERS": "1",
    "QNET_LAB_SWITCHES": "2",
    "QNET_LAB_VIRTUAL": "0",
    "QNET_LAB_UNDERLAYS": "1",
    "QNET_LAB_RELEASES": "bookworm trixie",
}
CARD = {"qnet_underlay_interface": "eth0"}


def output(*argv: str) -> str:
    """What a command on this machine prints."""
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def complete_checksums(fleet: Fleet) -> None:
    """Have packets leave hosts and this machine with their checksums, as a wire carries them.

    Between veth and bridges of one machine checksums are left undone, and the datapath in user space takes packets as
    they are: TCP to a host behind it, SSH first, would stand still.
    """
    bridge = output("podman", "network", "inspect", "--format", "{{.NetworkInterface}}", f"{fleet.name}-management")
    output("ethtool", "-K", bridge, "tx", "off")
    for host in (*fleet.groups["controllers"], *fleet.groups["switches"]):
        process = output("podman", "inspect", "--format", "{{.State.Pid}}", f"{fleet.name}-{host}")
        output("nsenter", "--net", "--target", process, "ethtool", "-K", "eth0", "tx", "off")


@pytest.fixture(scope="module")
def single() -> Iterator[Fleet]:
    """A lab whose hosts have no card but the one that they are managed by; nothing is on them yet."""
    environment = {**os.environ, **SIZES}
    try:
        subprocess.run([ROOT / "lab" / "lab", "up"], check=True, stdin=subprocess.DEVNULL, env=environment)
        fleet = Fleet(SIZES["QNET_LAB"])
        for host in fleet.groups["switches"]:
            fleet.run(host, "ip", "link", "delete", "eth1")
        complete_checksums(fleet)
        yield fleet
    finally:
        if not os.environ.get("QNET_LAB_KEEP"):
            subprocess.run([ROOT / "lab" / "lab", "down"], check=True, stdin=subprocess.DEVNULL, env=environment)


def test_a_host_that_is_too_small_is_named_before_anything_is_changed(single: Fleet) -> None:
    single.run("h2", "ip", "link", "set", "dev", "eth0", "mtu", "1300")
    found = single.try_play("site", "fop", **CARD)
    single.run("h2", "ip", "link", "set", "dev", "eth0", "mtu", "1400")
    assert found.status != 0
    assert "eth0 on h2 has MTU 1300, which leaves 1250 for the overlay" in " ".join(found.output.split())
    assert found.changed == {}
    assert single.run("h1", "sh", "-c", "command -v ovs-vsctl || true") == ""


def test_a_fleet_of_single_cards_converges_and_has_the_mtu_of_the_smallest(single: Fleet) -> None:
    single.play("site", "fop", **CARD)
    assert single.play("site", "fop", **CARD).changed == {}
    single.install_scripts()
    single.play("verify", "fop", **CARD)
    pods = single.pods()
    for sender, receiver in (("h1", "h2"), ("h2", "h1")):
        pod, peer, whole = pod_on(pods, sender), pod_on(pods, receiver), 1350 - IP_HEADERS
        assert " 0% packet loss" in pings(single, pod, peer.address, "-c2", "-M", "do", "-s", str(whole))
        assert "essage too long" in pings(single, pod, peer.address, "-c1", "-M", "do", "-s", str(whole + 1))


def test_the_offload_doctor_leaves_a_datapath_in_user_space_at_none(single: Fleet) -> None:
    done = single.play("offload", "fop", **CARD)
    rows = [line.split() for line in done.output.splitlines() if " eth0 " in line]
    told = [row[row.index("eth0") - 1 :] for row in rows]  # host, interface, driver, firmware, level found, level
    assert [(row[0], row[2], row[5]) for row in told] == [("h1", "veth", "none"), ("h2", "veth", "none")]
    assert single.play("offload", "fop", **CARD).changed == {}
