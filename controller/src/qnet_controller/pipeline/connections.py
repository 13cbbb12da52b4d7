# SPDX-License-Identifier: Apache-2.0
"""Connections that are open, and whether they may stay: pure functions of the model.

The tables have the last word on every packet. What is found here to have ended gets nothing through already; it is
forgotten so that nothing of it comes back when the same grant does, and counted for the receipt of the change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ..decide.decide import DIRECT, Grant, Kind, Origin, Question, decide_outside, grants, home_of, over
from ..decide.outside import on_link
from ..model.model import Model
from ..model.objects import (
    Change,
    Export,
    Host,
    Location,
    Network,
    Pod,
    PortRule,
    Removed,
    SecurityGroup,
    Service,
    ServiceIP,
)
from ..model.passages import Passage
from .answers import grant_number
from .fields import HAIRPIN_ZONE
from .messages import FlushConnection, Tuple

UDP = 17
ICMPV6 = 58
ICMP = (1, ICMPV6)  # the first is what exports say for both


class Connection(NamedTuple):
    """An entry of conntrack: what its opener sends, what answers look like before they are translated back.

    `live`: not merely an attempt, and not over.
    """

    zone: int
    opened: Tuple
    answered: Tuple
    mark: int
    live: bool


class Ends(NamedTuple):
    """A connection by its two pods, the same in the zones of both: network, protocol, address and port of each.

    The ports of ICMP are the identifier.
    """

    network: str
    protocol: int
    client: bytes
    client_port: int
    server: bytes
    server_port: int


# -- which ones may stay -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cut:
    """What nothing allows any more of the connections found on a switch.

    `open`: those that were neither mere attempts nor over. `flushes`: what makes the switches forget them, by datapath
    id. A server's host cannot always tell which way a connection came, so the client's host speaks for it.
    """

    open: frozenset[Ends]
    flushes: dict[int, list[FlushConnection]]


def cut(model: Model, datapath_id: int, found: Iterable[Connection], now: float) -> Cut:
    """Which of the connections found on a switch nothing allows at `now` (Unix seconds).

    Zones that are no local pod's are left alone: they end with their pod. So is ICMPv6, which the tables refuse as well
    and conntrack forgets by itself soon: asked to forget one, Open vSwitch 3.1 aborts (its reverse_icmp_type knows the
    types of IPv4 only).
    """
    pods = {location.port: pod for pod, location in model.local_pods(datapath_id)}
    known = [
        (pod, item) for item in found
        if item.opened.protocol != ICMPV6 and (pod := pods.get(item.zone & ~HAIRPIN_ZONE)) is not None
    ]  # fmt: skip
    over_now = [(pod, item) for pod, item in known if not stands(model, pod, item, now)]
    gone = {item for _, item in over_now}
    stay = {(item.zone, ends(pod, item)) for pod, item in known if item not in gone}
    flushes: dict[int, list[FlushConnection]] = defaultdict(list)
    for pod, item in over_now:
        flushes[datapath_id].append(FlushConnection(item.zone, item.opened))
        if (item.zone, ends(pod, item)) not in stay:
            _forget_at_server(model, pod, item, flushes)
    # A connection between networks is called what its client's host calls it; the server's sees another address.
    ours = [(pod, item) for pod, item in over_now if not _from_elsewhere(model, pod, item)]
    return Cut(frozenset(end for pod, item in ours if item.live and (end := ends(pod, item))), flushes)


def _from_elsewhere(model: Model, pod: Pod, item: Connection) -> bool:
    return isinstance(model.owner.get((pod.network, item.answered.target)), Passage)


def _forget_at_server(model: Model, pod: Pod, item: Connection, flushes: dict[int, list[FlushConnection]]) -> None:
    if _from_elsewhere(model, pod, item):
        return
    server = _server(model, pod, item)
    location = model.location(server) if isinstance(server, Pod) and server is not pod else None
    if location is not None and item.opened.source in pod.addresses:
        protocol, there, client, server_port, client_port = item.answered
        if protocol in ICMP:
            client_port, server_port = item.opened.sport, item.opened.dport
        seen = Tuple(protocol, client, there, client_port, server_port)
        flushes[location.datapath_id].append(FlushConnection(location.port, seen))


def _server(model: Model, opener: Pod, item: Connection) -> Pod | ServiceIP | Passage | None:
    """Who answers a connection of `opener`: a pod of its network, or of that behind a Service IP."""
    called = model.owner.get((opener.network, item.opened.target))
    network = home_of(model, called) if isinstance(called, ServiceIP) else opener.network
    return model.owner.get((network, item.answered.source))


def stands(model: Model, pod: Pod, item: Connection, now: float) -> bool:
    """Whether a connection in the zone of `pod` is one that would be allowed now, the way that it was opened."""
    if item.zone & HAIRPIN_ZONE:
        address = model.owner.get((pod.network, item.answered.target))
        return isinstance(address, ServiceIP) and address.service == pod.service
    if on_link(item.answered.target):
        return _outside(model, pod, item)
    seen = model.owner.get((pod.network, item.answered.target))
    if item.opened.source in pod.addresses and not isinstance(seen, Passage):
        return _may_go_on(model, pod, item, now)
    if item.opened.target in pod.addresses:
        opener = model.owner.get((seen.guest if isinstance(seen, Passage) else pod.network, item.opened.source))
        return isinstance(opener, Pod) and _allowed(model, opener, pod, None, item, now)
    return False


def _outside(model: Model, opener: Pod, item: Connection) -> bool:
    """Whether a rule opens what a connection out of the overlay was opened to."""
    group = model.groups.get(opener.group)
    if group is None or (opener.network, item.opened.target) in model.owner:
        return False
    verdict = decide_outside(model, Question(Origin.POD, opener.network, group.number, item.opened.target))
    return verdict.kind is Kind.OUTSIDE or _names(verdict.ports, item)


def _may_go_on(model: Model, opener: Pod, item: Connection, now: float) -> bool:
    called = model.owner.get((opener.network, item.opened.target))
    server = _server(model, opener, item)
    if called is None or not isinstance(server, Pod):
        return False
    if isinstance(called, ServiceIP):
        stays = called.service == server.service and not _left_behind(model, server, item)
        return stays and _allowed(model, opener, server, over(called), item, now)
    return called is server and _allowed(model, opener, server, DIRECT, item, now)


def _left_behind(model: Model, server: Pod, item: Connection) -> bool:
    """Whether a balanced connection has to end although it is allowed: its pod's time to drain is over, or it is UDP,
    which notices no end and moves on with its next packet, and its pod is not one to be balanced over any more.
    """
    if model.drained(server):
        return True
    wanted = server.state == "active" and server.weight > 0
    return item.opened.protocol == UDP and wanted and server not in model.backends(server.service).pods


def _allowed(model: Model, opener: Pod, server: Pod, way: str | None, item: Connection, now: float) -> bool:
    if opener.group == server.group:
        return item.mark == 0
    standing = grants(model, server.service, opener.group, now)
    return any(_covers(grant, item) for grant in standing if way in (None, grant.way))


def _covers(grant: Grant, item: Connection) -> bool:
    if item.mark != grant_number(grant):
        return False
    return not grant.export.ports or _names(grant.export.ports, item)


def _names(ports: frozenset[PortRule], item: Connection) -> bool:
    protocol = ICMP[0] if item.opened.protocol in ICMP else item.opened.protocol
    return PortRule(protocol) in ports or PortRule(protocol, item.opened.dport) in ports


def ends(pod: Pod, item: Connection) -> Ends | None:
    """What the connection in the zone of `pod` is called in both zones; None for a pod that called itself."""
    if item.zone & HAIRPIN_ZONE:
        return None
    if on_link(item.answered.target):  # as the pod calls it: what its host makes of it is nobody else's business
        protocol, client, server, client_port, server_port = item.opened
        return Ends(
            pod.network, protocol, client, client_port, server, client_port if protocol in ICMP else server_port
        )
    # The opener's zone knows what the other side sees, the server's zone sees it.
    protocol, server, client, server_port, client_port = item.answered
    if item.opened.source not in pod.addresses:
        protocol, client, server, client_port, server_port = item.opened
    elif client == server:
        return None
    if protocol in ICMP:
        client_port = server_port = item.opened.sport  # the identifier; the types of question and answer differ
    return Ends(pod.network, protocol, client, client_port, server, server_port)


# -- which ones to look at ---------------------------------------------------------------------------------------


def concerned(model: Model, changes: Iterable[Change]) -> frozenset[str]:
    """The groups whose connections may end with these changes; `model` is what they have not been applied to yet."""
    groups: set[str] = set()
    for change in changes:
        kind, key = (change.kind, change.key) if isinstance(change, Removed) else (type(change), change.key)
        old = model.table(kind).get(key)
        if old is not None and old != change:
            groups.update(_concerned(model, old, None if isinstance(change, Removed) else change))
        if isinstance(change, Network | Host) and old != change:  # what was outside may be so no more
            groups.update(group.name for group in model.groups.values() if group.egress)
    return frozenset(groups)


def _concerned(model: Model, old: object, new: object | None) -> Iterator[str]:
    match old:
        case Export():
            if not isinstance(new, Export) or narrows(old, new):
                yield from groups_of(old)
        case ServiceIP():
            if not isinstance(new, ServiceIP) or (old.address, old.network) != (new.address, new.network):
                yield from users_of(model, old.service)
        case Pod():
            if not isinstance(new, Pod) or _place(old) != _place(new):
                yield from users_of(model, old.service)
                # What it has opened itself is known to those who serve its group.
                for key in model.exports_to.get(old.group, ()):
                    yield model.exports[key].service.partition("/")[0]
        case Service():
            yield from users_of(model, old.key)
        case SecurityGroup():
            yield old.name


def _place(pod: Pod) -> tuple[object, ...]:
    return (pod.service, pod.network, pod.addresses)


def users_of(model: Model, service: str) -> Iterator[str]:
    """The groups that may use a service: its own, and those that it is exported to."""
    yield service.partition("/")[0]
    for key in model.exports_of.get(service, ()):
        yield model.exports[key].to_group


def groups_of(export: Export) -> Iterator[str]:
    """The two groups between which an export lets connections be opened."""
    yield export.service.partition("/")[0]
    yield export.to_group


def narrows(old: Export, new: Export) -> bool:
    """Whether the export gave something that it does not give any more."""
    fewer_ports = new.ports and not (old.ports and old.ports <= new.ports)
    sooner = new.expires is not None and (old.expires is None or new.expires < old.expires)
    return bool(fewer_ports) or sooner or old.direct > new.direct


def zones(model: Model, datapath_id: int, groups: frozenset[str]) -> list[int]:
    """The conntrack zones of the pods of these groups on a switch."""
    local: list[tuple[Pod, Location]] = model.local_pods(datapath_id)
    ports = sorted(location.port for pod, location in local if pod.group in groups)
    return [*ports, *(HAIRPIN_ZONE | port for port in ports)]
