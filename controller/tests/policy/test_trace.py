# SPDX-License-Identifier: Apache-2.0
"""The simulated switch against Open vSwitch: the same flows, the same packets, the same way through the tables.

The flows are those of a random world, written to a real switch over the wire; `ofproto/trace` says which flow a packet
meets in every table. It does not translate addresses, so packets that the simulated switch translated are left out.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from contract.real import Vswitch, own_network, vswitch
from qnet_controller.pipeline import messages as m
from qnet_controller.pipeline.text import flow_text, group_text, meter_text
from simulator import packets as p
from simulator.fabric import VIRTUAL_MAC, Node
from simulator.refusals import REFUSALS

from .probe import Prober
from .tenants import pod_object
from .test_simulated import HOSTS, build
from .tracing import Trace, Wire

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]
BRIDGE = "qtrace"
SAMPLE = 150
# ofp_error_type and code, OpenFlow 1.5.1, section 7.5.4
ERRORS = {
    "OFPBAC_MATCH_INCONSISTENT": (2, 10), "OFPBAC_BAD_ARGUMENT": (2, 5),
    "OFPBAC_BAD_OUT_GROUP": (2, 9), "OFPBAC_BAD_SET_ARGUMENT": (2, 15), "OFPBIC_BAD_TABLE_ID": (3, 2),
    "OFPBMC_BAD_WILDCARDS": (4, 5), "OFPBMC_BAD_PREREQ": (4, 9), "OFPGMFC_GROUP_EXISTS": (6, 0),
    "OFPGMFC_UNKNOWN_GROUP": (6, 8), "OFPMMFC_METER_EXISTS": (12, 1), "OFPMMFC_INVALID_METER": (12, 2),
}  # fmt: skip
Sent = tuple[p.Packet, int, dict[str, int]]
"""A packet, the port it arrives at, and its tunnel fields."""


@pytest.fixture(scope="module")
def ovs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vswitch]:
    back = own_network()
    try:
        with vswitch(tmp_path_factory.mktemp("trace"), BRIDGE, 1) as switch:
            yield switch
    finally:
        back()


def everything(node: Node) -> list[m.Command]:
    """Commands that make a switch hold what the simulated one holds."""
    switch = node.switch
    return [
        *(m.AddMeter(meter) for meter in switch.meters.values()),
        *(m.PutGroup(group, exists=False) for group in switch.groups.values()),
        *(m.AddFlow(flow) for flow in switch.flows.values()),
    ]


def dump(ovs: Vswitch) -> list[str]:
    """Flows and groups of the real switch, without what changes by itself."""
    flows = [re.sub(r"(duration|n_packets|n_bytes|idle_age|hard_age)=[^ ]*,? ?", "", line) for line in ovs.flows()]
    groups = [line.strip() for line in ovs.ofctl("dump-groups").splitlines() if "group_id" in line]
    return sorted(flows) + sorted(groups)


@pytest.fixture(scope="module")
def prober(ovs: Vswitch) -> Prober:
    """A random world whose host h1 the real switch mirrors: same ports, and all the flows, written over the wire."""
    _, found = build(31, "netdev", hosts=2)
    found.check_all()
    node = found.fabric.nodes["h1"]
    for number, name in node.switch.ports.items():
        kind = ["type=vxlan", "options:remote_ip=flow", "options:key=flow"] if number == 1 else ["type=internal"]
        ovs.vsctl("add-port", BRIDGE, name, "--", "set", "interface", name, f"ofport_request={number}", *kind)
    assert Wire(ovs).send(everything(node)) == []
    return found


def sample(chooser: random.Random, sent: list[Sent]) -> Iterator[Sent]:
    """Some of the packets, and some of those spoofed."""
    for packet, port, tunnel in chooser.sample(sent, min(SAMPLE, len(sent))):
        packet = packet.copy()
        if chooser.random() < 0.1:
            packet.source += 1
        if chooser.random() < 0.1:
            packet.eth_src ^= 1
        yield packet, port, tunnel


def candidates(prober: Prober) -> list[Sent]:
    """What every pod sends to every address, in several ways, as host h1 receives it."""
    found: list[Sent] = []
    for client, address in prober.pairs():
        if client.host == "h1":
            _, port = prober.fabric.port(pod_object(client))
            tunnel: dict[str, int] = {}
        else:
            port, tunnel = 1, {"tun_src": HOSTS[client.host or ""][1], "tun_dst": HOSTS["h1"][1],
                               "tun_id": prober.world.networks[client.network]}  # fmt: skip
        mac = int.from_bytes(pod_object(client).mac, "big")
        own = client.own(address)
        assert own is not None
        asks = [p.arp_request(mac, own, address)]
        if p.is_ipv6(address):
            asks = [p.solicitation(mac, sender, address) for sender in (own, p.link_local(mac), 0)]
            asks.append(replace(asks[0], icmp_type=p.ADVERTISEMENT, nd_option=p.TARGET_OPTION))
        for packet in (
            p.tcp(own, 7, address, 80, p.SYN), p.tcp(own, 7, address, 81, p.SYN), p.udp(own, 7, address, 53),
            p.echo(own, address, 7), *asks,
        ):  # fmt: skip
            packet.eth_src, packet.eth_dst = mac, packet.eth_dst or VIRTUAL_MAC
            found.append((packet, port, tunnel))
    return found


def test_text_and_wire_say_the_same(ovs: Vswitch, prober: Prober, tmp_path: Path) -> None:
    switch = prober.fabric.nodes["h1"].switch
    by_wire = dump(ovs)
    assert len(by_wire) == len(switch.flows) + len(switch.groups)
    ovs.ofctl("del-flows")
    ovs.ofctl("del-groups")
    ovs.ofctl("del-meters")
    for meter in switch.meters.values():
        ovs.ofctl("add-meter", meter_text(meter))
    for group in switch.groups.values():
        ovs.ofctl("add-group", group_text(group))
    file = tmp_path / "flows"
    file.write_text("".join(flow_text(flow) + "\n" for flow in switch.flows.values()))
    ovs.ofctl("add-flows", str(file))
    assert dump(ovs) == by_wire


def test_packets_take_the_same_way_through_open_vswitch(ovs: Vswitch, prober: Prober) -> None:
    node, trace = prober.fabric.nodes["h1"], Trace(ovs)
    whole = 0
    for packet, port, tunnel in sample(random.Random(1), candidates(prober)):
        _, flight = node.switch.follow(packet, port, tunnel)
        assert not (different := trace.differs(packet, port, tunnel, flight)), different
        whole += not flight.changes
    assert whole > SAMPLE / 3


@pytest.mark.parametrize("case", REFUSALS)
def test_open_vswitch_refuses_what_the_simulated_switch_refuses(ovs: Vswitch, case: str) -> None:
    flow, error = REFUSALS[case]
    assert Wire(ovs).send([m.AddFlow(flow)]) == [ERRORS[error]]


def test_open_vswitch_refuses_a_group_that_exists(ovs: Vswitch) -> None:
    group = m.Group(4711, ())
    connection = Wire(ovs)
    assert connection.send([m.PutGroup(group, exists=True)]) == [ERRORS["OFPGMFC_UNKNOWN_GROUP"]]
    assert connection.send([m.PutGroup(group, exists=False)]) == []
    assert connection.send([m.PutGroup(group, exists=False)]) == [ERRORS["OFPGMFC_GROUP_EXISTS"]]
    meter = m.Meter(4711, 1, 1)
    assert connection.send([m.AddMeter(meter)]) == []
    assert connection.send([m.AddMeter(meter)]) == [ERRORS["OFPMMFC_METER_EXISTS"]]
    assert connection.send([m.DeleteMeter(4711), m.DeleteGroup(4711), m.DeleteGroup(4711)]) == []
