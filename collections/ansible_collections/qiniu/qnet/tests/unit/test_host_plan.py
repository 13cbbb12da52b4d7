# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import dataclasses
import typing as t

import pytest

from ansible_collections.qiniu.qnet.plugins.module_utils import _host_plan as plan

WANT = plan.Attachment(
    pod="g/s-1",
    port_name="qn0123456789ab",
    namespace="/run/netns/g.s-1",
    owned=True,
    mac="02:00:00:00:00:05",
    addresses=("10.1.0.5/16", "fd00::5/64"),
    gateways=("10.1.0.1", "fd00::1"),
    mtu=1450,
    transmit_checksum=False,
)


def link(**changes: t.Any) -> plan.Tree:
    return {
        "ifindex": 2,
        "link_index": 9,
        "link_netnsid": 0,
        "ifname": "eth0",
        "flags": ["UP"],
        "mtu": 1450,
        "address": WANT.mac,
        "linkinfo": {"info_kind": "veth"},
        "addr_info": [
            {"local": "10.1.0.5", "prefixlen": 16, "scope": "global"},
            {"local": "fd00::5", "prefixlen": 64, "scope": "global"},
        ],
        **changes,
    }


def host_link(**changes: t.Any) -> plan.Tree:
    return {
        "ifindex": 9,
        "link_index": 2,
        "link_netnsid": 1,
        "flags": ["NOARP", "UP"],
        "mtu": 1450,
        "linkinfo": {"info_kind": "veth"},
        **changes,
    }


ROUTES: tuple[tuple[int, plan.Tree], ...] = (
    (4, {"dst": "default", "gateway": "10.1.0.1", "dev": "eth0"}),
    (4, {"dst": "10.1.0.0/16", "dev": "eth0"}),
    (6, {"dst": "fd00::/64", "dev": "eth0"}),
    (6, {"dst": "default", "gateway": "fd00::1", "dev": "eth0"}),
)


def facts(**changes: t.Any) -> plan.Facts:
    good = plan.Facts(
        namespace=True,
        host_link=host_link(),
        host_settings=dict(plan.host_settings(WANT.port_name)),
        link=link(),
        settings=dict(plan.pod_settings()),
        routes=ROUTES,
        transmit_checksum=False,
    )
    return dataclasses.replace(good, **changes)


def test_an_attached_pod_needs_nothing() -> None:
    assert plan.plan(WANT, facts()).empty
    assert plan.present(WANT, facts()) == plan.wanted(WANT)


def test_a_pod_on_the_kernels_datapath_is_told_its_gateway_and_asks_nobody_else() -> None:
    want = dataclasses.replace(
        WANT, addresses=("10.1.0.5/16", "fd00::5/128"), neighbours=("fd00::1",), virtual_mac="0a:00:00:00:00:01"
    )
    steps = plan.plan(want, plan.Facts())
    told = steps.inside.index("neighbour replace fd00::1 lladdr 0a:00:00:00:00:01 nud permanent dev eth0")
    assert steps.inside[told + 1 :] == (
        "route replace fd00::1 dev eth0",
        "route replace 0.0.0.0/0 via 10.1.0.1 dev eth0",
        "route replace ::/0 via fd00::1 dev eth0",
    )
    before = plan.plan(want, facts()).inside  # it had the whole subnet
    assert "route delete fd00::/64 dev eth0" not in before
    assert before.index("address delete fd00::5/64 dev eth0") < before.index("address add fd00::5/128 dev eth0 nodad")
    there = link(
        addr_info=[{**item, "prefixlen": 128 if ":" in str(item["local"]) else 16} for item in link()["addr_info"]]
    )
    routes = tuple(row for row in ROUTES if row[1]["dst"] != "fd00::/64")
    good = facts(
        link=there, routes=(*routes, (6, {"dst": "fd00::1", "dev": "eth0"})), neighbours={"fd00::1": want.virtual_mac}
    )
    assert plan.plan(want, good).empty
    assert plan.present(want, good) == plan.wanted(want)


def test_from_nothing_everything_is_made_with_the_port_down() -> None:
    steps = plan.plan(WANT, plan.Facts())
    assert steps.make_namespace
    assert steps.rebuild
    assert steps.host == (
        "link add name qn0123456789ab mtu 1450 type veth "
        "peer name eth0 address 02:00:00:00:00:05 mtu 1450 netns /run/netns/g.s-1",
        "link set dev qn0123456789ab arp off",
    )
    assert steps.inside == (
        "link set dev lo up",
        "link set dev eth0 up",
        "address add 10.1.0.5/16 dev eth0",
        "address add fd00::5/64 dev eth0 nodad",
        "route replace 0.0.0.0/0 via 10.1.0.1 dev eth0",
        "route replace ::/0 via fd00::1 dev eth0",
    )
    assert steps.transmit_checksum is False


