# Copyright (c) qnet authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of calls between networks: for guests, and for Service IPs outside of the network of their service. Pure."""

from __future__ import annotations

import typing as t

from ansible_collections.qiniu.qnet.plugins.module_utils import _model, _parse

Say = t.Callable[[str, str, str], None]
Touched = t.Mapping[str, t.Collection[str]]


def check(want: _model.State, touched: Touched, say: Say) -> None:
    """Say every broken rule of the guests that are touched, or whose networks are."""
    for key in sorted(want["guest"]):
        guest = want["guest"][key]
        ends = (guest.network, guest.home)
        if key in touched["guest"] or any(network in touched["network"] for network in ends):
            if guest.network == guest.home:
                say("guest", key, "a network is no guest of itself; name two networks")
            else:
                _addresses(want, key, guest, say)
    if touched["guest"] or touched["network"]:
        _vnis(want, touched, say)


def needs_guest(want: _model.State, key: str, record: _model.ServiceIP, home: str, say: Say) -> None:
    """Say what stands in the way of a Service IP that is not in ``home``, the network of its service."""
    guest = want["guest"].get(f"{record.network}>{home}")
    if guest is None:
        say(
            "service_ip",
            key,
            f"is in network '{record.network}' but its service is in '{home}', and '{record.network}' is no guest of "
            f"'{home}'; add that guest, or remove the Service IP before moving the service to another network",
        )
        return
    version, value = _parse.number(record.address)
    if all(_parse.number(address)[0] != version for address in guest.addresses):
        say("service_ip", key, f"address {record.address} is of IPv{version}, of which guest '{guest.key}' has none")
    for text in want["network"][home].pod_subnets:
        if _parse.span(text, "pod").holds(version, value):
            say(
                "service_ip",
                key,
                f"address {record.address} could be that of a pod of network '{home}' ({text}), where its service is; "
                "choose one outside of that, from another service subnet if need be",
            )


def _addresses(want: _model.State, key: str, guest: _model.Guest, say: Say) -> None:
    versions: set[int] = set()
    if not guest.addresses:
        say("guest", key, "the two networks have pods of no common IP version; give both of them one")
    for address in guest.addresses:
        version, value = _parse.number(address)
        if version in versions:
            say("guest", key, f"address {address} is a second one of IPv{version}; keep one of each IP version")
        versions.add(version)
        subnets = want["network"][guest.home].service_subnets
        spans = [_parse.span(text, "service") for text in subnets]
        if not any(span.holds(version, value) and span.low <= value <= span.high for span in spans):
            there = ", ".join(subnets) or "none"
            say(
                "guest",
                key,
                f"address {address} is not one that the service_subnets of network '{guest.home}' have to give "
                f"({there}); choose one inside or leave it out",
            )
        for text in want["network"][guest.network].pod_subnets:
            if _parse.span(text, "pod").holds(version, value):
                say(
                    "guest",
                    key,
                    f"address {address} could be that of a pod of network '{guest.network}' ({text}); choose one "
                    "outside of that, from another service subnet if need be",
                )


def _vnis(want: _model.State, touched: Touched, say: Say) -> None:
    owners: dict[int, list[tuple[str, str]]] = {}
    for key, network in want["network"].items():
        owners.setdefault(network.vni, []).append(("network", key))
    for key, guest in want["guest"].items():
        for vni in (guest.vni, guest.vni + 1):
            owners.setdefault(vni, []).append(("guest", key))
    for vni, owned_by in sorted(owners.items()):
        # Two networks with one VNI are said elsewhere.
        guests = [owner for owner in owned_by if owner[0] == "guest"]
        mine = [owner for owner in owned_by if owner[1] in touched[owner[0]]]
        if guests and len(owned_by) > 1 and mine:
            other = next(owner for owner in owned_by if owner != mine[-1])
            say(
                *mine[-1],
                f"VNI {vni} belongs to {_model.TITLES[other[0]]} '{other[1]}' already (a guest has the number after "
                "its own as well); choose another one",
            )
