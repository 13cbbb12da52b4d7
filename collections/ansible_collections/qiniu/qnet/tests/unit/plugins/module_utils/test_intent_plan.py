# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans, checks and allocation on plain values, with no database."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.qiniu.qnet.plugins.module_utils import _model, _plan, _pods, _tenant

PROD = {"name": "prod", "vni": 100, "pod_subnets": ["10.10.0.0/29"], "service_subnets": ["10.96.0.0/29"]}


def tenant(*services: dict[str, t.Any], group: str = "fop") -> dict[str, t.Any]:
    return {"name": "fop", "security_groups": [{"name": group, "services": list(services)}]}


def image(**more: t.Any) -> dict[str, t.Any]:
    return {"name": "image", "network": "prod", **more}


@pytest.fixture
def fleet() -> _model.State:
    tenants = [tenant(image(service_ips=[{"name": "main"}])), tenant(group="entry")]
    exports = [{"service": "fop/image", "to": "entry", "ports": ["tcp/80"], "expires": "2027-01-01T00:00:00Z"}]
    after = _tenant.plan_tenants(_model.State(), [PROD], tenants, exports, purge=False).after
    return _pods.plan_pods(after, [pod("image-1")]).after


def pod(name: str, **more: t.Any) -> dict[str, t.Any]:
    return {"group": "fop", "service": "image", "name": name, **more}


def problems(plan: t.Callable[[], _plan.Plan]) -> list[str]:
    with pytest.raises(_model.IntentRefused) as refused:
        plan()
    return refused.value.problems


def put(have: _model.State, kind: str, **values: t.Any) -> _plan.Plan:
    draft = _plan.Draft(have)
    draft.put(kind, values)
    return draft.plan()


def remove(have: _model.State, kind: str, **values: t.Any) -> _plan.Plan:
    draft = _plan.Draft(have)
    draft.remove(kind, values)
    return draft.plan()


# Names and numbers that other parts of the system derive in the same way.


def test_derived_names_follow_the_architecture() -> None:
    # printf 'fop/image-1' | sha256sum: the digits were taken from that, not from the code under test
    assert _model.port_name_of("fop/image-1") == "qn" + SHA_OF_POD[:12]
    assert _model.mac_of("fop/image-1").replace(":", "") == "02" + SHA_OF_POD[12:22]
    assert _model.namespace_of("fop/image-1") == "fop.image-1"
    assert _model.datapath_id_of("h1") == "33112ee14ee469c3"


SHA_OF_POD = "00a07f803aff51f57fa228"

# Allocation


def test_pods_get_the_lowest_free_addresses_and_never_the_gateway(fleet: _model.State) -> None:
    plan = _pods.plan_pods(fleet, [pod("image-2"), pod("image-3", addresses=["10.10.0.4"]), pod("image-4")])
    addresses = {key: record.addresses for key, record in plan.after["pod"].items()}
    assert addresses == {
        "fop/image-1": ("10.10.0.2",),
        "fop/image-2": ("10.10.0.3",),
        "fop/image-3": ("10.10.0.4",),
        "fop/image-4": ("10.10.0.5",),
    }


def test_an_address_that_was_freed_is_given_again(fleet: _model.State) -> None:
    two = _pods.plan_pods(fleet, [pod("image-2")]).after
    one = _pods.plan_removal(two, [pod("image-1")]).after
    assert _pods.plan_pods(one, [pod("image-3")]).after["pod"]["fop/image-3"].addresses == ("10.10.0.2",)


def test_exhaustion_names_network_and_subnets_and_each_pod(fleet: _model.State) -> None:
    said = problems(lambda: _pods.plan_pods(fleet, [pod(f"image-{number}") for number in range(2, 9)]))
    assert len(said) == 3  # .2 to .6 are five, one of them taken; .7 is the broadcast address
    assert said[0].startswith("pods[4]: pod 'fop/image-6': no free address is left in pod_subnets 10.10.0.0/29")
    assert "network 'prod'" in said[0]


def test_a_second_subnet_is_used_when_the_first_is_full(fleet: _model.State) -> None:
    wider = put(fleet, "network", name="prod", pod_subnets=["10.10.0.0/29", "10.10.1.0/29"]).after
    plan = _pods.plan_pods(wider, [pod(f"image-{number}") for number in range(2, 7)])
    assert plan.after["pod"]["fop/image-6"].addresses == ("10.10.1.2",)


def test_a_dual_stack_network_gives_one_address_of_each_version(fleet: _model.State) -> None:
    dual = put(fleet, "network", name="prod", pod_subnets=["10.10.0.0/29", "fd00::/64"]).after
    plan = _pods.plan_pods(dual, [pod("image-2")])
    assert plan.after["pod"]["fop/image-2"].addresses == ("10.10.0.3", "fd00::2")
    assert _pods.attachment(plan.after, "fop/image-2")["addresses"] == [
        {"address": "10.10.0.3", "prefix_length": 29, "gateway": "10.10.0.1"},
        {"address": "fd00::2", "prefix_length": 64, "gateway": "fd00::1"},
    ]


