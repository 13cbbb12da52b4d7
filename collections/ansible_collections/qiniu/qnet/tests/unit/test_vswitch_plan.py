# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy
import typing as t

import hypothesis
import hypothesis.strategies as st
import pytest

from ansible_collections.qiniu.qnet.plugins.module_utils import _vswitch_plan as plan

Ask = dict[str, t.Any]


def empty() -> plan.Tree:
    return {"other_config": {}, "external_ids": {}, "ssl": None, "bridges": {}}


def bridge(name: str = "br-int", **options: t.Any) -> Ask:
    return {"bridges": [{"name": name, **options}]}


def after(*asks: Ask) -> plan.Tree:
    tree = empty()
    for ask in asks:
        tree = plan.plan(tree, ask)
    return tree


def faults(ask: Ask, have: plan.Tree | None = None) -> list[str]:
    with pytest.raises(plan.Refused) as refused:
        plan.plan(have or empty(), ask)
    return refused.value.faults


def test_a_new_bridge_has_its_own_internal_port() -> None:
    assert after(bridge())["bridges"]["br-int"] == plan.new_bridge("br-int")
    assert plan.new_bridge("br-int")["ports"] == {"br-int": plan.new_port("internal")}


def test_have_is_not_touched() -> None:
    have = after(bridge(ports=[{"name": "p1"}]))
    before = copy.deepcopy(have)
    plan.plan(have, bridge(ports=[{"name": "p2"}], fail_mode="secure", other_config={"a": "b"}))
    assert have == before


@pytest.mark.parametrize(
    ("option", "value", "cleared"),
    [
        ("fail_mode", "secure", ""),
        ("protocols", ["OpenFlow15"], []),
        ("external_ids", {"a": "b"}, {}),
        ("other_config", {"hwaddr": "02:00:00:00:00:01"}, {}),
    ],
)
def test_omitted_leaves_alone_and_empty_clears(option: str, value: t.Any, cleared: t.Any) -> None:
    have = after(bridge(**{option: value}))
    assert have["bridges"]["br-int"][option] == value
    assert plan.plan(have, bridge()) == have
    assert plan.plan(have, bridge(**{option: cleared}))["bridges"]["br-int"][option] == cleared


def test_controllers_are_a_set_of_which_omitted_settings_stay() -> None:
    have = after(
        bridge(controllers=[{"target": "tcp:1.1.1.1:1", "max_backoff_milliseconds": 2000}, {"target": "tcp:2.2.2.2:1"}])
    )
    want = plan.plan(have, bridge(controllers=[{"target": "tcp:1.1.1.1:1", "connection_mode": "out-of-band"}]))
    assert want["bridges"]["br-int"]["controllers"] == {
        "tcp:1.1.1.1:1": {
            "max_backoff_milliseconds": 2000,
            "inactivity_probe_milliseconds": None,
            "connection_mode": "out-of-band",
        }
    }
    assert plan.plan(have, bridge(controllers=[]))["bridges"]["br-int"]["controllers"] == {}


def test_bridges_and_ports_that_are_not_mentioned_stay() -> None:
    have = after(
        bridge("br-phy", ports=[{"name": "eth0"}]), bridge(ports=[{"name": "qn1", "external_ids": {"a": "b"}}])
    )
    want = plan.plan(have, bridge(ports=[{"name": "qn2"}]))
    assert want["bridges"]["br-phy"] == have["bridges"]["br-phy"]
    assert want["bridges"]["br-int"]["ports"]["qn1"]["external_ids"] == {"a": "b"}
    assert plan.plan(have, bridge(ports=[])) == have


def test_absent_ports_and_bridges_go() -> None:
    have = after(bridge(ports=[{"name": "p1"}, {"name": "p2"}]))
    want = plan.plan(have, bridge(ports=[{"name": "p1", "state": "absent"}]))
    assert set(want["bridges"]["br-int"]["ports"]) == {"br-int", "p2"}
    assert plan.plan(have, bridge(state="absent"))["bridges"] == {}
    assert plan.plan(empty(), bridge(state="absent")) == empty()


def test_a_port_listed_elsewhere_moves_with_its_settings() -> None:
    have = after(bridge("br-a", ports=[{"name": "p1", "external_ids": {"a": "b"}}]), bridge("br-b"))
    want = plan.plan(have, bridge("br-b", ports=[{"name": "p1"}]))
    assert "p1" not in want["bridges"]["br-a"]["ports"]
    assert want["bridges"]["br-b"]["ports"]["p1"]["external_ids"] == {"a": "b"}


def test_the_datapath_id_lives_beside_the_other_config() -> None:
    have = after(bridge(datapath_id="00000000000000AB", other_config={"a": "b"}))
    assert have["bridges"]["br-int"]["other_config"] == {"a": "b", "datapath-id": "00000000000000ab"}
    assert plan.plan(have, bridge(other_config={}))["bridges"]["br-int"]["other_config"] == {
        "datapath-id": "00000000000000ab"
    }
    assert plan.plan(have, bridge(datapath_id=""))["bridges"]["br-int"]["other_config"] == {"a": "b"}


