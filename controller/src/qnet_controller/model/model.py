# SPDX-License-Identifier: Apache-2.0
"""The model: current intent and current pod locations, indexed for decisions.

Every change returns what it touched, as `Touch` keys. A flow that was derived from the model names the keys it
depends on, so the cost of a change is proportional to what it affects. A model built from the same objects in any
order answers alike; tests compare it with one built from scratch.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Container, Hashable, Iterable
from typing import Any, NamedTuple, TypeVar

from .memory import Memory
from .objects import (
    Address,
    Change,
    Export,
    Guest,
    Host,
    Location,
    Network,
    Object,
    Pod,
    Removed,
    SecurityGroup,
    Service,
    ServiceIP,
    differ_in_egress_alone,
)
from .passages import Passage, Passages, passage

_K = TypeVar("_K")
_V = TypeVar("_V")

Touch = tuple[str, object]
"""What a change touched: ("address", (network, address)), ("backends", service), ("exports", service),
("imports", group) for what is exported to it, ("group", group) for which services it has,
("source", group number) for what pods of the group may do, ("pod", pod key), ("network", network), ("hosts", "") for
any host, ("switch", datapath id) for a port that is no pod's, ("moved", (datapath id, pod key)) for a pod from another
switch, ("egress", group) for what pods of the group reach outside, ("refused", "") for what is never outside."""

Touches = frozenset[Touch]
NOTHING: Touches = frozenset()
HOSTS: Touch = ("hosts", "")
REFUSED: Touch = ("refused", "")


class Backends(NamedTuple):
    """Pods by key; `kept`: none of them is in rotation, they are used for want of any that is."""

    pods: tuple[Pod, ...]
    kept: bool


class Model:
    """Intent and locations. Not thread-safe: it belongs to the event loop."""

    def __init__(self) -> None:
        self.networks: dict[str, Network] = {}
        self.network_by_vni: dict[int, Network] = {}
        self.hosts: dict[str, Host] = {}
        self.host_by_datapath: dict[int, Host] = {}
        self.host_by_vtep: dict[Address, Host] = {}
        self.groups: dict[str, SecurityGroup] = {}
        self.group_by_number: dict[int, SecurityGroup] = {}
        self.services: dict[str, Service] = {}
        self.service_ips: dict[str, ServiceIP] = {}
        self.pods: dict[str, Pod] = {}
        self.exports: dict[str, Export] = {}
        self.owner: dict[tuple[str, Address], Pod | ServiceIP | Passage] = {}
        self.guests: dict[str, Guest] = {}
        self.spaces: dict[str, Network] = {}
        self.passages = Passages()
        self.ending: dict[str, Export] = {}
        self.pod_by_port: dict[str, Pod] = {}
        self.pods_of: dict[str, set[str]] = defaultdict(set)
        self.service_ips_of: dict[str, set[str]] = defaultdict(set)
        self.services_of: dict[str, set[str]] = defaultdict(set)
        self.exports_of: dict[str, set[str]] = defaultdict(set)
        self.exports_to: dict[str, set[str]] = defaultdict(set)
        self._sightings: dict[str, dict[int, Location]] = defaultdict(dict)
        self._ports_of: dict[int, dict[int, str]] = defaultdict(dict)
        self._absent: set[int] = set()
        self._draining: dict[str, Pod] = {}
        self._drained: set[str] = set()
        self._homes: dict[str, int] = {}  # by port name: the switch that reported it last, even when it is gone there
        self._memo = Memory()
        self._holds_from, self._holds_until = math.inf, -math.inf

    # -- what follows from it ------------------------------------------------------------------------------------

    def recall(self, key: Hashable, compute: Callable[[], _V], now: float | None = None) -> _V:
        """What `compute` has returned for `key`, as long as nothing changes and, with `now`, as long as no export ends.

        What is computed may depend on the model, on which exports have expired at `now`, and on nothing else.
        """
        if now is not None and not self._holds_from <= now < self._holds_until:
            if self._holds_until > -math.inf:  # otherwise nothing that is known depends on the time
                self._memo.forget()
            self._holds_from, self._holds_until = now, self.next_expiry(now) or math.inf
        known: _V | None = self._memo.known.get(key)
        return self._memo.keep(key, compute()) if known is None else known

    def _changed(self) -> None:
        """Whatever changes the model begins with this."""
        self._holds_until = -math.inf
        self._memo.forget()

    def copy(self) -> Model:
        """A model that says the same, and goes its own way from now on."""
        twin = Model.__new__(Model)
        for name, value in vars(self).items():
            setattr(twin, name, copied(value))
        return twin

    # -- intent ------------------------------------------------------------------------------------------------

    def apply(self, changes: Iterable[Change]) -> Touches:
        """Take over changes of intent, in any order; returns everything touched by them."""
        touched: set[Touch] = set()
        for change in changes:
            if isinstance(change, Removed):
                touched |= self._replace(change.kind, change.key, None)
            else:
                touched |= self._replace(type(change), change.key, change)
        return frozenset(touched)

    def _replace(self, kind: type[Object], key: str, new: Object | None) -> set[Touch]:
        table: dict[str, Object] = self.table(kind)
        old = table.get(key)
        if old == new:
            return set()
        self._changed()
        touched, egress_alone = set[Touch](), differ_in_egress_alone(old, new)
        if old is not None:
            touched |= {("egress", key)} if egress_alone else self._touches(old)
            self._unindex(old)
            del table[key]
        if new is not None:
            table[key] = new
            self._index(new)
            touched |= {("egress", key)} if egress_alone else self._touches(new)
        return touched

    def table(self, kind: type[Object]) -> dict[str, Object]:
        """The objects of a kind by key. Only `apply` may change it."""
        tables: dict[type[Object], object] = {
            Network: self.networks,
            Guest: self.guests,
            Host: self.hosts,
            SecurityGroup: self.groups,
            Service: self.services,
            ServiceIP: self.service_ips,
            Pod: self.pods,
            Export: self.exports,
        }
        return tables[kind]  # type: ignore[return-value]

    def _index(self, item: Object) -> None:
        match item:
            case Network():
                self.network_by_vni[item.vni] = self.spaces[item.name] = item
            case Guest():
                self._open_passage(passage(item))
            case Host():
                self.host_by_datapath[item.datapath_id] = item
                for vtep in item.vteps:
                    self.host_by_vtep[vtep] = item
            case SecurityGroup():
                self.group_by_number[item.number] = item
            case Service():
                self.services_of[item.group].add(item.key)
            case ServiceIP():
                self.service_ips_of[item.service].add(item.key)
                self.owner[item.network, item.address] = item
            case Pod():
                self.pods_of[item.service].add(item.key)
                self.pod_by_port[item.port_name] = item
                if item.state == "draining" and item.drain_until is not None:
                    self._draining[item.key] = item
                for place in self._places(item):
                    self.owner[place] = item
            case Export():
                self.exports_of[item.service].add(item.key)
                self.exports_to[item.to_group].add(item.key)
                if item.expires is not None:
                    self.ending[item.key] = item

    def _unindex(self, item: Object) -> None:
        match item:
            case Network():
                _drop(self.network_by_vni, item.vni, item)
                _drop(self.spaces, item.name, item)
            case Guest():
                self._close_passage(passage(item))
            case Host():
                _drop(self.host_by_datapath, item.datapath_id, item)
                for vtep in item.vteps:
                    _drop(self.host_by_vtep, vtep, item)
            case SecurityGroup():
                _drop(self.group_by_number, item.number, item)
            case Service():
                _discard(self.services_of, item.group, item.key)
            case ServiceIP():
                _discard(self.service_ips_of, item.service, item.key)
                _drop(self.owner, (item.network, item.address), item)
            case Pod():
                _discard(self.pods_of, item.service, item.key)
                _drop(self.pod_by_port, item.port_name, item)
                _drop(self._draining, item.key, item)
                self._drained.discard(item.key)
                for place in self._places(item):
                    _drop(self.owner, place, item)
            case Export():
                _discard(self.exports_of, item.service, item.key)
                _discard(self.exports_to, item.to_group, item.key)
                self.ending.pop(item.key, None)

    def _open_passage(self, found: Passage) -> None:
        self.passages.add(found)
        for space, pods in self._ends(found):
            self.network_by_vni[space.vni] = self.spaces[space.name] = space
            for pod in pods:
                self.owner |= {(space.name, address): pod for address in pod.addresses}
        self.owner |= {(found.home, address): found for address in found.addresses}

    def _close_passage(self, found: Passage) -> None:
        for space, pods in self._ends(found):
            _drop(self.network_by_vni, space.vni, space)
            _drop(self.spaces, space.name, space)
            for pod in pods:
                for address in pod.addresses:
                    _drop(self.owner, (space.name, address), pod)
        for address in found.addresses:
            _drop(self.owner, (found.home, address), found)
        self.passages.drop(found)

    def _ends(self, found: Passage) -> list[tuple[Network, list[Pod]]]:
        """The two spaces of a passage, with the pods that are targets there."""
        ends = ((found.calls, found.home), (found.answers, found.guest))
        return [(space, [pod for pod in self.pods.values() if pod.network == name]) for space, name in ends]

    def _places(self, pod: Pod) -> set[tuple[str, Address]]:
        """Where the addresses of a pod are its own: in its network, and in spaces that lead there."""
        names = [pod.network, *(space.name for space in self.passages.spaces(pod.network))]
        return {(name, address) for name in names for address in pod.addresses}

    def _touches(self, item: Object) -> set[Touch]:
        match item:
            case Network():
                return {("network", item.name), REFUSED}
            case Guest():
                return self._passage_touches(passage(item))
            case Host():
                pods = (self.pod_by_port.get(name) for name in self._ports_of[item.datapath_id].values())
                return {HOSTS, REFUSED}.union(*(self._pod_touches(pod) for pod in pods if pod))
            case SecurityGroup():
                return self._group_touches(item) | {("egress", item.name)}
            case Service():
                group = self.groups.get(item.group)
                return {("group", item.group)} | self._group_touches(group) | self._service_touches(item.key)
            case ServiceIP():
                # The first Service IP of a group turns `direct` into `open` for all of it.
                service = self.services.get(item.service)
                group = self.groups.get(service.group) if service else None
                return (
                    {("address", (item.network, item.address)), ("exports", item.service)}
                    | self._group_touches(group)
                )  # fmt: skip
            case Pod():
                return self._pod_touches(item)
            case Export():
                return self._export_touches(item)

    def _group_touches(self, group: SecurityGroup | None) -> set[Touch]:
        if group is None:
            return set()
        touched: set[Touch] = {("source", group.number), ("group", group.name)}
        for service in self.services_of.get(group.name, ()):
            touched |= self._service_touches(service)
        return touched

    def _service_touches(self, key: str) -> set[Touch]:
        touched: set[Touch] = {("exports", key), ("backends", key)}
        for pod in self.pods_of.get(key, ()):
            touched |= self._pod_touches(self.pods[pod])
        for name in self.service_ips_of.get(key, ()):
            address = self.service_ips[name]
            touched.add(("address", (address.network, address.address)))
        return touched

    def _passage_touches(self, found: Passage) -> set[Touch]:
        names = (found.guest, found.home, found.calls.name, found.answers.name)
        touched: set[Touch] = {("network", name) for name in names}
        touched |= {("address", (found.home, address)) for address in found.addresses}
        for space, pods in self._ends(found):
            touched |= {("address", (space.name, address)) for pod in pods for address in pod.addresses}
            touched |= {("backends", pod.service) for pod in pods}
        return touched

    def _pod_touches(self, pod: Pod) -> set[Touch]:
        places: set[Touch] = {("address", place) for place in self._places(pod)}
        return {("pod", pod.key), ("backends", pod.service)} | places

    def _export_touches(self, export: Export) -> set[Touch]:
        touched: set[Touch] = {("exports", export.service), ("imports", export.to_group)}
        # Answers from the exporting group to the importing one depend on the export as well.
        exporter = self.groups.get(export.service.partition("/")[0])
        if exporter:
            touched.add(("source", exporter.number))
        return touched

    # -- expiry ------------------------------------------------------------------------------------------------

    def next_expiry(self, now: float) -> float | None:
        """The next time (Unix seconds) after `now` at which an export ends, or a drain whose end has not been said."""
        exports = (e.expires for e in self.ending.values() if e.expires is not None and e.expires > now)
        drains = (pod.drain_until for key, pod in self._draining.items() if key not in self._drained)
        return min((end for end in (*exports, *drains) if end is not None), default=None)

    def expired(self, since: float, now: float) -> Touches:
        """What is touched by exports that ended after `since` and up to `now`."""
        ended = (e for e in self.ending.values() if e.expires is not None and since < e.expires <= now)
        return frozenset().union(*(self._export_touches(export) for export in ended))

    def end_drains(self, now: float) -> tuple[list[Pod], Touches]:
        """Say that it is `now`: the pods whose time to drain is over since the last time, and what that touches."""
        waiting = (pod for key, pod in self._draining.items() if key not in self._drained)
        over = [pod for pod in waiting if (pod.drain_until or 0) <= now]
        if over:
            self._changed()
            self._drained.update(pod.key for pod in over)
        return over, frozenset().union(*(self._pod_touches(pod) for pod in over))

    def drained(self, pod: Pod) -> bool:
        """Whether the time is over that a draining pod had for the connections of its service."""
        return pod.key in self._drained

    # -- location ----------------------------------------------------------------------------------------------

    def port_seen(self, datapath_id: int, number: int, name: str, live: bool, passing: bool = False) -> Touches:
        """A switch reports a port, new or changed. The latest switch to report a pod's port has the pod."""
        location = Location(datapath_id, number, live, passing)
        sightings = self._sightings[name]
        before = sightings.get(datapath_id)
        if before == location:
            return NOTHING
        touched = NOTHING
        if self._ports_of[datapath_id].get(number, name) != name:
            touched = self.port_gone(datapath_id, number)
        if before is not None and before.port != number:
            self._ports_of[datapath_id].pop(before.port, None)
        self._changed()
        # A dict keeps the place of a key that is written again: only a new port takes the pod over.
        self._sightings[name][datapath_id] = location
        self._ports_of[datapath_id][number] = name
        home, self._homes[name] = self._homes.get(name), datapath_id
        if home not in (None, datapath_id) and (pod := self.pod_by_port.get(name)):
            touched |= {("moved", (datapath_id, pod.key))}
        return touched | self._port_touches(datapath_id, name)

    def port_gone(self, datapath_id: int, number: int) -> Touches:
        """A switch no longer has the port."""
        if (name := self._ports_of[datapath_id].pop(number, None)) is None:
            return NOTHING
        self._changed()
        self._sightings[name].pop(datapath_id, None)
        if not self._sightings[name]:
            del self._sightings[name]
        return self._port_touches(datapath_id, name)

    def switch_ports(
        self, datapath_id: int, ports: Iterable[tuple[int, str, bool]], passing: Container[int] = ()
    ) -> Touches:
        """The complete port list (number, name, live) of a switch that has just connected; `passing` are numbers."""
        listed = {number: (name, live) for number, name, live in ports}
        touched: set[Touch] = set()
        for number, name in list(self._ports_of[datapath_id].items()):
            if listed.get(number, ("",))[0] != name:
                touched |= self.port_gone(datapath_id, number)
        for number, (name, live) in listed.items():
            touched |= self.port_seen(datapath_id, number, name, live, number in passing)
        if datapath_id in self._absent:
            self._absent.discard(datapath_id)
            self._changed()
            touched |= self._ports_touches(datapath_id)
        return frozenset(touched)

    def switch_lost(self, datapath_id: int) -> Touches:
        """The switch has been unreachable for longer than the grace time: its pods leave the rotation.

        Their locations stay known, so established traffic that still flows is not cut.
        """
        if datapath_id in self._absent:
            return NOTHING
        self._absent.add(datapath_id)
        self._changed()
        return self._ports_touches(datapath_id)

    def _port_touches(self, datapath_id: int, name: str) -> Touches:
        pod = self.pod_by_port.get(name)
        return frozenset(self._pod_touches(pod) if pod else [("switch", datapath_id)])

    def _ports_touches(self, datapath_id: int) -> Touches:
        names = self._ports_of[datapath_id].values()
        return frozenset().union(*(self._port_touches(datapath_id, name) for name in names))

    # -- questions ---------------------------------------------------------------------------------------------

    def location(self, pod: Pod) -> Location | None:
        """Where the pod is, as far as the switches have said."""
        sightings = self._sightings.get(pod.port_name)
        return sightings[next(reversed(sightings))] if sightings else None

    def in_rotation(self, pod: Pod) -> bool:
        """Whether new connections may be balanced to the pod."""
        location = self.location(pod)
        return (
            pod.state == "active"
            and pod.weight > 0
            and location is not None
            and location.live
            and location.datapath_id not in self._absent
            and (location.passing or not self._checked(pod))
        )

    def _checked(self, pod: Pod) -> bool:
        # Checks are sent over IPv4. A pod without it cannot pass, so it is balanced over as if none were declared.
        service = self.services.get(pod.service)
        return service is not None and service.health is not None and any(len(a) == 4 for a in pod.addresses)

    def backends(self, service: str) -> Backends:
        """The pods that new connections to a service are balanced over.

        While no pod is in rotation, those are kept that intent wants there and that are still somewhere: what says
        that they are all down may be what is wrong.
        """
        pods = [self.pods[key] for key in sorted(self.pods_of.get(service, ()))]
        fit = tuple(pod for pod in pods if self.in_rotation(pod))
        if fit:
            return Backends(fit, False)
        kept = tuple(pod for pod in pods if pod.state == "active" and pod.weight > 0 and self.location(pod))
        return Backends(kept, bool(kept))

    def local_pods(self, datapath_id: int) -> list[tuple[Pod, Location]]:
        """The pods located on a switch, with their locations."""
        found = []
        for name in self._ports_of.get(datapath_id, {}).values():
            pod = self.pod_by_port.get(name)
            location = self.location(pod) if pod else None
            if pod and location and location.datapath_id == datapath_id:
                found.append((pod, location))
        return found

    def port_number(self, datapath_id: int, name: str) -> int | None:
        """The OpenFlow number of a named port of a switch."""
        sighting = self._sightings.get(name, {}).get(datapath_id)
        return sighting.port if sighting else None

    def has_service_ip(self, group: str, network: str) -> bool:
        """Whether any service of the group has a Service IP in the network."""
        return any(
            self.service_ips[name].network == network
            for service in self.services_of.get(group, ())
            for name in self.service_ips_of.get(service, ())
        )


def copied(value: Any) -> Any:
    """A copy of an index and of the sets and indexes in it; objects of intent never change and are shared."""
    if isinstance(value, dict):
        twin = value.copy()
        for key, inner in value.items():
            if isinstance(inner, dict | set | list):
                twin[key] = inner.copy()
        return twin
    return value.copy() if isinstance(value, set | list | Passages | Memory) else value


def _drop(index: dict[_K, _V], key: _K, item: object) -> None:
    """Remove `key` unless another object has taken it over already."""
    if index.get(key) == item:
        del index[key]


def _discard(index: dict[str, set[str]], key: str, member: str) -> None:
    """Remove `member`, and the set when it is empty."""
    members = index.get(key)
    if members is not None:
        members.discard(member)
        if not members:
            del index[key]
