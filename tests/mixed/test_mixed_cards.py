# SPDX-License-Identifier: Apache-2.0
"""The underlay of the virtual machine becomes a VLAN on a bond of two cards, and the overlay shrinks with it.

The cards lead to a switch in a namespace of the machine: a port of a VLAN towards the other hosts, and two trunks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.e2e.fleet import Fleet, Pod, eventually
from tests.mixed.conftest import LAB
from tests.mixed.test_mixed import IP_HEADERS, MACHINE, pings, pod_on
from tests.mixed.test_mixed_faults import reaches, untouched

pytestmark = [
    pytest.mark.timeout(7200),
    pytest.mark.skipif(LAB["QNET_LAB_VIRTUAL"] == "0", reason="needs the virtual machine, with a kernel of its own"),
]
CARD, UPLINK = "bond0.100", "eth1"
VLAN_MTU = 1496  # as where cards have no room for the tag beyond 1500
TRUNK = f"""
set -e
ip netns add trunk
ip -n trunk link add switch type bridge vlan_filtering 1 vlan_default_pvid 0
ip link set {UPLINK} netns trunk
ip -n trunk link set {UPLINK} master switch up
bridge -n trunk vlan add dev {UPLINK} vid 100 pvid untagged
ip link add bond0 type bond mode active-backup miimon 100
for number in 1 2; do
  ip link add card$number type veth peer name port$number netns trunk
  ip -n trunk link set port$number master switch up
  bridge -n trunk vlan add dev port$number vid 100
  ip link set card$number master bond0
done
ip -n trunk link set switch up
ip link set bond0 up
ip link add link bond0 name {CARD} type vlan id 100
ip link set {CARD} mtu {VLAN_MTU} up
"""
PLAIN = f"""
set -e
ip link delete bond0
ip link delete card1
ip link delete card2
ip -n trunk link set {UPLINK} nomaster
ip -n trunk link set {UPLINK} netns 1
ip netns delete trunk
ip link set {UPLINK} up
"""


@pytest.fixture(scope="module")
def bonded(fop: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The machine with its address on the VLAN; an inventory that says so."""
    shown = yaml.safe_load(fop.run(MACHINE, "ip", "-json", "-4", "address", "show", "dev", UPLINK))[0]["addr_info"][0]
    address = f"{shown['local']}/{shown['prefixlen']}"
    routes = fop.run(MACHINE, "ip", "-4", "route", "show", "dev", UPLINK).splitlines()

    def change(script: str, device: str) -> None:
        lines = [f"ip address replace {address} dev {device}"]
        lines += [
            f"ip route replace {' '.join(route.split()[:3])} dev {device}" for route in routes if " via " in route
        ]
        fop.run(MACHINE, "sh", "-c", "\n".join((script, *lines)))

    inventory = tmp_path_factory.mktemp("bonded") / "bonded.yml"
    inventory.write_text(yaml.safe_dump({"all": {"hosts": {MACHINE: {"qnet_underlay_interface": CARD}}}}))
    change(TRUNK, CARD)
    yield inventory
    change(PLAIN, UPLINK)
    fop.play("site", "fop")


def test_a_vlan_on_a_bond_is_an_underlay(fop: Fleet, pods: dict[str, Pod], bonded: Path) -> None:
    fop.play("site", "fop", "-i", str(bonded))
    whole = VLAN_MTU - 50 - IP_HEADERS
    for sender, receiver in ((MACHINE, "h1"), ("h2", MACHINE), ("h1", "h2")):
        pod, peer = pod_on(pods, sender), pod_on(pods, receiver)
        where = f"{pod.name} on {sender} to {peer.name} on {receiver}"
        assert " 0% packet loss" in pings(fop, pod, peer.address, "-c2", "-M", "do", "-s", str(whole)), where
        assert "essage too long" in pings(fop, pod, peer.address, "-c1", "-M", "do", "-s", str(whole + 1)), where


def test_connections_outlive_a_card_of_the_bond(fop: Fleet, pods: dict[str, Pod], bonded: Path) -> None:
    here, there = pod_on(pods, MACHINE), pod_on(pods, "h1")
    try:
        with untouched(fop, here, there):
            fop.run(MACHINE, "ip", "-n", "trunk", "link", "set", "port1", "down")
            eventually(
                lambda: fop.run(MACHINE, "cat", "/sys/class/net/bond0/bonding/active_slave") == "card2", 30, "failover"
            )
            assert reaches(fop, here, there)
    finally:
        fop.run(MACHINE, "ip", "-n", "trunk", "link", "set", "port1", "up")


def test_the_offload_doctor_proves_a_level_on_the_vlan(fop: Fleet, bonded: Path) -> None:
    done = fop.play("offload", "fop", "-i", str(bonded))
    (row,) = (line for line in done.output.splitlines() if f" {CARD} " in line)
    assert "802.1Q VLAN Support" in row
    assert " yes " in row
    assert fop.play("offload", "fop", "-i", str(bonded)).changed == {}
    fop.play("mesh", "fop", "-i", str(bonded))


def test_site_again_changes_nothing_on_the_vlan(fop: Fleet, bonded: Path) -> None:
    assert fop.play("site", "fop", "-i", str(bonded)).changed == {}
