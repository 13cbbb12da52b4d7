# SPDX-License-Identifier: GPL-3.0-or-later
"""Writers at the same time: every address has one owner, nobody's change is lost, no generation is skipped."""

from __future__ import annotations

import json
import typing as t

import pytest

from ansible_collections.qiniu.qnet.plugins.module_utils import _ovsdb, _plan

if t.TYPE_CHECKING:
    from ansible_collections.qiniu.qnet.tests.conftest import IntentDatabase, Runner

WRITERS = 8


@pytest.fixture
def fleet(run: Runner) -> None:
    networks = [{"name": "prod", "vni": 1, "pod_subnets": ["10.0.0.0/24"], "service_subnets": ["10.1.0.0/24"]}]
    services = [{"name": f"s{number}", "network": "prod"} for number in range(WRITERS)]
    tenants = [{"name": "a", "security_groups": [{"name": "a", "services": services}]}]
    run("qnet_tenant", networks=networks, tenants=tenants)


def test_eight_writers_that_start_with_an_empty_database(run: Runner, database: IntentDatabase) -> None:
    started = [run.start("qnet_security_group", name=f"g{number}", tenant="x") for number in range(WRITERS)]
    results = [run.finish(process) for process in started]
    assert [result.get("msg") for result in results if result.get("failed")] == []
    groups = run("qnet_security_group_info")
    assert sorted(group["number"] for group in groups["security_groups"]) == list(range(1, WRITERS + 1))
    assert sorted(result["generation"] for result in results) == list(range(1, WRITERS + 1))
    assert groups["generation"] == WRITERS


@pytest.mark.usefixtures("fleet")
def test_eight_writers_that_allocate_addresses(run: Runner) -> None:
    started = [
        run.start(
            "qnet_service_ip",
            service_ips=[{"group": "a", "service": f"s{number}", "name": name} for name in ("one", "two", "three")],
        )
        for number in range(WRITERS)
    ]
    results = [run.finish(process) for process in started]
    assert [result.get("msg") for result in results if result.get("failed")] == []
    given = [ip["address"] for result in results for ip in result["service_ips"]]
    assert sorted(given, key=lambda address: int(address.split(".")[3])) == [
        f"10.1.0.{number}" for number in range(1, 3 * WRITERS + 1)
    ]
    stored = run("qnet_service_ip_info")
    assert sorted(ip["address"] for ip in stored["service_ips"]) == sorted(given)
    assert stored["generation"] == 1 + WRITERS


@pytest.mark.usefixtures("fleet")
def test_two_writers_that_want_the_same_address(run: Runner) -> None:
    for attempt in range(3):
        address = f"10.1.0.{attempt + 50}"
        started = [
            run.start("qnet_service_ip", group="a", service=service, name=f"n{attempt}", address=address)
            for service in ("s0", "s1")
        ]
        results = [run.finish(process) for process in started]
        (lost,) = (result for result in results if result.get("failed"))
        assert f"address {address} of network 'prod' belongs to Service IP 'a/s" in lost["msg"]
        owners = [ip for ip in run("qnet_service_ip_info")["service_ips"] if ip["address"] == address]
        assert len(owners) == 1


@pytest.mark.usefixtures("fleet")
def test_a_plan_made_on_old_intent_is_made_again(run: Runner, database: IntentDatabase) -> None:
    """Nothing but the generation tells that another writer was there: they touch different objects."""
    seen = []

    def planner(have: t.Any) -> _plan.Plan:
        seen.append(sorted(have["security_group"]))
        if len(seen) == 1:
            run("qnet_security_group", name="b", tenant="x")
        draft = _plan.Draft(have)
        draft.put("network", {"name": "prod", "mtu": 1400})
        return draft.plan()

    outcome = _ovsdb.converge(_ovsdb.Connection((database.remote,)), planner, check_mode=False)
    assert seen == [["a"], ["a", "b"]]
    assert outcome.generation == 3 == run("qnet_network_info")["generation"]


