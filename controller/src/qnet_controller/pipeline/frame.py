# SPDX-License-Identifier: Apache-2.0
"""The static part of the pipeline: what every switch holds, and what each pod and network adds on its host."""

from __future__ import annotations

from collections.abc import Iterator

from ..decide.decide import Kind, Origin
from ..model.objects import Location, Network, Pod
from .fields import (
    ARP_OP,
    ARP_SHA,
    ARP_SPA,
    ARP_THA,
    ARP_TPA,
    CT_ESTABLISHED,
    CT_INVALID,
    CT_NEW,
    CT_RELATED,
    CT_REPLY,
    CT_STATE,
    CT_TRACKED,
    ETH_DST,
    ETH_SRC,
    ETH_TYPE,
    ETH_TYPE_ARP,
    ETH_TYPE_IPV4,
    GRANT,
    HAIRPIN,
    IN_PORT,
    IPV4_DST,
    IPV4_SRC,
    KIND,
    KIND_OPENS,
    ORIGIN,
    SOURCE_GROUP,
    SOURCE_ZONE,
    TARGET_ZONE,
    VNI,
    Field,
    whole,
)
from .messages import (
    PORT_IN_PORT,
    Action,
    Actions,
    Ct,
    Feature,
    Flow,
    Goto,
    Match,
    Move,
    Nat,
    Output,
    OutputTo,
    Set,
    ToController,
    UseMeter,
    flow,
    match,
)
from .tables import Table

VIRTUAL_MAC = 0x0A0000000001
"""The one MAC address that pods see for everybody else."""

TUNNEL_PORT_NAME = "qnet-vxlan"
TUNNEL_METER = 0x10000
"""Above every pod's meter, which has the number of the pod's port."""

_ARP_REQUEST, _ARP_REPLY = 1, 2
_IP = (ETH_TYPE, ETH_TYPE_IPV4)
_ARP = (ETH_TYPE, ETH_TYPE_ARP)


def state(plus: int, minus: int = 0) -> tuple[Field, int, int]:
    """A match term: tracked, all of the ct_state bits `plus` set, and none of the bits `minus`."""
    wanted = CT_TRACKED | plus
    return (CT_STATE, wanted, wanted | minus)


def frame(tunnel_port: int | None) -> Iterator[Flow]:
    """The flows that are the same on every switch; `tunnel_port` is None until the switch has one."""
    yield from _track()
    yield from _state()
    yield from _delivery()
    yield _static(Table.PORTS, 0, match(), Goto(Table.TRACK))
    yield _static(Table.SERVICE, 0, match(), Goto(Table.STATE))
    if tunnel_port is not None:
        ask = (UseMeter(TUNNEL_METER), ToController())
        yield _static(Table.ADMISSION, 10, match((IN_PORT, tunnel_port), _IP), *ask)
        yield _static(Table.PLAN, 1, match((ORIGIN, Origin.TUNNEL), _IP), *ask)


def _static(table: Table, priority: int, matching: Match, *actions: Action) -> Flow:
    return flow(table, priority, matching, actions, Feature.FRAME, "frame")


def _track() -> Iterator[Flow]:
    """Send what a pod sends through its own conntrack zone; what came through the tunnel waits for its receiver's."""
    table = Table.TRACK
    to_location = Goto(Table.LOCATION)
    yield _static(table, 100, match((KIND, Kind.DROP)))
    yield _static(table, 90, match((KIND, Kind.DIRECT)), to_location)
    yield _static(table, 70, match((ORIGIN, Origin.TUNNEL)), to_location)
    yield _static(table, 60, match(_IP), Ct(SOURCE_ZONE, Table.SERVICE, nat=Nat("lookup")))


def _state() -> Iterator[Flow]:
    """Judge by the sender's connection; pods, Service IPs and exports add what may be opened and answered."""
    table = Table.STATE
    to_location = Goto(Table.LOCATION)
    yield _static(table, 105, match((KIND, Kind.OPEN), _IP, state(CT_INVALID)), to_location)
    yield _static(table, 100, match(_IP, state(CT_INVALID)))
    yield _static(table, 90, match((KIND_OPENS, 1), _IP, state(CT_ESTABLISHED)), to_location)
    yield _static(table, 90, match((KIND_OPENS, 1), _IP, state(CT_RELATED)), to_location)


def _delivery() -> Iterator[Flow]:
    """Judge by the receiver's connection, then hand over; exports add what may be answered."""
    hand_over = OutputTo(TARGET_ZONE)
    yield _static(Table.EGRESS, 100, match((HAIRPIN, 1)), Output(PORT_IN_PORT))
    yield _static(Table.EGRESS, 90, match((KIND, Kind.DIRECT)), hand_over)
    yield _static(Table.EGRESS, 10, match(_IP), Ct(TARGET_ZONE, Table.DELIVERY, nat=Nat("lookup")))
    table = Table.DELIVERY
    yield _static(table, 105, match((KIND, Kind.OPEN), _IP, state(CT_INVALID)), hand_over)
    yield _static(table, 100, match(_IP, state(CT_INVALID)))
    commit = Ct(TARGET_ZONE, commit=True, mark=GRANT)
    for kind in (Kind.OPEN, Kind.ALLOW, Kind.SERVICE):
        minus = CT_REPLY if kind is Kind.SERVICE else 0
        yield _static(table, 90, match((KIND, kind), _IP, state(CT_ESTABLISHED, minus)), hand_over)
        yield _static(table, 90, match((KIND, kind), _IP, state(CT_RELATED, minus)), hand_over)
        yield _static(table, 80, match((KIND, kind), _IP, state(CT_NEW)), commit, hand_over)


