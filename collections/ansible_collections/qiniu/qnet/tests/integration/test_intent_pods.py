# SPDX-License-Identifier: GPL-3.0-or-later
"""The database half of pods: their rows and the rows of their addresses."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest

from ansible_collections.qiniu.qnet.plugins.module_utils import _model, _ovsdb, _pods

if t.TYPE_CHECKING:
    from ansible_collections.qiniu.qnet.tests.conftest import IntentDatabase, Runner

NETWORK = {"name": "prod", "vni": 100, "pod_subnets": ["10.10.0.0/24"], "mtu": 1450}
SERVICES = [{"name": "image", "network": "prod"}, {"name": "video", "network": "prod"}]
TENANT = {"name": "fop", "security_groups": [{"name": "fop", "services": SERVICES}]}


@pytest.fixture
def connection(run: Runner, database: IntentDatabase) -> _ovsdb.Connection:
    run("qnet_tenant", networks=[NETWORK], tenants=[TENANT])
    return _ovsdb.Connection((database.remote,))


def declare(connection: _ovsdb.Connection, *pods: dict[str, t.Any], **options: t.Any) -> _ovsdb.Outcome:
    """Declare pods, twice: the second time there must be nothing to do."""

    def planner(have: _model.State) -> t.Any:
        return _pods.plan_pods(have, pods, **options)

    tried = _ovsdb.converge(connection, planner, check_mode=True)
    outcome = _ovsdb.converge(connection, planner, check_mode=False)
    assert tried.plan.diff() == outcome.plan.diff()
    assert _ovsdb.read(connection) == (outcome.state, outcome.generation)
    assert not _ovsdb.converge(connection, planner, check_mode=False).plan.changed
    return outcome


def pod(name: str, **more: t.Any) -> dict[str, t.Any]:
    return {"group": "fop", "service": "image", "name": name, **more}


def addresses(database: IntentDatabase) -> dict[str, str]:
    """Address → pod, from the rows themselves."""
    names = {row["_uuid"][1]: row["name"] for row in database.rows("Pod")}
    return {row["address"]: names[row["pod"][1]] for row in database.rows("Pod_Address")}


def test_pods_get_change_swap_and_lose_addresses(database: IntentDatabase, connection: _ovsdb.Connection) -> None:
    declare(connection, pod("image-1"), pod("image-2"))
    assert addresses(database) == {"10.10.0.2": "image-1", "10.10.0.3": "image-2"}
    declare(connection, pod("image-1", addresses=["10.10.0.3"]), pod("image-2", addresses=["10.10.0.2"]))
    assert addresses(database) == {"10.10.0.2": "image-2", "10.10.0.3": "image-1"}
    declare(connection, pod("image-1", addresses=["10.10.0.3", "10.10.0.9"]))
    assert addresses(database) == {"10.10.0.2": "image-2", "10.10.0.3": "image-1", "10.10.0.9": "image-1"}
    declare(connection, pod("image-1"), purge_services=["fop/image"])
    assert addresses(database) == {"10.10.0.3": "image-1", "10.10.0.9": "image-1"}
    _ovsdb.converge(connection, lambda have: _pods.plan_removal(have, [pod("image-1")]), check_mode=False)
    assert (database.rows("Pod"), database.rows("Pod_Address")) == ([], [])


def test_every_option_of_a_pod_reaches_the_database(run: Runner, connection: _ovsdb.Connection) -> None:
    declare(connection, pod("image-1"))
    more = {"mac": "02:00:00:00:00:07", "weight": 0, "state": "draining", "containers": ["b", "a"], "service": "video"}
    declare(connection, pod("image-1", **more))
    (stored,) = run("qnet_pod_info")["pods"]
    assert stored == {
        "group": "fop",
        "service": "video",
        "name": "image-1",
        "network": "prod",
        "mac": "02:00:00:00:00:07",
        "addresses": ["10.10.0.2"],
        "port_name": _model.port_name_of("fop/image-1"),
        "weight": 0,
        "state": "draining",
        "containers": ["a", "b"],
        "drain_until": None,
    }
    assert declare(connection, pod("image-1", containers=[], service="video")).plan.changed
    assert run("qnet_pod_info")["pods"][0]["containers"] == []


def test_a_host_is_told_all_that_it_needs(connection: _ovsdb.Connection) -> None:
    outcome = declare(connection, pod("image-1"))
    assert _pods.attachments(outcome.state, ["fop/image-1"]) == [
        {
            "pod": "fop/image-1",
            "network": "prod",
            "vni": 100,
            "mtu": 1450,
            "mac": _model.mac_of("fop/image-1"),
            "addresses": [{"address": "10.10.0.2", "prefix_length": 24, "gateway": "10.10.0.1"}],
            "port_name": _model.port_name_of("fop/image-1"),
            "namespace": "fop.image-1",
        }
    ]


def test_where_nothing_is_to_do_only_the_pods_asked_about_are_read(connection: _ovsdb.Connection) -> None:
    more = {"addresses": ["10.10.0.7", "10.10.0.8"], "containers": ["a"], "service": "video"}
    whole = declare(connection, pod("image-1"), pod("image-2", **more), pod("image-3"))

    def ask(*wishes: dict[str, t.Any], revision: int | None = None) -> _ovsdb.Outcome | None:
        asked = dataclasses.replace(connection, revision=revision)
        return _ovsdb.nothing_to_do(asked, lambda have: _pods.plan_pods(have, wishes), map(_pods.key, wishes))

    found = ask(pod("image-1"), pod("image-2", service="video"))
    assert found is not None
    assert not found.plan.changed
    assert found.generation == whole.generation
    assert found.state["pod"] == {name: whole.state["pod"][name] for name in ("fop/image-1", "fop/image-2")}
    assert found.state["network"] == whole.state["network"]
    assert ask(pod("image-1"), pod("image-9")) is None  # not declared
    assert ask(pod("image-1", weight=1)) is None
    assert ask(pod("image-1", addresses=["10.10.0.8"])) is None  # another pod's, as `converge` says
    assert ask({"group": "fop", "service": "none", "name": "image-1"}) is None  # refused
    _ovsdb.converge(dataclasses.replace(connection, revision=2), lambda have: _pods.plan_pods(have, []), False)
    assert ask(pod("image-1"), revision=2) is not None
    with pytest.raises(_model.IntentRefused, match="1 is older than 2"):
        ask(pod("image-1"), revision=1)


def test_the_tenants_purge_takes_the_pods_of_a_removed_service(run: Runner, connection: _ovsdb.Connection) -> None:
    declare(connection, pod("image-1"), pod("video-1", service="video"))
    smaller = {"name": "fop", "security_groups": [{"name": "fop", "services": SERVICES[:1]}]}
    done = run("qnet_tenant", tenants=[smaller], purge=True)
    assert [(step["action"], step["name"]) for step in done["plan"]] == [
        ("remove", "fop/video"),
        ("remove", "fop/video-1"),
    ]
    assert done["diff"]["before"]["pods"]["fop/video-1"]["addresses"] == ["10.10.0.3"]
    assert [pod["name"] for pod in run("qnet_pod_info")["pods"]] == ["image-1"]


def test_what_others_wrote_wrongly_is_named_and_does_not_crash(
    run: Runner, database: IntentDatabase, connection: _ovsdb.Connection
) -> None:
    state = declare(connection, pod("image-1")).state

    def rewrite(subnet: str) -> None:
        database.transact({"op": "update", "table": "Network", "where": [], "row": {"pod_subnets": subnet}})

    rewrite("10.99.0.0/24")
    state, dummy = _ovsdb.read(connection)
    with pytest.raises(_model.IntentRefused, match=r"none of its pod_subnets .* holds pod address 10.10.0.2"):
        _pods.attachments(state, ["fop/image-1"])
    for subnet in ("nonsense", "10.0.0.0/99", "10.0.0.0/x"):
        rewrite(subnet)
        said = run.refused("qnet_pod_info")
        assert said.startswith("database QNet: row ")
        assert "of table Network: " in said
        assert "correct or delete it with ovsdb-client" in said


def states(database: IntentDatabase) -> dict[str, str]:
    """Pod → state, from the rows themselves."""
    return {row["name"]: row["state"] for row in database.rows("Pod")}


def test_a_held_pod_takes_connections_only_when_somebody_says_so(
    run: Runner, database: IntentDatabase, connection: _ovsdb.Connection
) -> None:
    declare(connection, pod("image-1"))
    wishes = [{"name": f"fop/image-{n}", "service": "fop/image", "draining": False} for n in (1, 2)]
    held = [{**wish, "hold": True} for wish in wishes]
    for changed in (True, False):  # an interrupted play begins again: the pod does not answer yet
        tried = run("qnet_pod", pods=held, state="declared", check=True)
        done = run("qnet_pod", pods=held, state="declared")
        assert (tried["changed"], done["changed"], done["held"]) == (changed, changed, ["fop/image-2"])
        assert states(database) == {"image-1": "active", "image-2": "draining"}
    assert run("qnet_pod", pods=wishes, state="declared")["held"] == []
    assert states(database) == {"image-1": "active", "image-2": "active"}
    assert (run("qnet_pod", pods=held, state="declared")["changed"]) is False
    drained = [{**held[0], "draining": True}, held[1]]
    assert run("qnet_pod", pods=drained, state="declared")["held"] == []  # the inventory drains it, nobody holds it
    assert states(database) == {"image-1": "draining", "image-2": "active"}


def test_pods_that_retire_take_no_connections_and_stay_until_they_are_removed(
    run: Runner, database: IntentDatabase, connection: _ovsdb.Connection
) -> None:
    declare(connection, pod("image-1"), pod("video-1", service="video"))
    wishes = [{"name": "fop/image-1", "service": "fop/image"}]
    for changed in (True, False):
        done = run("qnet_pod", pods=wishes, state="declared", retire=True)
        assert (done["changed"], done["retiring"]) == (changed, ["fop/video-1"])
        assert states(database) == {"image-1": "active", "video-1": "draining"}
    refused = run.refused("qnet_pod", pods=wishes, state="declared", retire=True, purge=True)
    assert refused.startswith("retire: works with state=declared and the list pods, without purge")
    run("qnet_pod", pods=wishes, state="declared", purge=True)
    assert states(database) == {"image-1": "active"}