@pytest.mark.parametrize(
    "broken",
    [
        {"link": None},
        {"host_link": None},
        {"link": link(link_index=8)},
        {"host_link": host_link(link_index=3)},
        {"link": {key: value for key, value in link().items() if key != "link_netnsid"}},
    ],
)
def test_half_a_pair_is_made_anew(broken: dict[str, t.Any]) -> None:
    found = facts(**broken)
    steps = plan.plan(WANT, found)
    assert steps.rebuild
    assert not steps.make_namespace
    assert (found.host_link is not None) == (steps.host[0] == "link delete dev qn0123456789ab")
    assert (found.link is not None) == (steps.inside_first == ("link delete dev eth0",))


@pytest.mark.parametrize(
    ("broken", "host", "inside"),
    [
        ({"host_link": host_link(mtu=1500)}, ["link set dev qn0123456789ab mtu 1450"], []),
        ({"host_link": host_link(flags=["UP"])}, ["link set dev qn0123456789ab arp off"], []),
        ({"host_link": host_link(flags=["NOARP"])}, ["link set dev qn0123456789ab up"], []),
        ({"routes": ROUTES[1:]}, [], ["route replace 0.0.0.0/0 via 10.1.0.1 dev eth0"]),
        ({"routes": (ROUTES[0], *ROUTES[2:])}, [], ["route replace 10.1.0.0/16 dev eth0"]),
        (
            {"routes": (*ROUTES, (6, {"dst": "default", "dev": "eth0"}))},
            [],
            [
                "route delete ::/0 dev eth0",
                "route replace 0.0.0.0/0 via 10.1.0.1 dev eth0",
                "route replace ::/0 via fd00::1 dev eth0",
            ],
        ),
    ],
)
def test_repairs_are_the_difference(broken: dict[str, t.Any], host: list[str], inside: list[str]) -> None:
    steps = plan.plan(WANT, facts(**broken))
    assert list(steps.host) == host
    assert list(steps.inside) == inside
    assert not steps.rebuild
    assert plan.present(WANT, facts(**broken)) != plan.wanted(WANT)


def test_a_wrong_address_is_replaced_and_routes_are_set_again() -> None:
    wrong = link(addr_info=[{"local": "10.1.0.6", "prefixlen": 16, "scope": "global"}])
    assert plan.plan(WANT, facts(link=wrong)).inside == (
        "address delete 10.1.0.6/16 dev eth0",
        "address add 10.1.0.5/16 dev eth0",
        "address add fd00::5/64 dev eth0 nodad",
        "route replace 0.0.0.0/0 via 10.1.0.1 dev eth0",
        "route replace ::/0 via fd00::1 dev eth0",
    )


def test_routes_of_the_workload_and_link_local_addresses_are_left_alone() -> None:
    own = (4, {"dst": "192.0.2.0/24", "gateway": "10.1.0.9", "dev": "eth0"})
    local = {"local": "fe80::1", "prefixlen": 64, "scope": "link"}
    found = facts(routes=(*ROUTES, own), link=link(addr_info=[*link()["addr_info"], local]))
    assert plan.plan(WANT, found).empty


def test_settings_that_differ_are_written_and_those_the_kernel_lacks_are_not() -> None:
    settings: dict[str, str | None] = dict(plan.host_settings(WANT.port_name))
    rp_filter, disable_ipv6 = "net/ipv4/conf/qn0123456789ab/rp_filter", "net/ipv6/conf/qn0123456789ab/disable_ipv6"
    settings[rp_filter] = "2"
    settings[disable_ipv6] = None
    assert plan.plan(WANT, facts(host_settings=settings)).host_settings == ((rp_filter, "1"),)


def test_checksums_follow_the_datapath() -> None:
    assert plan.plan(WANT, facts(transmit_checksum=True)).transmit_checksum is False
    kernel = dataclasses.replace(WANT, transmit_checksum=True)
    assert plan.plan(kernel, facts(transmit_checksum=True)).transmit_checksum is None
    assert plan.plan(kernel, facts()).transmit_checksum is True


@pytest.mark.parametrize(
    ("want", "found", "words"),
    [
        ({"owned": False}, plan.Facts(), "no network namespace there"),
        ({"owned": False}, facts(host_link=None), "not this pod's"),
        ({}, facts(host_link=host_link(linkinfo={"info_kind": "tun"})), "another kind"),
        ({"mtu": 1279}, facts(), "1280"),
    ],
)
def test_what_cannot_be_done_is_refused_in_words(want: dict[str, t.Any], found: plan.Facts, words: str) -> None:
    found_faults = plan.refusals(dataclasses.replace(WANT, **want), found)
    assert len(found_faults) == 1
    assert words in found_faults[0]
    assert found_faults[0].startswith("pod g/s-1: ")


def test_what_can_be_repaired_is_not_refused() -> None:
    assert plan.refusals(WANT, facts(host_link=None)) == []
    assert plan.refusals(dataclasses.replace(WANT, owned=False), facts()) == []
    assert plan.refusals(dataclasses.replace(WANT, mtu=600, addresses=("10.1.0.5/16",)), facts()) == []
