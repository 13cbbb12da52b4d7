# SPDX-License-Identifier: Apache-2.0
"""The parts that demands have in common: Service IPs, the ways to pods, answers, networks.

A part that is the same on several switches is compiled once for all of them, see `Model.recall`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ..decide.decide import Grant, Kind, Origin, addresses, backends, home_of
from ..model.model import HOSTS, Model
from ..model.objects import Address, Host, Location, Network, Pod, ServiceIP
from .answers import answer_flows
from .balance import spread
from .broadcast import broadcast_in_network
from .family import Family, family, number
from .fields import CT_NEW, KIND, VNI
from .frame import TUNNEL_PORT_NAME, network_flows, state
from .kept import lasts
from .messages import Actions, Bucket, Feature, Flow, Goto, Group, UseGroup, flow, match, object_hash
from .outside import OUTSIDE_PORT_NAME, answers_from_outside
from .service import backend, balancing, hairpin
from .tables import Table
from .wanted import Part, Program
from .ways import identity, way

_GROUP_IDS = 0x7FFFFFFF


@dataclass(frozen=True, slots=True)
class Settings:
    """Times in seconds; rates in packets per second to the controller, per pod and for the tunnel port.

    `broadcast_rate`: of what one pod may send to all of its group, where that is declared. `pod_demands`: how many
    demands of one pod a switch has at most.
    """

    idle_timeout_seconds: int = 300
    drop_timeout_seconds: int = 30
    pod_rate: int = 300
    pod_burst: int = 300
    tunnel_rate: int = 3000
    tunnel_burst: int = 3000
    warm_start: bool = True
    broadcast_rate: int = 300
    broadcast_burst: int = 300
    pod_demands: int = 4096

    def __hash__(self) -> int:  # of many keys of what is remembered
        return self.idle_timeout_seconds


class Here(NamedTuple):
    """As much of a switch as ways to pods depend on: its tunnel port and the families (Ethernet types) of its VTEPs."""

    tunnel: int | None
    families: tuple[int, ...]
    settings: Settings


@dataclass(frozen=True, slots=True)
class Parts:
    """Turns parts into programs for one switch."""

    model: Model
    datapath_id: int
    settings: Settings

    def here(self) -> Here:
        """What this switch is to the ways that lead from it."""
        return self.model.recall(("here", self.datapath_id), self._here)

    def _here(self) -> Here:
        host = self.model.host_by_datapath.get(self.datapath_id)
        ours = {family(vtep).eth_type for vtep in host.vteps} if host else set()
        return Here(self.tunnel_port(), tuple(sorted(ours)), self.settings)

    def tunnel_port(self) -> int | None:
        """The number of the switch's tunnel port."""
        return self.model.port_number(self.datapath_id, TUNNEL_PORT_NAME)

    def way_out(self) -> int | None:
        """The number of the port to the host's own kernel, if it has one."""
        return self.model.port_number(self.datapath_id, OUTSIDE_PORT_NAME)

    def part(self, part: Part) -> Program:
        """What a part consists of; it may be empty for a while, until those that need it have been compiled anew."""
        match part.what:
            case "presence":
                where, away, at_home = self.model.recall((part, self.here()), lambda: self._present(*part.key))
                return at_home if where == self.datapath_id else away
            case "service":
                everywhere, homes = self.model.recall((part, self.settings), lambda: self._served(*part.key))
                if self.datapath_id not in homes:
                    return everywhere
                here = (part, self.settings, self.datapath_id)
                return self.model.recall(here, lambda: self._with_turns(everywhere, *part.key))
            case "answers":
                return self.model.recall(part, lambda: self._answers(*part.key))
            case "network":
                return self._network(*part.key)
            case _:
                return self._outside(*part.key)

    @staticmethod
    def _answers(origin: Origin, group: int, ip: Family, grants: tuple[Grant, ...]) -> Program:
        program = Program()
        program.add(*answer_flows(origin, group, ip, grants))
        return program

    def _present(self, name: str, address: Address) -> tuple[int, Program, Program]:
        """Where a pod is, the way to it from other switches, and what its own switch needs instead: nothing."""
        away, at_home = (Program(depends={("address", (name, address)), ("network", name)}) for _ in range(2))
        network, pod = self.model.spaces.get(name), self.model.owner.get((name, address))
        if network is None or not isinstance(pod, Pod) or (location := self.model.location(pod)) is None:
            return 0, away, away
        away.add(*self._presence(network, pod, location, address))
        return location.datapath_id, away, at_home

    def _served(self, name: str, address: Address) -> tuple[Program, frozenset[int]]:
        """What balances connections to a Service IP, and the switches where backends take a turn of their own."""
        network, target = self.model.spaces.get(name), self.model.owner.get((name, address))
        if network is None or not isinstance(target, ServiceIP):
            return Program(depends={("address", (name, address)), ("network", name)}), frozenset()
        program = self._balanced(network, target)
        program.depends = {("address", (name, address)), ("network", name), ("backends", target.service)}
        return program, frozenset(location.datapath_id for _, location in self._own(network, target))

    def _with_turns(self, everywhere: Program, name: str, address: Address) -> Program:
        """What balances connections where a backend may be chosen by itself."""
        network, target = self.model.spaces[name], self.model.owner[name, address]
        program = Program(everywhere.flows.copy(), everywhere.groups, None, everywhere.depends, everywhere.needs)
        if isinstance(target, ServiceIP):
            for pod, location in self._own(network, target):
                if location.datapath_id == self.datapath_id:
                    program.add(*hairpin(pod, location, network, target))
        return program

    def _own(self, network: Network, target: ServiceIP) -> Iterator[tuple[Pod, Location]]:
        """The located backends of a Service IP that are in its own network, in a stable order."""
        if home_of(self.model, target) != network.name:
            return
        for key in sorted(self.model.pods_of.get(target.service, ())):
            pod = self.model.pods[key]
            location = self.model.location(pod)
            if pod.network == network.name and location is not None:
                yield pod, location

    def _network(self, name: str) -> Program:
        program = Program(depends={("network", name), HOSTS})
        network, host = self.model.networks.get(name), self.model.host_by_datapath.get(self.datapath_id)
        if network is not None:
            kernel = host is not None and host.datapath_kind == "system"
            program.add(*network_flows(network, self.model.passages.into(name), kernel))
            program.add(*broadcast_in_network(network))
        return program

    def _outside(self, name: str) -> Program:
        program = Program(depends={("egress", name)})
        group = self.model.groups.get(name)
        if group is not None:
            program.add(*answers_from_outside(group))
        return program

    # -- Service IPs -------------------------------------------------------------------------------------------

    def _balanced(self, network: Network, target: ServiceIP) -> Program:
        """What balances connections to a Service IP, the same on every switch."""
        program = Program()
        owner = f"service_ip {target.key}"
        choose: Actions = (Goto(Table.ASK),)  # whose clients keep their pods chooses no pod for them
        if not lasts(self.model, network.name, target.address):
            groups = self._select_groups(target, owner)
            program.groups |= {item.id: item for item in groups}
            choose = (UseGroup(groups[-1].id),)
        ip = family(target.address)
        called = (ip.target, number(target.address))
        asked = match((VNI, network.vni), (KIND, Kind.SERVICE), ip.term, called, state(CT_NEW))
        program.add(flow(Table.SERVICE, 50, asked, choose, Feature.SERVICE, owner))
        home = home_of(self.model, target)
        through = self.model.passages.between(network.name, home)
        space = through.calls if through and home != network.name else network
        # Not only pods in rotation: connections that were balanced earlier go on.
        for key in sorted(self.model.pods_of.get(target.service, ())):
            pod = self.model.pods[key]
            goes_on = pod.network == home and not self.model.drained(pod)
            for packed in addresses(pod, target.address) if goes_on else ():
                program.add(backend(network.vni, target.key, target.address, packed, space.vni))
                program.needs.add(Part("presence", (space.name, packed)))
        return program

    def _select_groups(self, target: ServiceIP, owner: str) -> list[Group]:
        """The group that balances; before it those of its parts, when it is a large one."""
        chosen = backends(self.model, target)
        weights = [(address, pod.weight) for pod in chosen for address in addresses(pod, target.address)]
        declared = (self.model.pods[key].weight for key in self.model.pods_of.get(target.service, ()))
        shared = spread(weights, declared, by_client=target.affinity == "client")
        whole_group = object_hash(owner) & _GROUP_IDS
        if len(shared.parts) == 1:
            return [balancing(whole_group, tuple(shared.shares), shared.hashed)]
        numbers = [object_hash(f"{owner} part {index}") & _GROUP_IDS for index in range(len(shared.parts))]
        parts = zip(numbers, shared.parts, strict=True)
        over_parts = tuple(Bucket(part, 1, (UseGroup(part),)) for part in numbers)
        return [
            *(balancing(part, tuple(shares), shared.hashed) for part, shares in parts),
            Group(whole_group, over_parts, shared.hashed),
        ]

    # -- where pods are ----------------------------------------------------------------------------------------

    def _presence(self, network: Network, pod: Pod, location: Location, address: Address) -> tuple[Flow, ...]:
        """The way to a pod on another host, and the way back from it."""
        port = self.tunnel_port()
        host = self.model.host_by_datapath.get(location.datapath_id)
        vtep = self.vtep(host) if host else None
        if host is None or vtep is None or port is None:
            return ()
        return tuple(self._ways(port, host, vtep, network, pod, address))

    def _ways(
        self, port: int, host: Host, vtep: Address, network: Network, pod: Pod, address: Address
    ) -> Iterator[Flow]:
        idle = self.settings.idle_timeout_seconds
        yield way(port, vtep, network.vni, pod.key, address, idle)
        for source in host.vteps:
            yield from self._identity(port, source, self.model.passages.reverse(network), pod, address)

    def vtep(self, host: Host) -> Address | None:
        """The first of a host's VTEP addresses in a family that this host has one in too."""
        here = self.model.host_by_datapath.get(self.datapath_id)
        ours = {family(vtep) for vtep in here.vteps} if here else set()
        return next((vtep for vtep in host.vteps if family(vtep) in ours), None)

    def _identity(self, port: int, vtep: Address, network: Network, pod: Pod, address: Address) -> Iterator[Flow]:
        group = self.model.groups.get(pod.group)
        if group is None:
            return
        idle = self.settings.idle_timeout_seconds
        yield identity(port, vtep, network.vni, group.number, pod.key, address, idle)