def test_global_keys_are_merged_and_null_removes_one() -> None:
    have = after({"external_ids": {"system-id": "x", "a": "b"}, "other_config": {"c": True}})
    assert have["other_config"] == {"c": "true"}
    want = plan.plan(have, {"external_ids": {"a": None, "d": 1}})
    assert want["external_ids"] == {"system-id": "x", "d": "1"}


def test_ssl_is_set_and_cleared_as_a_whole() -> None:
    files = {"private_key": "/k", "certificate": "/c", "ca_certificate": "/a"}
    have = after({"ssl": files})
    assert have["ssl"] == files
    assert plan.plan(have, {}) == have
    assert plan.plan(have, {"ssl": dict.fromkeys(files)})["ssl"] is None


def test_all_faults_come_at_once_each_with_its_path() -> None:
    found = faults(
        {
            "bridges": [
                {"name": "br-int", "datapath_id": "12", "ports": [{"name": "a/b"}, {"name": "p1"}]},
                {
                    "name": "br-int",
                    "controllers": [{"target": "10.0.0.1"}, {"target": "tcp:a:1", "max_backoff_milliseconds": 1}],
                },
                {"name": "br-b", "ports": [{"name": "p1"}, {"name": "br-int"}, {"name": "br-b", "state": "absent"}]},
            ]
        }
    )
    starts = [fault.split(": ")[0] for fault in found]
    assert starts == [
        "bridges[0].datapath_id",
        "bridges[0].ports[0].name",
        "bridges[1].name",
        "bridges[1].controllers[0].target",
        "bridges[1].controllers[1].max_backoff_milliseconds",
        "bridges[2].ports[0].name",
        "bridges[2].ports[2].state",
        "bridges[2].ports[1].name",
    ]


def test_a_bond_and_the_port_of_another_bridge_are_refused() -> None:
    have = after(bridge("br-a"), bridge("br-b", ports=[{"name": "bond0"}]))
    have["bridges"]["br-b"]["ports"]["bond0"]["type"] = plan.BOND
    assert "bond" in faults(bridge("br-b", ports=[{"name": "bond0"}]), have)[0]
    assert "is the name of a bridge" in faults(bridge("br-b", ports=[{"name": "br-a"}]), have)[0]


def test_visible_shows_what_is_mentioned_only() -> None:
    have = after(bridge(ports=[{"name": "p1"}, {"name": "p2"}]), bridge("br-b"), {"external_ids": {"a": "b", "c": "d"}})
    shown = plan.visible(have, {**bridge(ports=[{"name": "p1"}, {"name": "p3"}]), "external_ids": {"a": "x", "z": "y"}})
    assert list(shown) == ["external_ids", "bridges"]
    assert shown["external_ids"] == {"a": "b"}
    assert list(shown["bridges"]) == ["br-int"]
    assert list(shown["bridges"]["br-int"]["ports"]) == ["p1"]


_maps = st.none() | st.dictionaries(
    st.sampled_from("abc"), st.none() | st.booleans() | st.integers(0, 9) | st.text("xy")
)
_ports = st.fixed_dictionaries(
    {"name": st.sampled_from(["p1", "p2", "p3"])},
    optional={
        "state": st.sampled_from(["present", "absent"]),
        "type": st.none() | st.sampled_from(["", "system", "internal", "vxlan"]),
        "options": _maps,
        "external_ids": _maps,
        "mtu": st.none() | st.integers(0, 9000),
    },
)
_bridges = st.fixed_dictionaries(
    {"name": st.sampled_from(["br-a", "br-b", "br-c"])},
    optional={
        "state": st.sampled_from(["present", "absent"]),
        "datapath_type": st.none() | st.sampled_from(["system", "netdev"]),
        "fail_mode": st.none() | st.sampled_from(["", "secure"]),
        "protocols": st.none() | st.lists(st.sampled_from(["OpenFlow13", "OpenFlow15"])),
        "datapath_id": st.none() | st.just("") | st.just("00000000000000aa"),
        "other_config": _maps,
        "controllers": st.none() | st.lists(st.fixed_dictionaries({"target": st.sampled_from(["tcp:a:1", "ssl:b:2"])})),
        "ports": st.none() | st.lists(_ports, max_size=3),
    },
)
_asks = st.fixed_dictionaries({}, optional={"bridges": st.lists(_bridges, max_size=3), "external_ids": _maps})


@hypothesis.given(st.lists(_asks, max_size=3), _asks)
def test_a_plan_that_was_carried_out_leaves_nothing_to_do(history: list[Ask], ask: Ask) -> None:
    tree = empty()
    for step in [*history, ask]:
        hypothesis.assume(not plan.check(step))
        try:
            tree = plan.plan(tree, step)
        except plan.Refused:
            hypothesis.reject()
    assert plan.plan(tree, ask) == tree
    assert plan.visible(tree, ask) == plan.visible(plan.plan(tree, ask), ask)
