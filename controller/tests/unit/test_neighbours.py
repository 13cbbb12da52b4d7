# SPDX-License-Identifier: Apache-2.0
"""Which hosts a switch asks for the next hop to."""

from __future__ import annotations

from qnet_controller.model import objects as o
from qnet_controller.model.model import Model
from qnet_controller.pipeline.fields import TUN_DST, TUN_IPV6_DST
from qnet_controller.pipeline.frame import TUNNEL_PORT_NAME
from qnet_controller.pipeline.messages import Output, PacketOut, Set
from qnet_controller.pipeline.neighbours import MOST_AT_ONCE, questions
from qnet_controller.pipeline.parts import Parts, Settings

TUNNEL = 7


def vtep(number: int, size: int = 4) -> bytes:
    return (10 << 8 * (size - 1) | number).to_bytes(size, "big")


def fleet(*hosts: o.Host) -> Model:
    model = Model()
    model.apply(list(hosts))
    for host in hosts:
        model.switch_ports(host.datapath_id, [(TUNNEL, TUNNEL_PORT_NAME, True)])
    return model


def asked(packet: PacketOut) -> list[bytes]:
    """The VTEPs that a packet goes to: each is set, then the packet goes out of the tunnel."""
    targets, outputs = packet.actions[::2], packet.actions[1::2]
    assert set(outputs) == {Output(TUNNEL)}
    sizes = {TUN_DST: 4, TUN_IPV6_DST: 16}
    return [one.value.to_bytes(sizes[one.target.field], "big") for one in targets if isinstance(one, Set)]


def of_switch(model: Model, number: int) -> list[list[bytes]]:
    return [asked(packet) for packet in questions(Parts(model, number, Settings()))]


def test_every_switch_asks_for_all_hosts_but_its_own_some_at_a_time() -> None:
    count = 2 * MOST_AT_ONCE + 1
    model = fleet(*(o.Host(f"h{number}", (vtep(number),), number) for number in range(count)))
    for number in (0, MOST_AT_ONCE, count - 1):
        packets = of_switch(model, number)
        others = [vtep(other) for other in range(count) if other != number]
        assert sorted(one for packet in packets for one in packet) == others
        assert max(map(len, packets)) <= MOST_AT_ONCE


def test_they_are_asked_for_in_a_family_that_both_have() -> None:
    both = o.Host("h2", (vtep(2, 16), vtep(2)), 2)
    model = fleet(o.Host("h1", (vtep(1),), 1), both, o.Host("h3", (vtep(3, 16),), 3))
    assert of_switch(model, 1) == [[vtep(2)]]
    assert of_switch(model, 2) == [[vtep(1)], [vtep(3, 16)]]
    assert of_switch(model, 3) == [[vtep(2, 16)]]


def test_nobody_asks_without_a_tunnel_or_where_the_kernel_does() -> None:
    model = fleet(o.Host("h1", (vtep(1),), 1), o.Host("h2", (vtep(2),), 2, "system"))
    model.apply([o.Host("h3", (vtep(3),), 3)])
    assert of_switch(model, 1) == [[vtep(2), vtep(3)]]
    assert of_switch(model, 2) == []
    assert of_switch(model, 3) == []
    assert of_switch(model, 4) == []
