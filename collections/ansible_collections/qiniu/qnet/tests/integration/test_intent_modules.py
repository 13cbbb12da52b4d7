# SPDX-License-Identifier: GPL-3.0-or-later
"""Every module of the intent, as a real process on a real database: apply, again, change, check, remove, again."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest

from ansible_collections.qiniu.qnet.plugins.module_utils import _module

if t.TYPE_CHECKING:
    from ansible_collections.qiniu.qnet.tests.conftest import IntentDatabase, Runner

NETWORK: dict[str, t.Any] = {
    "name": "prod",
    "vni": 100,
    "pod_subnets": ["10.10.0.0/16"],
    "service_subnets": ["10.96.0.0/16"],
}
GROUPS = [{"name": "fop", "tenant": "fop"}, {"name": "entry", "tenant": "platform"}]
SERVICE = {"group": "fop", "name": "image", "network": "prod"}


@dataclasses.dataclass(frozen=True)
class Case:
    """One object and how it is written: first, changed, the same in other words, and what it then looks like."""

    kind: str
    key: dict[str, t.Any]
    first: dict[str, t.Any]
    created: dict[str, t.Any]
    change: dict[str, t.Any]
    same: dict[str, t.Any]
    changed: dict[str, t.Any]
    name: str
    needs: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        return f"qnet_{self.kind}"

    @property
    def plural(self) -> str:
        return f"{self.kind}s"


CASES = [
    Case(
        kind="network",
        name="six",
        key={"name": "six"},
        first={"vni": 6, "pod_subnets": ["10.1.0.0/16", "FD00:0::/64"]},
        created={"vni": 6, "pod_subnets": ["10.1.0.0/16", "fd00::/64"], "service_subnets": [], "mtu": None},
        change={"mtu": 1400, "service_subnets": ["10.3.0.0/24", "10.2.0.0/24"], "vni": 7},
        same={
            "service_subnets": ["10.2.0.0/24", "10.3.0.0/024", "10.2.0.0/24"],
            "pod_subnets": ["fd00::/64", "10.1.0.0/16"],
        },
        changed={"vni": 7, "service_subnets": ["10.2.0.0/24", "10.3.0.0/24"], "mtu": 1400},
    ),
    Case(
        kind="host",
        name="h1",
        key={"name": "h1"},
        first={"vteps": ["192.0.2.1"]},
        created={
            "vteps": ["192.0.2.1"],
            "datapath_id": "33112ee14ee469c3",
            "datapath_kind": "system",
            "controller_set": "default",
            "draining": False,
        },
        change={"vteps": ["192.0.2.1", "FD00::0:1"], "datapath_id": "00000000000000AB", "datapath_kind": "netdev"}
        | {"controller_set": "second", "draining": True},
        same={"vteps": ["fd00:0::1", "192.0.2.1"], "datapath_id": "00:00:00:00:00:00:00:ab"},
        changed={"vteps": ["192.0.2.1", "fd00::1"], "datapath_id": "00000000000000ab", "draining": True},
    ),
    Case(
        kind="security_group",
        name="fop",
        key={"name": "fop"},
        first={"tenant": "fop"},
        created={"tenant": "fop", "number": 1, "egress": [], "broadcast": False},
        change={
            "tenant": "other",
            "number": 77,
            "broadcast": True,
            "egress": [
                {"to": "203.0.113.0/24", "ports": ["udp/53", "tcp/443"]},
                {"to": "2001:DB8::53"},
                {"to": "0.0.0.0/0", "ports": ["icmp"]},
            ],
        },
        same={
            "egress": [
                {"to": "2001:db8:0::53/128", "ports": []},
                {"to": "2001:db8::53", "ports": ["tcp/53"]},
                {"to": "0.0.0.0/0", "ports": ["ICMP", "icmp"]},
                {"to": "203.0.113.0/024", "ports": ["tcp/0443"]},
                {"to": "203.0.113.0/24", "ports": ["UDP/53"]},
            ]
        },
        changed={
            "tenant": "other",
            "number": 77,
            "broadcast": True,
            "egress": [
                {"to": "0.0.0.0/0", "ports": ["icmp"]},
                {"to": "203.0.113.0/24", "ports": ["tcp/443", "udp/53"]},
                {"to": "2001:db8::53/128", "ports": []},
            ],
        },
    ),
    Case(
        kind="service",
        name="fop/image",
        key={"group": "fop", "name": "image"},
        first={"network": "prod", "health_check": {"type": "http", "port": 80, "interval_seconds": 1.5}},
        created={
            "network": "prod",
            "health_check": {
                "type": "http",
                "port": 80,
                "path": "/",
                "interval_seconds": 1.5,
                "timeout_seconds": 0.75,
                "healthy_threshold": 2,
                "unhealthy_threshold": 3,
            },
            "drain_seconds": None,
            "l7": {},
        },
        change={"network": "two", "health_check": {}, "drain_seconds": 30, "l7": {"retries": {"tries": 3}}},
        same={"health_check": {}},
        changed={"network": "two", "health_check": {}, "drain_seconds": 30, "l7": {"retries": {"tries": 3}}},
        needs=("network", "two", "groups"),
    ),
    Case(
        kind="service_ip",
        name="fop/image:main",
        key={"group": "fop", "service": "image", "name": "main"},
        first={"network": "prod"},
        created={"network": "prod", "address": "10.96.0.1", "affinity": "none", "algorithm": "hash"}
        | {"affinity_seconds": None},
        change={"address": "10.96.0.10", "affinity": "client", "affinity_seconds": 3600},
        same={"address": "10.96.0.10"},
        changed={"address": "10.96.0.10", "affinity": "client", "affinity_seconds": 3600},
        needs=("network", "groups", "service"),
    ),
    Case(
        kind="guest",
        name="two>prod",
        key={"network": "two", "home": "prod"},
        first={},
        created={"vni": 16777214, "addresses": ["10.96.0.1"]},
        change={"vni": 300, "addresses": ["10.96.0.9"]},
        same={"addresses": ["10.96.0.9", "10.96.0.9"]},
        changed={"vni": 300, "addresses": ["10.96.0.9"]},
        needs=("network", "two"),
    ),
    Case(
        kind="export",
        name="fop/image -> entry",
        key={"service": "fop/image", "to": "entry"},
        first={"ports": ["udp/53", "tcp/80", "tcp/8"]},
        created={"ports": ["tcp/8", "tcp/80", "udp/53"], "direct": False, "expires": None},
        change={"ports": [], "direct": True, "expires": "2027-01-01T00:00:00Z"},
        same={"expires": "2027-01-01T02:00:00+02:00"},
        changed={"ports": [], "direct": True, "expires": "2027-01-01T00:00:00Z"},
        needs=("network", "groups", "service"),
    ),
    Case(
        kind="l7_listener",
        name="web",
        key={"name": "web"},
        first={"balancer": "fop/image", "protocol": "http", "port": 80, "settings": {"timeouts": {"read_seconds": 5}}},
        created={"protocol": "http", "port": 80, "settings": {"timeouts": {"read_seconds": 5}}},
        change={"port": 8080, "settings": {"http2": True, "access": [{"deny": "10.10.0.9"}, {"allow": "all"}]}},
        same={"settings": {"access": [{"deny": "10.10.0.9"}, {"allow": "all"}], "http2": True}},
        changed={"port": 8080, "settings": {"http2": True, "access": [{"deny": "10.10.0.9"}, {"allow": "all"}]}},
        needs=("network", "groups", "service"),
    ),
    Case(
        kind="l7_route",
        name="web/all",
        key={"listener": "web", "name": "all"},
        first={"settings": {"backends": [{"service": "fop/image", "port": 80}]}},
        created={"settings": {"backends": [{"service": "fop/image", "port": 80}]}},
        change={"settings": {"path": "/a", "respond": {"status": 200, "body": "x"}}},
        same={"settings": {"respond": {"body": "x", "status": 200}, "path": "/a"}},
        changed={"settings": {"path": "/a", "respond": {"status": 200, "body": "x"}}},
        needs=("network", "groups", "service", "listener"),
    ),
]


def test_every_option_of_every_object_is_changed_by_a_case() -> None:
    cases = {case.kind: case for case in CASES}
    assert set(cases) == set(_module.OBJECT_OPTIONS)
    untried = [
        f"{kind}.{option}"
        for kind, options in _module.OBJECT_OPTIONS.items()
        for option in options
        if option not in {**cases[kind].key, **cases[kind].change} and (option not in cases[kind].first)
    ]
    assert untried == []


def prepare(run: Runner, needs: tuple[str, ...]) -> None:
    if "network" in needs:
        run("qnet_network", **NETWORK)
    if "two" in needs:
        run("qnet_network", name="two", vni=2, pod_subnets=["10.10.0.0/16"])
    if "groups" in needs:
        run("qnet_security_group", security_groups=GROUPS)
    if "service" in needs:
        run("qnet_service", **SERVICE)
    if "listener" in needs:
        run("qnet_l7_listener", name="web", balancer="fop/image", protocol="http", port=80)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind)
def test_an_object_from_creation_to_removal(run: Runner, database: IntentDatabase, case: Case) -> None:
    prepare(run, case.needs)
    generation = run(f"{case.module}_info")["generation"]

    def step(wanted: dict[str, t.Any], steps: int, shown: dict[str, t.Any] | None, action: str, **more: t.Any) -> None:
        """Check mode first, then for real, then again; each must tell the same story."""
        nonlocal generation
        arguments = {**case.key, **wanted, **more}
        frozen = dump(database)
        tried = run(case.module, check=True, **arguments)
        assert dump(database) == frozen, "check mode changed the database"
        assert tried["generation"] == generation
        done = run(case.module, **arguments)
        generation += steps
        assert (done["changed"], done["generation"]) == (bool(steps), generation)
        for field in ("changed", "diff", "plan", case.plural):
            assert tried[field] == done[field], f"check mode and the real run differ in {field}"
        assert done["plan"] == [{"action": action, "kind": case.kind, "name": case.name}] * steps
        stored = run(f"{case.module}_info", names=[case.name])[case.plural]
        assert stored == done[case.plural]
        assert [{**case.key, **shown, **stored[0]}] == stored if shown is not None else stored == []
        again = run(case.module, **arguments)
        assert (again["changed"], again["plan"], again["diff"]) == (False, [], {"before": {}, "after": {}})

    step(case.first, 1, case.created, "create")
    step(case.change, 1, case.changed, "change")
    step(case.same, 0, case.changed, "change")
    step({}, 0, case.changed, "change")
    step({}, 1, None, "remove", state="absent")


def dump(database: IntentDatabase) -> dict[str, t.Any]:
    """Every table as it is on the wire, in an order of its own."""
    tables = (
        "QNet_Global",
        "Network",
        "Guest",
        "Host",
        "Security_Group",
        "Service",
        "Service_IP",
        "Pod",
        "Pod_Address",
        "Export",
        "L7_Listener",
        "L7_Route",
    )
    return {table: sorted(map(str, database.rows(table))) for table in tables}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind)
def test_many_objects_at_once_and_purge(run: Runner, case: Case) -> None:
    prepare(run, case.needs)
    element = {**case.key, **case.first}
    done = run(case.module, **{case.plural: [element]}, purge=True)
    assert {step["name"] for step in done["plan"] if step["action"] == "create"} == {case.name}
    assert run(case.module, **{case.plural: [element]}, purge=True)["changed"] is False
    # An empty list with purge removes all that this kind has.
    assert run(case.module, **{case.plural: []}, purge=False)["changed"] is False
    if case.kind not in ("network", "security_group"):
        assert run(case.module, **{case.plural: []}, purge=True)["plan"][-1]["action"] == "remove"
        assert run(f"{case.module}_info")[case.plural] == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind)
def test_bad_use_of_options_is_refused(run: Runner, case: Case) -> None:
    first = next(iter(case.key))
    assert f"one of the following is required: {first}, {case.plural}" in run.refused(case.module)
    element = {**case.key, **case.first}
    assert "mutually exclusive" in run.refused(case.module, **case.key, **{case.plural: [element]})
    assert "Unsupported parameters" in run.refused(case.module, **case.key, nonsense=1)
    assert "Unsupported parameters" in run.refused(case.module, **{case.plural: [{**element, "nonsense": 1}]})
    assert "purge: needs the list" in run.refused(case.module, **element, purge=True)
    beside = {name: value for name, value in case.change.items() if name not in case.key}
    assert "put it into the elements" in run.refused(case.module, **{case.plural: [element]}, **beside)


def test_references_are_named_when_they_are_missing_or_in_the_way(run: Runner) -> None:
    prepare(run, ("network", "groups", "service"))
    said = run.refused("qnet_service", group="fop", name="video", network="prood")
    assert said == (
        "service 'fop/video': network 'prood' does not exist; there are prod; create it first or correct the name"
    )
    said = run.refused("qnet_network", name="prod", state="absent")
    assert said == "network 'prod': cannot be removed while these refer to it: service fop/image; remove them first"
    said = run.refused("qnet_network", check=True, name="prod", state="absent")
    assert "cannot be removed" in said
    said = run.refused("qnet_export", service="fop/image", to="fop")
    assert said == "export 'fop/image -> fop': a group reaches its own services anyway; remove the export"


def test_listeners_and_routes_are_refused_with_the_place_of_the_fault(run: Runner) -> None:
    prepare(run, ("network", "groups", "service"))
    listener = {"balancer": "fop/image", "protocol": "tcp", "port": 5432}
    said = run.refused("qnet_l7_listener", name="db", **listener, settings={"cache": {"key": "$uri"}})
    assert said == "L7 listener 'db': cache has no use with tcp; remove it, or use http or https"
    run("qnet_l7_listener", name="db", **listener)
    backends = [{"service": "fop/image", "port": 5432}]
    settings: list[dict[str, t.Any]] = [{"backends": backends, "hosts": [f"{name}.org"]} for name in "ab"]
    settings[1]["access"] = [{"deny": "all"}]
    both = [{"listener": "db", "name": name, "settings": own} for name, own in zip("ab", settings, strict=True)]
    assert "'db/b': access differs from that of route a" in run.refused("qnet_l7_route", l7_routes=both)
    assert run("qnet_l7_route_info")["l7_routes"] == []
    run("qnet_l7_route", l7_routes=both[:1])
    said = run.refused("qnet_service", group="fop", name="image", state="absent")
    assert "cannot be removed while these refer to it: L7 listener db, L7 route db/a" in said


def test_all_problems_come_at_once(run: Runner) -> None:
    bad = [{**NETWORK, "vni": 0}, {**NETWORK, "name": "b", "vni": 1, "pod_subnets": ["10.0.0.1/8", "10.0.0.0/33"]}]
    assert run.refused("qnet_network", networks=bad).splitlines() == [
        "networks[0].vni: 0 is out of range; a VNI is 1 to 16777215",
        "networks[1].pod_subnets[0]: '10.0.0.1/8' has host bits set; did you mean 10.0.0.0/8?",
        "networks[1].pod_subnets[1]: '10.0.0.0/33' has no valid prefix length; write it as address/prefix length, "
        "for example 10.10.0.0/16",
    ]


def test_pods_are_read_by_name(run: Runner, database: IntentDatabase) -> None:
    prepare(run, ("network", "groups", "service"))
    uuid = {
        table: database.transact({"op": "select", "table": table, "where": [], "columns": ["_uuid"]})[0]["rows"][0][
            "_uuid"
        ]
        for table in ("Service", "Network")
    }
    row = {"name": "image-1", "service": uuid["Service"], "network": uuid["Network"], "mac": "02:00:00:00:00:01"}
    row |= {"port_name": "qn000000000001", "weight": 50, "state": "draining", "containers": ["set", ["b", "a"]]}
    database.transact(
        {"op": "insert", "table": "Pod", "row": row, "uuid-name": "pod"},
        *(
            {
                "op": "insert",
                "table": "Pod_Address",
                "row": {"pod": ["named-uuid", "pod"], "network": uuid["Network"], "address": address},
            }
            for address in ("10.10.0.9", "10.10.0.10")
        ),
    )
    wanted = {
        "group": "fop",
        "service": "image",
        "name": "image-1",
        "network": "prod",
        "mac": "02:00:00:00:00:01",
        "addresses": ["10.10.0.9", "10.10.0.10"],
        "port_name": "qn000000000001",
        "weight": 50,
        "state": "draining",
        "containers": ["a", "b"],
        "drain_until": None,
    }
    assert run("qnet_pod_info")["pods"] == [wanted]
    assert run("qnet_pod_info", names=["fop/image-1"])["pods"] == [wanted]
    assert run("qnet_pod_info", names=["fop/image-2"])["pods"] == []
    said = run.refused("qnet_service", group="fop", name="image", state="absent")
    assert said == "service 'fop/image': cannot be removed while these refer to it: pod fop/image-1; remove them first"