def test_group_numbers_are_the_lowest_free_ones(fleet: _model.State) -> None:
    assert {group.name: group.number for group in fleet["security_group"].values()} == {"fop": 1, "entry": 2}
    fleet = put(fleet, "security_group", name="late", tenant="x", number=4).after
    for name, number in (("a", 3), ("b", 5)):
        fleet = put(fleet, "security_group", name=name, tenant="x").after
        assert fleet["security_group"][name].number == number


def test_service_ip_without_service_subnets_says_so(fleet: _model.State) -> None:
    bare = put(fleet, "network", name="bare", vni=7, pod_subnets=["10.0.0.0/24"]).after
    bare = put(bare, "service", group="fop", name="new", network="bare").after
    (said,) = problems(lambda: put(bare, "service_ip", group="fop", service="new", name="main"))
    assert "network 'bare' has no service_subnets" in said


# Omitted, empty, equal


def test_omitted_fields_keep_their_value(fleet: _model.State) -> None:
    plan = put(fleet, "export", service="fop/image", to="entry", direct=True)
    assert plan.after["export"]["fop/image -> entry"].ports == ("tcp/80",)
    assert [step["action"] for step in plan.steps()] == ["change"]


def test_empty_fields_are_cleared(fleet: _model.State) -> None:
    plan = put(fleet, "export", service="fop/image", to="entry", ports=[], expires="")
    record = plan.after["export"]["fop/image -> entry"]
    assert (record.ports, record.expires) == ((), None)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("network", {"name": "prod", "pod_subnets": ["10.10.0.0/29", "10.10.0.0/029"]}),
        ("pod", pod("image-1", mac=_model.mac_of("fop/image-1").upper().replace(":", "-"))),
        ("pod", pod("image-1", addresses=["10.10.0.2", "10.10.0.2"])),
        ("export", {"service": "fop/image", "to": "entry", "ports": ["TCP/080", "tcp/80"]}),
        ("export", {"service": "fop/image", "to": "entry", "expires": "2027-01-01T01:00:00+01:00"}),
        ("export", {"service": "fop/image", "to": "entry", "expires": "2027-01-01 00:00:00+00:00"}),
    ],
)
def test_equivalent_spellings_change_nothing(fleet: _model.State, kind: str, values: dict[str, t.Any]) -> None:
    assert put(fleet, kind, **values).steps() == []


def test_ipv6_is_stored_in_its_canonical_form(fleet: _model.State) -> None:
    six = put(fleet, "network", name="six", vni=6, pod_subnets=["FD00:0:0::/64"]).after
    assert six["network"]["six"].pod_subnets == ("fd00::/64",)
    assert put(six, "network", name="six", pod_subnets=["fd00:0000::0/64"]).steps() == []


