# SPDX-License-Identifier: Apache-2.0
"""The way out of the overlay: through the kernel of the pod's own host, which sees every pod at an address of its own.

That address is made of the number of the pod's port, so pods with the same address in different networks are told
apart, and what comes back names the pod. The pod's zone translates; only answers to what a pod opened come in.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..decide.decide import Kind
from ..decide.outside import link_address, on_link
from ..model.objects import EgressRule, Network, Pod, SecurityGroup
from .answers import LATER, Term
from .family import Family, family, number
from .fields import (
    CT_ESTABLISHED,
    CT_NEW,
    CT_PROTO,
    CT_RELATED,
    CT_REPLY,
    CT_TP_DST,
    ETH_DST,
    ETH_SRC,
    IN_PORT,
    KIND,
    SOURCE_GROUP,
    SOURCE_ZONE,
    TARGET_ZONE,
    VNI,
    whole,
)
from .frame import VIRTUAL_MAC, state
from .messages import Actions, Ct, Feature, Flow, Goto, Nat, Output, OutputTo, Set, flow, match
from .tables import Table

OUTSIDE_PORT_NAME = "qnet-out"
OUTSIDE_MAC = 0x0A0000000002
"""Of that port on every host (roles/outside)."""


def way_out(port: int | None) -> Iterator[Flow]:
    """Where packets leave; on a host without such a port they end."""
    leave: Actions = ()
    if port is not None:
        leave = (Set(whole(ETH_DST), OUTSIDE_MAC), Set(whole(ETH_SRC), VIRTUAL_MAC), Output(port))
    yield flow(Table.LOCATION, 110, match((KIND, Kind.OUTSIDE)), leave, Feature.OUTSIDE, "frame")


def to_and_from_outside(pod: Pod, group_number: int, network: Network, port: int, out: int) -> Iterator[Flow]:
    """A pod opens connections, which are translated in its zone, and what comes back to it is looked up there."""
    for packed in pod.addresses:
        if on_link(packed):  # a translation to the same address is none: Open vSwitch 3.1 aborts on one
            continue
        ip, known_as = family(packed), link_address(port, packed)
        goes = ((SOURCE_ZONE, port), (KIND, Kind.OUTSIDE), ip.term)
        opens = match(*goes, (ip.source, number(packed)), state(CT_NEW))
        commit = Ct(SOURCE_ZONE, Table.LOCATION, commit=True, nat=Nat("source", known_as))
        yield flow(Table.STATE, 80, opens, (commit,), Feature.OUTSIDE, f"pod {pod.key}")
        for plus in (CT_ESTABLISHED, CT_RELATED):
            goes_on = match(*goes, (ip.source, number(known_as)), state(plus, CT_REPLY))
            yield flow(Table.STATE, 90, goes_on, (Goto(Table.LOCATION),), Feature.OUTSIDE, f"pod {pod.key}")
        comes = match((IN_PORT, out), ip.term, (ip.target, number(known_as)))
        values = ((VNI, network.vni), (SOURCE_GROUP, group_number), (KIND, Kind.OUTSIDE), (TARGET_ZONE, port))
        to_pod = (Set(whole(ETH_DST), number(pod.mac)), Set(whole(ETH_SRC), VIRTUAL_MAC))
        then: Actions = (*(Set(what, value) for what, value in values), *to_pod, Goto(Table.EGRESS))
        yield flow(Table.ADMISSION, 200, comes, then, Feature.OUTSIDE, f"pod {pod.key}")


def answers_from_outside(group: SecurityGroup) -> Iterator[Flow]:
    """Let answers in, and errors about what was sent, while a rule opens what their connection was opened to."""
    for rule in group.egress:
        ip = family(rule.to.address)
        block = (ip.original_target, number(rule.to.address), ip.mask(rule.to.prefix))
        opened: tuple[Term, ...] = (ip.term, state(CT_REPLY), *((block,) if rule.to.prefix else ()))
        for terms in _ports(rule, ip):
            asked = match((KIND, Kind.OUTSIDE), (SOURCE_GROUP, group.number), *opened, *terms)
            yield flow(Table.DELIVERY, 95, asked, (OutputTo(TARGET_ZONE),), Feature.OUTSIDE, f"group {group.name}")


def _ports(rule: EgressRule, ip: Family) -> Iterator[tuple[Term, ...]]:
    if rule.port is None:
        yield ()
        return
    protocol = (CT_PROTO, ip.protocol(rule.port.protocol))
    yield (protocol, (CT_TP_DST, rule.port.port)) if rule.port.port is not None else (protocol,)
    if rule.port.port is not None:
        yield (LATER,)
