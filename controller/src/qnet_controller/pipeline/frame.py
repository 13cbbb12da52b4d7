# SPDX-License-Identifier: Apache-2.0
"""The static part of the pipeline: what every switch holds, and what each pod and network adds on its host."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..decide.decide import Kind, Origin
from ..model.objects import Location, Network, Pod
from ..model.passages import Passage
from .family import FAMILIES, IPV4, IPV6, family, number
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
    GRANT,
    HAIRPIN,
    ICMPV6_CODE,
    ICMPV6_TYPE,
    IN_PORT,
    IP_PROTO,
    IPV6_DST,
    IPV6_SRC,
    KIND,
    KIND_OPENS,
    ND_OPTIONS_TYPE,
    ND_RESERVED,
    ND_SLL,
    ND_TARGET,
    ND_TLL,
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
from .spoofed import spoofed_flows
from .tables import Table

VIRTUAL_MAC = 0x0A0000000001
"""The one MAC address that pods see for everybody else."""

TUNNEL_PORT_NAME = "qnet-vxlan"
TUNNEL_METER = 0x10000
"""Above every pod's meter, which has the number of the pod's port."""
BROADCAST_METER = 0x20000
"""Added to the number of a pod's port: the meter of what the pod sends to all of its group."""

_ARP_REQUEST, _ARP_REPLY = 1, 2
_ARP = (ETH_TYPE, ETH_TYPE_ARP)
_SOLICITATION, _ADVERTISEMENT = 135, 136
_ROUTER_SOLICITATION, _ROUTER_ADVERTISEMENT, _REDIRECT = 133, 134, 137
_ND = (_ROUTER_SOLICITATION, _ROUTER_ADVERTISEMENT, _SOLICITATION, _ADVERTISEMENT, _REDIRECT)
_ROUTER_SOLICITED_OVERRIDE = 0xE0000000  # the flags of an advertisement (RFC 4861, 4.4)
_TARGET_LINK_LAYER_ADDRESS = 2  # the option of an advertisement that says the MAC address
_LINK_LOCAL_MULTICAST = (IPV6_DST, 0xFF02 << 112, 0xFFFF << 112)


def state(plus: int, minus: int = 0) -> tuple[Field, int, int]:
    """A match term: tracked, all of the ct_state bits `plus` set, and none of the bits `minus`."""
    wanted = CT_TRACKED | plus
    return (CT_STATE, wanted, wanted | minus)


def frame(tunnel_port: int | None) -> Iterator[Flow]:
    """The flows that are the same on every switch; `tunnel_port` is None until the switch has one."""
    yield from _no_foreign_neighbours()
    yield from _track()
    yield from _state()
    yield from _delivery()
    yield _static(Table.PORTS, 0, match(), Goto(Table.TRACK))
    yield _static(Table.SERVICE, 0, match(), Goto(Table.STATE))
    if tunnel_port is not None:
        ask = (UseMeter(TUNNEL_METER), ToController())
        for ip in FAMILIES:
            yield _static(Table.ADMISSION, 10, match((IN_PORT, tunnel_port), ip.term), *ask)
            yield _static(Table.PLAN, 1, match((ORIGIN, Origin.TUNNEL), ip.term), *ask)
        yield _static(Table.ASK, 1, match((ORIGIN, Origin.TUNNEL)), *ask)


def _static(table: Table, priority: int, matching: Match, *actions: Action) -> Flow:
    return flow(table, priority, matching, actions, Feature.FRAME, "frame")


def _icmpv6(kind: int) -> tuple[tuple[Field, int], ...]:
    return (IPV6.term, (IP_PROTO, IPV6.icmp), (ICMPV6_TYPE, kind))


def _no_foreign_neighbours() -> Iterator[Flow]:
    """Nobody tells a pod about neighbours or routers but the switch itself: in IPv6 these are packets like others.

    And the last step of an answer to a solicitation, whose option can be written only once it is an advertisement.
    """
    for kind in _ND:
        yield _static(Table.PLAN, 200, match(*_icmpv6(kind)))
    asked_for = match(*_icmpv6(_ADVERTISEMENT), (ICMPV6_CODE, 0))
    yield _static(Table.ADVERTISE, 100, asked_for, Set(whole(ND_TLL), VIRTUAL_MAC), Output(PORT_IN_PORT))


def _track() -> Iterator[Flow]:
    """Send what a pod sends through its own conntrack zone; what came through the tunnel waits for its receiver's."""
    table = Table.TRACK
    to_location = Goto(Table.LOCATION)
    yield _static(table, 100, match((KIND, Kind.DROP)))
    yield _static(table, 90, match((KIND, Kind.DIRECT)), to_location)
    yield _static(table, 70, match((ORIGIN, Origin.TUNNEL)), to_location)
    for ip in FAMILIES:
        yield _static(table, 60, match(ip.term), Ct(SOURCE_ZONE, Table.SERVICE, nat=Nat("lookup")))