@pytest.mark.usefixtures("fleet")
def test_a_writer_that_does_not_count_the_generation_is_noticed_too(run: Runner, database: IntentDatabase) -> None:
    """The unique index refuses what the generation did not reveal; the module then plans again."""
    service = {"group": "a", "service": "s0", "name": "main"}
    intruded = False

    def planner(have: t.Any) -> _plan.Plan:
        nonlocal intruded
        draft = _plan.Draft(have)
        draft.put("service_ip", service)
        plan = draft.plan()
        if not intruded:
            intruded = True
            intrude(database, plan.after["service_ip"]["a/s0:main"].address)
        return plan

    outcome = _ovsdb.converge(_ovsdb.Connection((database.remote,)), planner, check_mode=False)
    assert outcome.state["service_ip"]["a/s0:main"].address == "10.1.0.2"
    assert run("qnet_service_ip_info", names=["a/s0:main"])["service_ips"][0]["address"] == "10.1.0.2"


def intrude(database: IntentDatabase, address: str) -> None:
    """Take an address with no regard to the generation."""
    rows = {table: database.rows(table) for table in ("Service", "Network")}
    service = next(row for row in rows["Service"] if row["name"] == "s1")["_uuid"]
    row = {"name": "intruder", "service": service, "network": rows["Network"][0]["_uuid"], "address": address}
    answer = database.transact(
        {"op": "insert", "table": "Service_IP", "row": {**row, "affinity": "none", "algorithm": "hash"}}
    )
    assert "error" not in json.dumps(answer), answer


def wish(revision: int) -> dict[str, t.Any]:
    """The whole intent of one revision of an inventory: everything in it says which one."""
    groups = [{"name": f"g{revision}-{number}", "services": [{"name": "s", "network": "prod"}]} for number in range(10)]
    return {
        "networks": [{"name": "prod", "vni": 1, "pod_subnets": ["10.0.0.0/16"], "service_subnets": ["10.1.0.0/16"]}],
        "tenants": [{"name": "t", "security_groups": groups}],
        "exports": [{"service": f"g{revision}-{number}/s", "to": f"g{revision}-0"} for number in range(1, 10)],
        "purge": True,
        "revision": revision,
    }


def revisions(run: Runner) -> set[str]:
    """The revisions that the intent has something of."""
    return {group["name"].split("-")[0] for group in run("qnet_security_group_info")["security_groups"]}


def test_the_newer_of_two_plays_at_once_wins_whole(run: Runner) -> None:
    for older in range(1, 12, 2):
        started = [run.start("qnet_tenant", **wish(revision)) for revision in (older + 1, older)]
        for revision, result in zip((older + 1, older), [run.finish(process) for process in started], strict=True):
            assert not result.get("failed") or (revision == older and "is older than" in result["msg"]), result
        assert revisions(run) == {f"g{older + 1}"}


def test_an_older_checkout_changes_nothing(run: Runner) -> None:
    run("qnet_tenant", **wish(7))
    generation = run("qnet_network_info")["generation"]
    assert "revision: 6 is older than 7" in run.refused("qnet_tenant", **wish(6))
    assert "revision: 6 is older than 7" in run.refused("qnet_tenant", check=True, **wish(6))
    assert "revision: 0 is older than 7" in run.refused("qnet_tenant", **{**wish(5), "revision": 0})
    pods = [{"name": "g7-1/s-1", "service": "g7-1/s"}]
    assert "revision: 6 is older" in run.refused("qnet_pod", state="declared", pods=pods, revision=6)
    assert run("qnet_network_info")["generation"] == generation
    assert revisions(run) == {"g7"}


def test_a_revision_is_kept_even_if_it_changes_nothing(run: Runner) -> None:
    run("qnet_tenant", **wish(7))
    same = {**wish(7), "revision": 8}
    assert not run("qnet_tenant", check=True, **same)["changed"]
    assert not run("qnet_tenant", **wish(7))["changed"], "check mode has kept the revision"
    generation = run("qnet_network_info")["generation"]
    again = run("qnet_tenant", **same)
    assert (again["changed"], again["generation"]) == (False, generation)
    assert "revision: 7 is older than 8" in run.refused("qnet_tenant", **wish(7))
    assert run("qnet_security_group", name="by-hand", tenant="t")["changed"], "a module called by hand was refused"
    assert "revision: 7 is older than 8" in run.refused("qnet_tenant", **wish(7))