# Refusals


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        ("network", {"name": "prod", "vni": 0}, "vni: 0 is out of range; a VNI is 1 to 16777215"),
        ("network", {"name": "prod", "vni": 16777216}, "vni: 16777216 is out of range"),
        ("network", {"name": "Prod"}, "name: 'Prod' is not a name"),
        ("network", {"name": "new", "vni": 1}, "network 'new' does not exist yet; creating it needs pod_subnets"),
        ("network", {"name": "new", "vni": 100, "pod_subnets": ["10.0.0.0/24"]}, "VNI 100 belongs to network 'prod'"),
        ("network", {"name": "prod", "pod_subnets": ["10.10.0.1/16"]}, "host bits set; did you mean 10.10.0.0/16?"),
        ("network", {"name": "prod", "pod_subnets": ["10.10.0.0"]}, "pod_subnets[0]: '10.10.0.0' is not a subnet"),
        ("network", {"name": "prod", "pod_subnets": ["10.0.0.0/31"]}, "too small for pods"),
        ("network", {"name": "prod", "pod_subnets": []}, "the list is empty"),
        ("network", {"name": "prod", "pod_subnets": ["224.0.0.0/24"]}, "not a range of unicast addresses"),
        ("network", {"name": "prod", "pod_subnets": ["10.10.0.0/29", "10.10.0.0/28"]}, "overlap"),
        ("network", {"name": "prod", "service_subnets": ["10.10.0.0/16", "10.96.0.0/29"]}, "overlap"),
        ("network", {"name": "prod", "pod_subnets": ["10.20.0.0/24"]}, "pod 'fop/image-1': address 10.10.0.2 is out"),
        ("network", {"name": "prod", "service_subnets": []}, "Service IP 'fop/image:main': address 10.96.0.1 is out"),
        ("network", {"name": "prod", "mtu": 100}, "mtu: 100 is out of range"),
        ("host", {"name": "h1", "vteps": ["10.0.0.256"]}, "vteps[0]: '10.0.0.256' is not an IPv4 or IPv6 address"),
        ("host", {"name": "h1", "vteps": ["127.0.0.1"]}, "is not an address that a host can own"),
        ("host", {"name": "h1", "vteps": ["192.0.2.1"], "datapath_id": "12"}, "16 hexadecimal digits"),
        (
            "service",
            {"group": "fop", "name": "x", "network": "prood"},
            "network 'prood' does not exist; there are prod",
        ),
        ("service", {"group": "nope", "name": "x", "network": "prod"}, "security group 'nope' does not exist"),
        ("service_ip", {"group": "fop", "service": "vid", "name": "main"}, "service 'fop/vid' does not exist"),
        (
            "service_ip",
            {"group": "fop", "service": "image", "name": "b", "address": "10.10.0.3"},
            "outside of the serv",
        ),
        ("service_ip", {"group": "fop", "service": "image", "name": "b", "address": "10.96.0.1"}, "belongs to Service"),
        ("service_ip", {"group": "fop", "service": "image", "name": "b", "address": "10.96.0.0"}, "network address"),
        ("service_ip", {"group": "fop", "service": "image", "name": "b", "address": "10.96.0.7"}, "broadcast address"),
        ("pod", pod("b", addresses=["10.10.0.1"]), "is the default gateway of subnet 10.10.0.0/29"),
        ("pod", pod("b", addresses=["10.10.0.7"]), "is the broadcast address of subnet"),
        ("pod", pod("b", addresses=["10.10.0.2"]), "belongs to pod 'fop/image-1' already"),
        ("pod", pod("b", addresses=["10.11.0.2"]), "outside of the pod_subnets of network 'prod' (10.10.0.0/29)"),
        ("pod", pod("b", addresses=[]), "leave the option out to have one allocated"),
        ("pod", pod("b", mac="01:00:00:00:00:01"), "is not a unicast MAC address"),
        ("pod", pod("b", mac=_model.VIRTUAL_MAC), "is the virtual MAC"),
        ("pod", pod("b", mac=_model.mac_of("fop/image-1")), "belongs to pod 'fop/image-1' already"),
        ("pod", pod("b", weight=65536), "weight: 65536 is out of range"),
        ("export", {"service": "fop/image", "to": "fop"}, "a group reaches its own services anyway"),
        ("export", {"service": "image", "to": "fop"}, "a service is said as group/service"),
        ("export", {"service": "fop/video", "to": "entry"}, "service 'fop/video' does not exist; there are fop/image"),
        ("export", {"service": "fop/image", "to": "entry", "ports": ["tcp/0"]}, "ports[0]: 'tcp/0' is not a port"),
        ("export", {"service": "fop/image", "to": "entry", "ports": ["http"]}, "write tcp/PORT or udp/PORT"),
        ("export", {"service": "fop/image", "to": "entry", "expires": "2027-01-01T00:00:00"}, "time zone"),
        ("export", {"service": "fop/image", "to": "entry", "expires": "soon"}, "is not an ISO 8601 time"),
        ("security_group", {"name": "new"}, "creating it needs tenant"),
        ("security_group", {"name": "new", "tenant": "x", "number": 1}, "number 1 belongs to security group 'fop'"),
    ],
)
def test_a_wrong_wish_is_refused_in_one_sentence(
    fleet: _model.State, kind: str, values: dict[str, t.Any], said: str
) -> None:
    found = problems(lambda: put(fleet, kind, **values))
    assert len(found) == 1, found
    assert said in found[0]


def test_two_hosts_cannot_share_a_vtep(fleet: _model.State) -> None:
    one = put(fleet, "host", name="h1", vteps=["192.0.2.1"]).after
    (said,) = problems(lambda: put(one, "host", name="h2", vteps=["192.0.2.1"]))
    assert said == "host 'h2': VTEP address 192.0.2.1 belongs to host 'h1' already; choose another one"


@pytest.mark.parametrize(
    ("kind", "values", "users"),
    [
        ("network", {"name": "prod"}, "service fop/image"),
        ("security_group", {"name": "entry"}, "export fop/image -> entry"),
        ("service", {"group": "fop", "name": "image"}, "Service IP fop/image:main, export fop/image -> entry, pod"),
    ],
)
def test_what_is_referred_to_cannot_be_removed(
    fleet: _model.State, kind: str, values: dict[str, t.Any], users: str
) -> None:
    (said,) = problems(lambda: remove(fleet, kind, **values))
    assert "cannot be removed while these refer to it" in said
    assert users in said