def _state() -> Iterator[Flow]:
    """Judge by the sender's connection; pods, Service IPs and exports add what may be opened and answered."""
    table = Table.STATE
    to_location = Goto(Table.LOCATION)
    for ip in FAMILIES:
        yield _static(table, 105, match((KIND, Kind.OPEN), ip.term, state(CT_INVALID)), to_location)
        yield _static(table, 100, match(ip.term, state(CT_INVALID)))
        yield _static(table, 90, match((KIND_OPENS, 1), ip.term, state(CT_ESTABLISHED)), to_location)
        yield _static(table, 90, match((KIND_OPENS, 1), ip.term, state(CT_RELATED)), to_location)


def _delivery() -> Iterator[Flow]:
    """Judge by the receiver's connection, then hand over; exports add what may be answered."""
    hand_over = OutputTo(TARGET_ZONE)
    yield _static(Table.EGRESS, 100, match((HAIRPIN, 1)), Output(PORT_IN_PORT))
    yield _static(Table.EGRESS, 90, match((KIND, Kind.DIRECT)), hand_over)
    table = Table.DELIVERY
    commit = Ct(TARGET_ZONE, commit=True, mark=GRANT)
    for ip in FAMILIES:
        yield _static(Table.EGRESS, 10, match(ip.term), Ct(TARGET_ZONE, Table.DELIVERY, nat=Nat("lookup")))
        yield _static(table, 105, match((KIND, Kind.OPEN), ip.term, state(CT_INVALID)), hand_over)
        yield _static(table, 100, match(ip.term, state(CT_INVALID)))
        for kind in (Kind.OPEN, Kind.ALLOW, Kind.SERVICE):
            minus = CT_REPLY if kind is Kind.SERVICE else 0
            yield _static(table, 90, match((KIND, kind), ip.term, state(CT_ESTABLISHED, minus)), hand_over)
            yield _static(table, 90, match((KIND, kind), ip.term, state(CT_RELATED, minus)), hand_over)
            yield _static(table, 80, match((KIND, kind), ip.term, state(CT_NEW)), commit, hand_over)


def link_local(mac: bytes) -> int:
    """The link-local address that a kernel makes of a MAC address (RFC 4291, appendix A)."""
    return 0xFE80 << 112 | number(bytes((mac[0] ^ 2, *mac[1:3], 0xFF, 0xFE, *mac[3:])))


def pod_flows(
    pod: Pod, group_number: int, network: Network, location: Location, moves_ports: bool, spaces: Sequence[Network] = ()
) -> Iterator[Flow]:
    """Admission, asking, committing and local delivery for a pod on its own host.

    `spaces`: where else than in its network the pod is to be found by its addresses.

    `moves_ports`: commit with the pod's own address as NAT source, which changes nothing but a source port that a
    translated connection to the same backend has taken. Not on the userspace datapath: Open vSwitch 3.1 aborts on a
    NAT that changes nothing (conntrack.c, assertion in conn_update_state). There the newest connection of a tuple
    wins, so a port can be used again at once, but not by both at the same time.
    """
    port, owner = location.port, f"pod {pod.key}"
    mac = number(pod.mac)
    ask = (UseMeter(port), ToController())

    def own(table: Table, priority: int, matching: Match, *actions: Action) -> Flow:
        return flow(table, priority, matching, actions, Feature.POD, owner)

    yield from spoofed_flows(pod, port, link_local(pod.mac))
    # What every kernel says to its link unasked, such as which groups it listens to: dropped as well, but no abuse.
    yield own(Table.ADMISSION, 110, match((IN_PORT, port), (ETH_SRC, mac), IPV6.term, _LINK_LOCAL_MULTICAST))
    for ip in FAMILIES:
        yield own(Table.PLAN, 1, match((ORIGIN, Origin.POD), (SOURCE_ZONE, port), ip.term), *ask)
        yield own(Table.LOCATION, 1, match((ORIGIN, Origin.POD), (SOURCE_ZONE, port), ip.term), *ask)
    yield own(Table.ASK, 1, match((ORIGIN, Origin.POD), (SOURCE_ZONE, port)), *ask)
    yield from _admission(pod, group_number, network, location)
    for packed in pod.addresses:
        ip, address = family(packed), number(packed)
        own_port = Nat("source", packed) if moves_ports else None
        opens = Ct(SOURCE_ZONE, Table.LOCATION, commit=True, nat=own_port, mark=GRANT)
        yield own(
            Table.STATE,
            80,
            match((SOURCE_ZONE, port), (KIND_OPENS, 1), ip.term, (ip.source, address), state(CT_NEW)),
            opens,
        )
        for space in (network, *spaces):
            yield own(
                Table.LOCATION,
                100,
                match((VNI, space.vni), ip.term, (ip.target, address)),
                Set(whole(ETH_DST), mac),
                Set(whole(ETH_SRC), VIRTUAL_MAC),
                Set(TARGET_ZONE, port),
                Goto(Table.EGRESS),
            )


