# SPDX-License-Identifier: Apache-2.0
"""What may be answered: the numbers by which connections remember their grants, and the flows that let answers pass."""

from __future__ import annotations

from collections.abc import Iterator

from ..decide.decide import Grant, Origin
from ..model.objects import PortRule
from .family import Family
from .fields import (
    CT_MARK,
    CT_PROTO,
    CT_REPLY,
    CT_TP_DST,
    IP_FRAG,
    LATER_FRAGMENT,
    SOURCE_GROUP,
    TARGET_ZONE,
    Field,
)
from .frame import state
from .messages import Feature, Flow, Goto, OutputTo, flow, match, object_hash
from .tables import Table

Term = tuple[Field, int] | tuple[Field, int, int]
LATER: Term = (IP_FRAG, LATER_FRAGMENT)
"""A fragment that is not the first. It shows no ports, and Open vSwitch not even those of its connection.

Wherever ports are asked for it passes by itself: every ct() holds it until the first fragment is there, and that one
comes only where its ports may pass.
"""


def grant_number(grant: Grant) -> int:
    """The number by which connections remember a grant; never 0, which is for those that need none."""
    return object_hash(f"grant {grant.name}") or 1


def answer_flows(origin: Origin, group: int, ip: Family, grants: tuple[Grant, ...]) -> Iterator[Flow]:
    """Let answers pass whose connection was opened by a grant that stands; the same flows for all pairs of a group."""
    tables: list[tuple[Table, Goto | OutputTo]] = [(Table.DELIVERY, OutputTo(TARGET_ZONE))]
    if origin is Origin.POD:
        tables.append((Table.STATE, Goto(Table.LOCATION)))
    for grant in grants:
        opened_by = (ip.term, state(CT_REPLY), (SOURCE_GROUP, group), (CT_MARK, grant_number(grant)))
        because = f"export {grant.export.key}"
        for asked in (match(*opened_by, *terms) for terms in _answer_terms(grant, ip)):
            for table, then in tables:
                yield flow(table, 95, asked, (then,), Feature.ANSWERS, because)


def _answer_terms(grant: Grant, ip: Family) -> Iterator[tuple[Term, ...]]:
    """What an answer must match besides its grant, one of these."""
    # The port is that of the connection's first packet, before translation, in the direction of the opener.
    for rule in sorted(grant.export.ports, key=rule_order):
        port = ((CT_TP_DST, rule.port),) if rule.port is not None else ()
        yield ((CT_PROTO, ip.protocol(rule.protocol)), *port)
    if not grant.export.ports:
        yield ()
    elif any(rule.port is not None for rule in grant.export.ports):
        # Open vSwitch shows not even the port of its connection. The ct() before has held it until the first one came.
        yield (LATER,)


def rule_order(rule: PortRule) -> tuple[int, int]:
    """How the rules of an export are sorted."""
    return (rule.protocol, rule.port or 0)
