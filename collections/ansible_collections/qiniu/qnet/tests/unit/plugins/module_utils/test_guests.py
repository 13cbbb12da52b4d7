# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans of calls between networks: what is allocated, what is refused, and what stays where it was put."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.qiniu.qnet.plugins.module_utils import _model, _plan, _pods, _tenant

# Both use the same addresses; blue has pods where red has Service IPs as well.
RED = {
    "name": "red",
    "vni": 100,
    "pod_subnets": ["10.10.0.0/29", "10.11.0.0/29", "fd10::/64"],
    "service_subnets": ["10.96.0.0/28", "fd96::/64"],
}
BLUE = {
    "name": "blue",
    "vni": 16777215,
    "pod_subnets": ["10.10.0.0/29", "10.96.0.0/30", "fd10::/64"],
    "service_subnets": ["10.11.0.0/28", "10.97.0.0/29"],
}
GUEST = {"network": "blue", "home": "red"}
THERE = {"name": "there", "network": "blue"}


def tenants(*service_ips: dict[str, t.Any], network: str = "red") -> list[dict[str, t.Any]]:
    services = [{"name": "s", "network": network, "service_ips": list(service_ips)}]
    return [{"name": "t", "security_groups": [{"name": "a", "services": services}, {"name": "b"}]}]


def apply(
    have: _model.State,
    *service_ips: dict[str, t.Any],
    guests: list[dict[str, t.Any]] | None = None,
    purge: bool = False,
    **red: t.Any,
) -> _model.State:
    wanted = [GUEST] if guests is None else guests
    return _tenant.plan_tenants(have, [{**RED, **red}, BLUE], tenants(*service_ips), [], purge, guests=wanted).after


@pytest.fixture
def joined() -> _model.State:
    return apply(_model.State(), THERE)


def refused(*service_ips: dict[str, t.Any], have: _model.State | None = None, **more: t.Any) -> list[str]:
    with pytest.raises(_model.IntentRefused) as said:
        apply(have or _model.State(), *service_ips, **more)
    return said.value.problems


def test_what_is_not_given_is_taken_from_where_nobody_else_looks(joined: _model.State) -> None:
    # VNIs: 16777215 is that of blue. Addresses: 10.96.0.1 to .3 and 10.11.0.1 to .7 could be those of pods.
    assert joined["guest"]["blue>red"] == _model.Guest("blue", "red", 16777213, ("10.96.0.4", "fd96::1"))
    there = joined["service_ip"]["a/s:there"]
    assert (there.network, there.address) == ("blue", "10.11.0.8")


def test_the_same_again_changes_nothing(joined: _model.State) -> None:
    assert apply(joined, THERE) == joined
    assert apply(joined, {"name": "there"}) == joined


def test_without_its_network_a_service_ip_comes_home_when_the_list_is_the_whole_truth(joined: _model.State) -> None:
    home = apply(joined, {"name": "there"}, purge=True)["service_ip"]["a/s:there"]
    assert (home.network, home.address) == ("red", "10.96.0.1")


def test_a_guest_address_is_given_to_nobody_else(joined: _model.State) -> None:
    names = [f"n{number}" for number in range(13)]
    after = apply(joined, *({"name": name} for name in names))
    given = {after["service_ip"][f"a/s:{name}"].address for name in names}
    assert "10.96.0.4" not in given
    assert len(given) == 13
    said = refused({"name": "main", "address": "10.96.0.4"}, have=joined)
    assert said == [
        "tenants[0].security_groups[0].services[0].service_ips[0]: Service IP 'a/s:main': address 10.96.0.4 of network "
        "'red' belongs to guest 'blue>red' already; choose another one or leave it out"
    ]


@pytest.mark.parametrize(
    ("guest", "word"),
    [
        ({"home": "blue"}, "no guest of itself"),
        ({"home": "green"}, "network 'green' does not exist"),
        ({"vni": 99}, "VNI 100 belongs to network 'red' already"),
        ({"vni": 16777214}, "VNI 16777215 belongs to network 'blue' already"),
        ({"vni": 16777215}, "out of range"),
        ({"addresses": []}, "the list is empty"),
        ({"addresses": ["10.96.0.2"]}, "could be that of a pod of network 'blue' (10.96.0.0/30)"),
        ({"addresses": ["10.10.0.3"]}, "not one that the service_subnets of network 'red' have to give"),
        ({"addresses": ["10.96.0.8", "10.96.0.9"]}, "a second one of IPv4"),
    ],
)
def test_a_guest_that_cannot_be_is_refused_with_the_reason(guest: dict[str, t.Any], word: str) -> None:
    said = refused(guests=[{**GUEST, **guest}])
    assert any(word in text for text in said), said
    assert all(text.startswith("guests[0]") for text in said)


@pytest.mark.parametrize(
    ("service_ip", "word"),
    [
        ({"address": "10.11.0.5"}, "could be that of a pod of network 'red' (10.11.0.0/29)"),
        ({"address": "10.98.0.1"}, "outside of the service_subnets of network 'blue'"),
    ],
)
def test_a_service_ip_elsewhere_that_cannot_be_is_refused(service_ip: dict[str, t.Any], word: str) -> None:
    said = refused({**THERE, **service_ip})
    assert len(said) == 1
    assert word in said[0]


def test_a_service_ip_needs_the_guest_that_carries_its_calls(joined: _model.State) -> None:
    for have in (_model.State(), joined):
        said = refused(THERE, have=have, guests=[], purge=True)
        assert len(said) == 1
        assert "'blue' is no guest of 'red'" in said[0]
    draft = _plan.Draft(joined)
    draft.remove("guest", GUEST)
    with pytest.raises(_model.IntentRefused, match="is no guest of"):
        draft.plan()


def test_a_guest_without_the_ip_version_of_a_service_ip_is_refused() -> None:
    said = refused(THERE, guests=[{**GUEST, "addresses": ["fd96::9"]}])
    assert len(said) == 1
    assert "is of IPv4, of which guest 'blue>red' has none" in said[0]


def test_pods_that_grow_over_a_service_ip_elsewhere_are_refused(joined: _model.State) -> None:
    said = refused(have=joined, pod_subnets=["10.10.0.0/29", "10.11.0.0/28", "fd10::/64"])
    assert len(said) == 1
    assert "10.11.0.8 could be that of a pod of network 'red'" in said[0]


def test_a_network_that_is_an_end_cannot_go(joined: _model.State) -> None:
    draft = _plan.Draft(joined)
    draft.remove("network", {"name": "blue"})
    with pytest.raises(
        _model.IntentRefused, match=r"cannot be removed while these refer to it: Service IP a/s:there, guest"
    ):
        draft.plan()


def test_pods_keep_away_from_nothing_but_their_own(joined: _model.State) -> None:
    pods = [{"group": "a", "service": "s", "name": f"s-{number}"} for number in range(1, 4)]
    after = _pods.plan_pods(joined, pods).after
    assert [after["pod"][f"a/s-{number}"].addresses[0] for number in range(1, 4)] == [
        "10.10.0.2", "10.10.0.3", "10.10.0.4",
    ]  # fmt: skip