def _admission(pod: Pod, group_number: int, network: Network, location: Location) -> Iterator[Flow]:
    """What a pod may send: IP from its own addresses, and questions for neighbours."""
    mac = number(pod.mac)
    sender = ((IN_PORT, location.port), (ETH_SRC, mac))
    arrived = (Set(VNI, network.vni), Set(SOURCE_GROUP, group_number), Set(SOURCE_ZONE, location.port))
    asks = (*arrived, Goto(Table.NEIGHBOUR))

    def own(priority: int, matching: Match, *actions: Action) -> Flow:
        return flow(Table.ADMISSION, priority, matching, actions, Feature.POD, f"pod {pod.key}")

    for packed in pod.addresses:
        ip, address = family(packed), number(packed)
        sends = match(*sender, (ETH_DST, VIRTUAL_MAC), ip.term, (ip.source, address))
        yield own(200, sends, *arrived, Goto(Table.PLAN))
        # A pod that probes for or announces its own address gets no answer: an answer would mean a duplicate.
        if ip is IPV4:
            request = match(*sender, _ARP, (ARP_OP, _ARP_REQUEST), (ARP_SPA, address), (ARP_SHA, mac))
            yield own(200, request, *asks)
            for claimed in (0, address):
                about_itself = (*sender, _ARP, (ARP_SHA, mac), (ARP_SPA, claimed), (ARP_TPA, address))
                yield own(210, match(*about_itself))
        else:
            yield own(210, match(*sender, *_solicitation(), (ND_TARGET, address)))
    own_ipv6 = [number(packed) for packed in pod.addresses if family(packed) is IPV6]
    # A kernel may ask whether a neighbour is still there from its link-local address, which is good for nothing else.
    for address in (*own_ipv6, link_local(pod.mac)) if own_ipv6 else ():
        yield own(205, match(*sender, *_solicitation(), (IPV6_SRC, address), (ND_SLL, mac)), *asks)


def _solicitation() -> tuple[tuple[Field, int], ...]:
    return (*_icmpv6(_SOLICITATION), (ICMPV6_CODE, 0))


_ANSWER: Actions = (
    Move(whole(ETH_SRC), whole(ETH_DST)),
    Set(whole(ETH_SRC), VIRTUAL_MAC),
    Set(whole(ARP_OP), _ARP_REPLY),
    Move(whole(ARP_SHA), whole(ARP_THA)),
    Set(whole(ARP_SHA), VIRTUAL_MAC),
)
_ADVERTISE: Actions = (
    Move(whole(ETH_SRC), whole(ETH_DST)),
    Set(whole(ETH_SRC), VIRTUAL_MAC),
    Move(whole(IPV6_SRC), whole(IPV6_DST)),
    Move(whole(ND_TARGET), whole(IPV6_SRC)),
    Set(whole(ICMPV6_TYPE), _ADVERTISEMENT),
    Set(whole(ND_RESERVED), _ROUTER_SOLICITED_OVERRIDE),
    Set(whole(ND_OPTIONS_TYPE), _TARGET_LINK_LAYER_ADDRESS),
    Goto(Table.ADVERTISE),
)


def network_flows(network: Network, passages: Iterable[Passage] = (), kernel: bool = False) -> Iterator[Flow]:
    """Answers to ARP and ND for every address of the network's subnets; nobody else ever sees the request.

    The `kernel`'s datapath cannot write an advertisement and refuses such a flow. Pods there are given their neighbour
    by qnet_pod, so that they never ask (ADR 0019).

    And delivery of what callers of other networks open through `passages`: the pod sees them at an address of its own.
    """
    owner = f"network {network.name}"
    for found in passages:
        for packed in found.addresses:
            ip = family(packed)
            opened = match((VNI, found.calls.vni), (KIND, Kind.SERVICE), ip.term, state(CT_NEW))
            commit = Ct(TARGET_ZONE, commit=True, nat=Nat("source", packed), mark=GRANT)
            yield flow(Table.DELIVERY, 85, opened, (commit, OutputTo(TARGET_ZONE)), Feature.NETWORK, owner)
    for subnet in (*network.pod_subnets, *network.service_subnets):
        bits = len(subnet.address) * 8
        mask = (1 << bits) - (1 << bits - subnet.prefix)
        block = number(subnet.address) & mask
        request: tuple[tuple[Field, int] | tuple[Field, int, int], ...]
        if family(subnet.address) is IPV4:
            # The addresses change places by way of a register, which nothing needs any more.
            answer = (*_ANSWER, *_swap_protocol_addresses(), Output(PORT_IN_PORT))
            request = (_ARP, (ARP_OP, _ARP_REQUEST), (ARP_TPA, block, mask))
        elif kernel:
            continue
        else:
            answer, request = _ADVERTISE, (*_solicitation(), (ND_TARGET, block, mask))
        asked = match((VNI, network.vni), *request)
        yield flow(Table.NEIGHBOUR, 100, asked, answer, Feature.NETWORK, owner)


def _swap_protocol_addresses() -> Actions:
    spare = whole(TARGET_ZONE.field)
    return (
        Move(whole(ARP_TPA), spare),
        Move(whole(ARP_SPA), whole(ARP_TPA)),
        Move(spare, whole(ARP_SPA)),
    )
