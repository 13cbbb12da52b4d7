# Copyright (c) qnet authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Allocation of what was not given: lowest free addresses and group numbers, highest free VNIs of guests. Pure."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.qiniu.qnet.plugins.module_utils import _model, _parse

Where = t.Callable[[str, str], str]


class Pool:
    """The addresses of one network that can be given to pods, or to Service IPs.

    Each subnet remembers where it stopped, so taking n addresses costs n steps and not n².
    """

    def __init__(self, network: _model.Network, role: str, used: set[tuple[int, int]]) -> None:
        self.network = network
        self.role = role
        self.used = used
        subnets = network.pod_subnets if role == "pod" else network.service_subnets
        self.spans = {text: _parse.span(text, role) for text in subnets}
        self._next = {text: chosen.low for text, chosen in self.spans.items()}

    def versions(self) -> list[int]:
        """IP versions that the pool has, IPv4 first."""
        return sorted({chosen.version for chosen in self.spans.values()})

    def take(self, version: int, avoid: t.Collection[_parse.Span] = ()) -> str:
        """The lowest free address of an IP version that lies in none of ``avoid``. Raises AddressPoolExhausted."""
        for text, chosen in self.spans.items():
            if chosen.version != version:
                continue
            candidate = self._next[text]
            while candidate <= chosen.high:
                avoided = next((span for span in avoid if span.holds(version, candidate)), None)
                if avoided is None and (version, candidate) not in self.used:
                    break
                candidate = avoided.last + 1 if avoided is not None else candidate + 1
            if not avoid:
                self._next[text] = candidate
            if candidate <= chosen.high:
                self.used.add((version, candidate))
                return _parse.from_number(version, candidate)
        subnets = [text for text, chosen in self.spans.items() if chosen.version == version]
        field = "pod_subnets" if self.role == "pod" else "service_subnets"
        if not subnets:
            raise _model.AddressPoolExhausted(
                f"network '{self.network.name}' has no {field} to take an address from; give the network one"
            )
        raise _model.AddressPoolExhausted(
            f"no free address is left in {field} {', '.join(subnets)} of network '{self.network.name}'; "
            f"add a subnet to {field} or remove objects"
        )


class _Pools:
    """Pools by network, built when first asked for."""

    def __init__(self, state: _model.State) -> None:
        self._state = state
        self._pools: dict[tuple[str, str], Pool] = {}
        self._used: dict[str, set[tuple[int, int]]] | None = None

    def get(self, network: str, role: str) -> Pool | None:
        """The pool of a network, None when there is no such network (the check says so)."""
        if network not in self._state["network"]:
            return None
        if self._used is None:
            self._used = self._collect()
        if (network, role) not in self._pools:
            used = self._used.setdefault(network, set())
            self._pools[network, role] = Pool(self._state["network"][network], role, used)
        return self._pools[network, role]

    def _collect(self) -> dict[str, set[tuple[int, int]]]:
        used: dict[str, set[tuple[int, int]]] = {}
        for pod in self._state["pod"].values():
            for address in pod.addresses or ():
                used.setdefault(pod.network, set()).add(_parse.number(address))
        for guest in self._state["guest"].values():
            for address in guest.addresses or ():
                used.setdefault(guest.home, set()).add(_parse.number(address))
        for service_ip in self._state["service_ip"].values():
            if service_ip.address is not None:
                used.setdefault(service_ip.network, set()).add(_parse.number(service_ip.address))
        return used


def fill(state: _model.State, wanted: t.Iterable[tuple[str, str]], where: Where) -> list[str]:
    """Allocate in place whatever is still None among the wanted (kind, key); returns what could not be."""
    problems: list[str] = []
    pools = _Pools(state)
    numbers = _free_numbers(state)
    for kind, key in wanted:
        record = state[kind].get(key)
        if record is None:
            continue
        try:
            if kind == "security_group" and record.number is None:
                state[kind][key] = dataclasses.replace(record, number=_take_number(numbers))
            elif kind == "service_ip" and record.address is None:
                state[kind][key] = _with_address(record, pools, _pod_spans(state, _home_of(state, record)))
            elif kind == "guest":
                state[kind][key] = _guest(record, pools, state)
            elif kind == "pod" and not record.addresses:
                state[kind][key] = _with_addresses(record, pools)
        except _model.AddressPoolExhausted as error:
            problems.append(f"{where(kind, key)}: {error}")
    return problems


def _free_numbers(state: _model.State) -> t.Iterator[int]:
    taken = {group.number for group in state["security_group"].values()}
    return (number for number in range(1, _model.MAX_GROUP_NUMBER + 1) if number not in taken)


def _take_number(numbers: t.Iterator[int]) -> int:
    number = next(numbers, None)
    if number is None:
        raise _model.AddressPoolExhausted(f"all {_model.MAX_GROUP_NUMBER} group numbers are taken; remove groups")
    return number


def _home_of(state: _model.State, record: _model.ServiceIP) -> str | None:
    """The network of the service of a Service IP that lies in another one."""
    service = state["service"].get(record.service_key)
    return service.network if service is not None and service.network != record.network else None


def _pod_spans(state: _model.State, network: str | None) -> list[_parse.Span]:
    found = state["network"].get(network) if network is not None else None
    return [] if found is None else [_parse.span(text, "pod") for text in found.pod_subnets]


def _with_address(record: _model.ServiceIP, pools: _Pools, home: t.Collection[_parse.Span]) -> _model.ServiceIP:
    """With ``home``, of an IP version that the pods there have, and an address that none of them can have."""
    pool = pools.get(record.network, "service")
    if pool is None:
        return record
    versions = [version for version in pool.versions() if not home or version in {span.version for span in home}]
    return dataclasses.replace(record, address=pool.take((versions or pool.versions() or [4])[0], home))


def _guest(record: _model.Guest, pools: _Pools, state: _model.State) -> _model.Guest:
    """With a VNI, and an address of each IP version that pods of both networks have: one that no caller can have."""
    pool = pools.get(record.home, "service")
    if pool is None or record.network not in state["network"]:
        return record
    if record.vni is None:
        record = dataclasses.replace(record, vni=_free_vni(state))
    if not record.addresses:
        callers = _pod_spans(state, record.network)
        versions = {span.version for span in callers} & {span.version for span in _pod_spans(state, record.home)}
        given = sorted(versions & set(pool.versions())) or sorted(versions)
        addresses = tuple(pool.take(version, callers) for version in given)
        record = dataclasses.replace(record, addresses=addresses)
    return record


def _free_vni(state: _model.State) -> int:
    """The highest VNI that is free together with the next one: far from those that people give to networks."""
    taken = {network.vni for network in state["network"].values()}
    for guest in state["guest"].values():
        if guest.vni is not None:
            taken |= {guest.vni, guest.vni + 1}
    for vni in range(_model.MAX_VNI - 1, 0, -1):
        if vni not in taken and vni + 1 not in taken:
            return vni
    raise _model.AddressPoolExhausted("no two VNIs in a row are free; remove guests or networks")


def _with_addresses(record: _model.Pod, pools: _Pools) -> _model.Pod:
    pool = pools.get(record.network, "pod")
    if pool is None:
        return record
    return dataclasses.replace(record, addresses=tuple(pool.take(version) for version in pool.versions()))
