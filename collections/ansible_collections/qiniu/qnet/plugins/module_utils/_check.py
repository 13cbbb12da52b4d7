# Copyright (c) qnet authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules that hold between objects, checked on the wanted state before anything is written. Pure.

The database enforces references and unique indexes by itself, but only at commit and with row ids; here the same
faults, and those it cannot know, become sentences with names. Only objects that a plan touches, and objects that
depend on those, are reported: a fault elsewhere does not stand in the way of an unrelated change.
"""

from __future__ import annotations

import itertools
import typing as t

from ansible_collections.qiniu.qnet.plugins.module_utils import _guest_check, _l7_check, _model, _parse

Where = t.Callable[[str, str], str]
_SHOWN = 5


def check(have: _model.State, want: _model.State, where: Where) -> list[str]:
    """Every broken rule of the wanted state, one sentence each, in the order of :data:`_model.KINDS`."""
    return _Checker(have, want, where).run()


def _listed(names: t.Sequence[str]) -> str:
    shown = ", ".join(sorted(names)[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


class _Checker:
    def __init__(self, have: _model.State, want: _model.State, where: Where) -> None:
        self.have = have
        self.want = want
        self.where = where
        self.problems: list[str] = []
        self.touched = {
            kind: {key for key, record in want[kind].items() if have[kind].get(key) != record} for kind in _model.KINDS
        }

    def run(self) -> list[str]:
        """All checks; the first ones make the later ones meaningful."""
        self._references()
        if self.problems:
            return self.problems
        for key in sorted(self.touched["network"]):
            self._subnets(self.want["network"][key])
        self._unique("network", lambda network: [("VNI", network.vni)])
        _guest_check.check(self.want, self.touched, self._say)
        self._unique(
            "host", lambda host: [("datapath id", host.datapath_id), *(("VTEP address", vtep) for vtep in host.vteps)]
        )
        self._unique("security_group", lambda group: [("number", group.number)])
        self._unique(
            "pod", lambda pod: [("port name", pod.port_name), (f"MAC address in network '{pod.network}'", pod.mac)]
        )
        self._addresses()
        self._exports()
        self._egress()
        self._affinities()
        self.problems += _l7_check.check(self.want, self.touched, self.where)
        return self.problems

    def _say(self, kind: str, key: str, text: str) -> None:
        self.problems.append(f"{self.where(kind, key)}: {text}")

    # References

    def _references(self) -> None:
        missing: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for kind, targets in _REFERENCES.items():
            for key, record in self.want[kind].items():
                for target, get in targets:
                    named = get(record)
                    for wanted in named if isinstance(named, tuple) else (named,):
                        if wanted is not None and wanted not in self.want[target]:
                            missing.setdefault((target, wanted), []).append((kind, key))
        for (target, wanted), users in missing.items():
            if wanted in self.have[target]:
                names = [f"{_model.TITLES[kind]} {key}" for kind, key in users]
                self._say(
                    target, wanted, f"cannot be removed while these refer to it: {_listed(names)}; remove them first"
                )
            else:
                for kind, key in users:
                    self._say(kind, key, self._no_such(target, wanted))

    def _no_such(self, kind: str, key: str) -> str:
        known = list(self.want[kind])
        there = f"there are {_listed(known)}" if known else f"there is no {_model.TITLES[kind]} at all"
        return f"{_model.TITLES[kind]} '{key}' does not exist; {there}; create it first or correct the name"

    # Uniqueness

    def _unique(self, kind: str, values: t.Callable[[t.Any], t.Iterable[tuple[str, t.Any]]]) -> None:
        touched = self.touched[kind]
        if not touched:
            return
        owners: dict[tuple[str, t.Any], list[str]] = {}
        for key, record in self.want[kind].items():
            for labelled in values(record):
                owners.setdefault(labelled, []).append(key)
        for (what, value), keys in owners.items():
            if len(keys) > 1 and not touched.isdisjoint(keys):
                mine = max(keys, key=lambda key: (key in touched, key))
                others = [key for key in keys if key != mine]
                self._say(
                    kind,
                    mine,
                    f"{what} {value} belongs to {_model.TITLES[kind]} '{others[0]}' already; choose another one",
                )

    # Subnets and addresses

    def _subnets(self, network: _model.Network) -> None:
        spans = [("pod_subnets", text, _parse.span(text, "pod")) for text in network.pod_subnets]
        spans += [("service_subnets", text, _parse.span(text, "service")) for text in network.service_subnets]
        spans.sort(key=lambda entry: (entry[2].version, entry[2].first, entry[2].last))
        for (field, text, left), (next_field, next_text, right) in itertools.pairwise(spans):
            if left.version == right.version and right.first <= left.last:
                self._say(
                    "network",
                    network.name,
                    f"{field} {text} and {next_field} {next_text} overlap; "
                    "the subnets of a network must not share addresses",
                )

    def _affinities(self) -> None:
        """Only what a client keeps has an end."""
        for key in sorted(self.touched["service_ip"]):
            address = self.want["service_ip"][key]
            if address.affinity_seconds is not None and address.affinity != "client":
                self._say(
                    "service_ip",
                    key,
                    f"affinity_seconds {address.affinity_seconds} means nothing with affinity {address.affinity}; "
                    "use affinity client, or affinity_seconds 0",
                )

    def _egress(self) -> None:
        """A rule within a network would open nothing: addresses of the overlay are reached by exports alone."""
        inside = [
            (network.name, _parse.span(text, "service"))
            for network in self.want["network"].values()
            for text in (*network.pod_subnets, *network.service_subnets)
        ]
        for key in sorted(self.touched["security_group"]):
            for rule in _model.shown_egress(self.want["security_group"][key].egress):
                to = _parse.span(rule["to"], "service")
                for network, subnet in inside:
                    if subnet.holds(to.version, to.first) and subnet.holds(to.version, to.last):
                        self._say(
                            "security_group",
                            key,
                            f"egress to {rule['to']} would open nothing, those are addresses of network '{network}'; "
                            "export a service instead, or remove the rule",
                        )

    def _addresses(self) -> None:
        owners: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for key, guest in self.want["guest"].items():
            for address in guest.addresses:
                owners.setdefault((guest.home, address), []).append(("guest", key))
        for key, service_ip in self.want["service_ip"].items():
            owners.setdefault((service_ip.network, service_ip.address), []).append(("service_ip", key))
            if self._concerned("service_ip", key, service_ip):
                self._network_of_service("service_ip", key, service_ip)
                self._inside("service_ip", key, service_ip.network, service_ip.address)
        for key, pod in self.want["pod"].items():
            for address in pod.addresses:
                owners.setdefault((pod.network, address), []).append(("pod", key))
            if self._concerned("pod", key, pod):
                self._network_of_service("pod", key, pod)
                for address in pod.addresses:
                    self._inside("pod", key, pod.network, address)
        for (network, address), owned_by in owners.items():
            mine = [owner for owner in owned_by if owner[1] in self.touched[owner[0]]]
            if len(owned_by) > 1 and mine:
                other = next(owner for owner in owned_by if owner != mine[-1])
                self._say(
                    *mine[-1],
                    f"address {address} of network '{network}' belongs to {_model.TITLES[other[0]]} "
                    f"'{other[1]}' already; choose another one or leave it out",
                )

    def _concerned(self, kind: str, key: str, record: t.Any) -> bool:
        home = self.want["service"][record.service_key].network
        return (
            key in self.touched[kind]
            or record.service_key in self.touched["service"]
            or record.network in self.touched["network"]
            or (
                home != record.network
                and (home in self.touched["network"] or self._guest_changed(record.network, home))
            )
        )

    def _guest_changed(self, network: str, home: str) -> bool:
        key = f"{network}>{home}"
        return self.have["guest"].get(key) != self.want["guest"].get(key)

    def _network_of_service(self, kind: str, key: str, record: t.Any) -> None:
        network = self.want["service"][record.service_key].network
        if record.network == network:
            return
        if kind == "service_ip":
            _guest_check.needs_guest(self.want, key, record, network, self._say)
        else:
            self._say(
                kind,
                key,
                f"is in network '{record.network}' but its service is in '{network}'; "
                f"remove the {_model.TITLES[kind]} before moving the service to another network",
            )

    def _inside(self, kind: str, key: str, network_name: str, address: str) -> None:
        network = self.want["network"][network_name]
        field = "pod_subnets" if kind == "pod" else "service_subnets"
        subnets: tuple[str, ...] = getattr(network, field)
        version, value = _parse.number(address)
        for text in subnets:
            chosen = _parse.span(text, "pod" if kind == "pod" else "service")
            if chosen.holds(version, value):
                self._usable(kind, key, address, value, text, chosen)
                return
        there = ", ".join(subnets) or "none"
        self._say(
            kind,
            key,
            f"address {address} is outside of the {field} of network '{network_name}' ({there}); "
            "choose one inside or leave it out",
        )

    def _usable(self, kind: str, key: str, address: str, value: int, text: str, chosen: _parse.Span) -> None:
        if chosen.low <= value <= chosen.high:
            return
        what = "broadcast address" if value == chosen.last else "network address"
        if kind == "pod" and value == chosen.gateway:
            what = "default gateway"
        low, high = (_parse.from_number(chosen.version, bound) for bound in (chosen.low, chosen.high))
        self._say(kind, key, f"address {address} is the {what} of subnet {text}; choose one of {low} to {high}")

    def _exports(self) -> None:
        for key in sorted(self.touched["export"]):
            export = self.want["export"][key]
            if export.service.split("/")[0] == export.to:
                self._say("export", key, "a group reaches its own services anyway; remove the export")


_REFERENCES: dict[str, tuple[tuple[str, t.Callable[[t.Any], str | tuple[str, ...] | None]], ...]] = {
    "guest": (("network", lambda guest: guest.network), ("network", lambda guest: guest.home)),
    "service": (
        ("security_group", lambda service: service.group),
        ("network", lambda service: service.network),
    ),
    "service_ip": (
        ("service", lambda service_ip: service_ip.service_key),
        ("network", lambda service_ip: service_ip.network),
    ),
    "pod": (("service", lambda pod: pod.service_key), ("network", lambda pod: pod.network)),
    "export": (("service", lambda export: export.service), ("security_group", lambda export: export.to)),
    "l7_listener": (("service", lambda listener: listener.balancer),),
    "l7_route": (("l7_listener", lambda route: route.listener), ("service", lambda route: route.services)),
}