def test_all_problems_are_reported_at_once_with_their_places() -> None:
    networks = [{**PROD, "vni": 0}, {**PROD, "name": "b", "pod_subnets": ["10.0.0.1/8"]}]
    said = problems(lambda: _tenant.plan_tenants(_model.State(), networks, [tenant(image())], None, purge=False))
    assert [text.split(" ")[0] for text in said] == ["networks[0].vni:", "networks[1].pod_subnets[0]:"]


def test_the_same_object_twice_is_refused(fleet: _model.State) -> None:
    (said,) = problems(lambda: _pods.plan_pods(fleet, [pod("a"), pod("a")]))
    assert said == "pods[1]: pod 'fop/a' is given twice; keep one of them"


# Moves between networks


def test_a_service_with_pods_cannot_change_its_network(fleet: _model.State) -> None:
    two = put(fleet, "network", name="two", vni=2, pod_subnets=["10.2.0.0/24"], service_subnets=["10.3.0.0/24"]).after
    said = problems(lambda: put(two, "service", group="fop", name="image", network="two"))
    assert any(text.startswith("pod 'fop/image-1': is in network 'prod' but its service is in 'two'") for text in said)


def test_a_service_ip_given_along_with_its_service_follows_it(fleet: _model.State) -> None:
    two = put(fleet, "network", name="two", vni=2, pod_subnets=["10.2.0.0/24"], service_subnets=["10.3.0.0/24"]).after
    two = _pods.plan_removal(two, [pod("image-1")]).after
    moved = tenant(image(service_ips=[{"name": "main"}]) | {"network": "two"})
    plan = _tenant.plan_tenants(two, None, [moved], None, purge=False)
    record = plan.after["service_ip"]["fop/image:main"]
    assert (record.network, record.address) == ("two", "10.3.0.1")


# Purge


def test_purge_removes_what_is_not_listed_and_the_pods_of_removed_services(fleet: _model.State) -> None:
    plan = _tenant.plan_tenants(fleet, [PROD], [tenant(group="entry")], [], purge=True)
    assert {(step["action"], step["name"]) for step in plan.steps()} == {
        ("remove", "fop"),
        ("remove", "fop/image"),
        ("remove", "fop/image:main"),
        ("remove", "fop/image-1"),
        ("remove", "fop/image -> entry"),
    }
    assert plan.diff()["before"]["pods"]["fop/image-1"]["addresses"] == ["10.10.0.2"]


def test_purge_leaves_lists_that_are_not_given_alone(fleet: _model.State) -> None:
    assert _tenant.plan_tenants(fleet, [PROD], None, None, purge=True).steps() == []


def test_purge_gives_options_left_out_their_defaults(fleet: _model.State) -> None:
    exports = [{"service": "fop/image", "to": "entry"}]
    plan = _tenant.plan_tenants(fleet, None, None, exports, purge=True)
    record = plan.after["export"]["fop/image -> entry"]
    assert (record.ports, record.expires) == ((), None)
    assert _tenant.plan_tenants(fleet, None, None, exports, purge=False).steps() == []


def test_purge_of_a_service_that_is_exported_needs_the_exports(fleet: _model.State) -> None:
    said = problems(lambda: _tenant.plan_tenants(fleet, None, [tenant(group="entry")], None, purge=True))
    assert said == [
        "service 'fop/image': cannot be removed while these refer to it: export fop/image -> entry; remove them first"
    ]


def test_pods_are_purged_only_within_the_services_named(fleet: _model.State) -> None:
    fleet = put(fleet, "service", group="entry", name="web", network="prod").after
    fleet = _pods.plan_pods(fleet, [pod("image-2"), {"group": "entry", "service": "web", "name": "web-1"}]).after
    plan = _pods.plan_pods(fleet, [pod("image-1")], purge_services=["fop/image"])
    assert plan.steps() == [{"action": "remove", "kind": "pod", "name": "fop/image-2"}]
    assert _pods.plan_pods(fleet, [], purge_services=[]).steps() == []


def test_a_pod_moved_to_another_service_keeps_its_address(fleet: _model.State) -> None:
    fleet = put(fleet, "service", group="fop", name="video", network="prod").after
    plan = _pods.plan_pods(fleet, [pod("image-1", service="video")])
    assert plan.after["pod"]["fop/image-1"].addresses == ("10.10.0.2",)
    assert [step["action"] for step in plan.steps()] == ["change"]


# Diff


def test_the_diff_shows_objects_by_name_as_people_write_them(fleet: _model.State) -> None:
    diff = put(fleet, "export", service="fop/image", to="entry", direct=True).diff()
    before = {
        "service": "fop/image",
        "to": "entry",
        "ports": ["tcp/80"],
        "direct": False,
        "expires": "2027-01-01T00:00:00Z",
    }
    assert diff == {
        "before": {"exports": {"fop/image -> entry": before}},
        "after": {"exports": {"fop/image -> entry": before | {"direct": True}}},
    }