def pod_flows(pod: Pod, group_number: int, network: Network, location: Location, moves_ports: bool) -> Iterator[Flow]:
    """Admission, asking, committing and local delivery for a pod on its own host (IPv4 addresses).

    `moves_ports`: commit with the pod's own address as NAT source, which changes nothing but a source port that a
    translated connection to the same backend has taken. Not on the userspace datapath: Open vSwitch 3.1 aborts on a
    NAT that changes nothing (conntrack.c, assertion in conn_update_state). There the newest connection of a tuple
    wins, so a port can be used again at once, but not by both at the same time.
    """
    port, owner = location.port, f"pod {pod.key}"
    mac = int.from_bytes(pod.mac, "big")
    arrived = (Set(VNI, network.vni), Set(SOURCE_GROUP, group_number), Set(SOURCE_ZONE, port))
    ask = (UseMeter(port), ToController())

    def own(table: Table, priority: int, matching: Match, *actions: Action) -> Flow:
        return flow(table, priority, matching, actions, Feature.POD, owner)

    yield flow(Table.ADMISSION, 100, match((IN_PORT, port)), (), Feature.REFUSED, owner)
    yield own(Table.PLAN, 1, match((ORIGIN, Origin.POD), (SOURCE_ZONE, port), _IP), *ask)
    yield own(Table.LOCATION, 1, match((ORIGIN, Origin.POD), (SOURCE_ZONE, port), _IP), *ask)
    for packed in pod.addresses:
        if len(packed) != 4:
            continue
        address = int.from_bytes(packed, "big")
        sender = ((IN_PORT, port), (ETH_SRC, mac))
        yield own(
            Table.ADMISSION,
            200,
            match(*sender, (ETH_DST, VIRTUAL_MAC), _IP, (IPV4_SRC, address)),
            *arrived,
            Goto(Table.PLAN),
        )
        yield own(
            Table.ADMISSION,
            200,
            match(*sender, _ARP, (ARP_OP, _ARP_REQUEST), (ARP_SPA, address), (ARP_SHA, mac)),
            *arrived,
            Goto(Table.NEIGHBOUR),
        )
        # A pod that probes for or announces its own address gets no answer: an answer would mean a duplicate.
        yield own(Table.ADMISSION, 210, match(*sender, _ARP, (ARP_SHA, mac), (ARP_TPA, address)))
        own_port = Nat("source", packed) if moves_ports else None
        opens = Ct(SOURCE_ZONE, Table.LOCATION, commit=True, nat=own_port, mark=GRANT)
        yield own(
            Table.STATE,
            80,
            match((SOURCE_ZONE, port), (KIND_OPENS, 1), _IP, (IPV4_SRC, address), state(CT_NEW)),
            opens,
        )
        yield own(
            Table.LOCATION,
            100,
            match((VNI, network.vni), _IP, (IPV4_DST, address)),
            Set(whole(ETH_DST), mac),
            Set(whole(ETH_SRC), VIRTUAL_MAC),
            Set(TARGET_ZONE, port),
            Goto(Table.EGRESS),
        )


_ANSWER: Actions = (
    Move(whole(ETH_SRC), whole(ETH_DST)),
    Set(whole(ETH_SRC), VIRTUAL_MAC),
    Set(whole(ARP_OP), _ARP_REPLY),
    Move(whole(ARP_SHA), whole(ARP_THA)),
    Set(whole(ARP_SHA), VIRTUAL_MAC),
)


def network_flows(network: Network) -> Iterator[Flow]:
    """Answers to ARP for every address of the network's subnets; nobody else ever sees the request."""
    for subnet in (*network.pod_subnets, *network.service_subnets):
        if len(subnet.address) != 4:
            continue
        block = int.from_bytes(subnet.address, "big")
        mask = (0xFFFFFFFF << 32 - subnet.prefix) & 0xFFFFFFFF
        yield flow(
            Table.NEIGHBOUR,
            100,
            match((VNI, network.vni), _ARP, (ARP_OP, _ARP_REQUEST), (ARP_TPA, block & mask, mask)),
            # The addresses change places by way of a register, which nothing needs any more.
            (*_ANSWER, *_swap_protocol_addresses(), Output(PORT_IN_PORT)),
            Feature.NETWORK,
            f"network {network.name}",
        )


def _swap_protocol_addresses() -> Actions:
    spare = whole(TARGET_ZONE.field)
    return (
        Move(whole(ARP_TPA), spare),
        Move(whole(ARP_SPA), whole(ARP_TPA)),
        Move(spare, whole(ARP_SPA)),
    )
