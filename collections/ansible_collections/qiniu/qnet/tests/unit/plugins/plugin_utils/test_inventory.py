# SPDX-License-Identifier: GPL-3.0-or-later
"""Every kind of error of an inventory, with its exact path; all of them in one run; none in a good one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.qiniu.qnet.plugins.plugin_utils.inventory_rules import Fleet
from ansible_collections.qiniu.qnet.plugins.plugin_utils.problem import render_path, report
from ansible_collections.qiniu.qnet.tests.egress_faults import EGRESS_FAULTS
from ansible_collections.qiniu.qnet.tests.guest_faults import GUEST_FAULTS
from ansible_collections.qiniu.qnet.tests.inventory_faults import (
    FAULTS,
    FLEET,
    SERVICE,
    inventory,
    paths,
    problems,
    service,
)


def test_good_inventory_has_no_problem() -> None:
    assert problems(inventory()) == []


def test_empty_inventory_has_no_problem() -> None:
    assert problems({}) == []


@pytest.mark.parametrize("fault", FAULTS | GUEST_FAULTS | EGRESS_FAULTS)
def test_fault_is_found_alone_at_its_path(fault: str) -> None:
    change, path, rule, hint = (FAULTS | GUEST_FAULTS | EGRESS_FAULTS)[fault]
    wrong = inventory()
    change(wrong)
    found = [problem for problem in problems(wrong) if not (fault == "misspelt required key" and "vin" in problem.path)]
    assert [render_path(problem.path) for problem in found] == [path]
    assert rule in found[0].rule
    assert hint in found[0].hint


def test_even_number_of_database_members_is_refused() -> None:
    found = problems(inventory(), Fleet(now=FLEET.now, database=["c1", "c2"]))
    assert [(render_path(p.path), p.hint) for p in found] == [("groups.database", "Use 1 or 3 hosts.")]


def test_a_host_in_a_set_without_controllers_is_refused() -> None:
    sets = {"h1": "default", "h2": "east", "h3": "esat"}
    fleet = Fleet(now=FLEET.now, controller_sets={"c1": "east", "c2": "default"}, switch_sets=sets)
    (found,) = problems(inventory(), fleet)
    assert (render_path(found.path), found.value) == ("hostvars.h3.qnet_controller_set", "esat")
    assert "east" in found.hint


def test_names_of_hosts_are_not_checked_while_the_switches_are_unknown() -> None:
    wrong = inventory()
    service(wrong)["hosts"] = ["elsewhere"]
    assert paths(wrong, Fleet(now=FLEET.now)) == []


def test_all_faults_are_found_in_one_run() -> None:
    wrong = inventory()
    chosen = [
        "unknown key",
        "vni too large",
        "pin to a missing host",
        "export to a missing group",
        "port syntax",
        "missing file",
        "pod address is the gateway",
        "unknown variable",
        "subnets overlap",
    ]
    for fault in chosen:
        FAULTS[fault][0](wrong)
    assert sorted(paths(wrong)) == sorted(FAULTS[fault][1] for fault in chosen)


def test_report_has_one_line_for_each_problem_in_the_order_of_the_inventory() -> None:
    wrong = inventory()
    for fault in ("port syntax", "unknown key", "vni too large"):
        FAULTS[fault][0](wrong)
    lines = report(problems(wrong)).splitlines()
    assert lines[0] == "The inventory has 3 errors; no host was touched."
    listed = [line for line in lines if line.startswith("  - ")]
    assert [line.split(" = ")[0] for line in listed] == [
        "  - qnet_exports[0].ports[1]",
        "  - qnet_networks[0].vni",
        f"  - {SERVICE}.replica",
    ]
    assert listed[1] == (
        "  - qnet_networks[0].vni = 16777216: is out of range 1 to 16777215. Use a number from 1 to 16777215."
    )


def test_value_of_an_environment_variable_is_never_shown() -> None:
    wrong = inventory()
    service(wrong)["workload"]["environment"]["TOKEN"] = 123456
    text = report(problems(wrong))
    assert "environment.TOKEN = (not shown)" in text
    assert "123456" not in text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 70000) | st.sampled_from(["prod", "fop", "10.10.0.0/24", "h1", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "network", "x"]), inner),
    max_leaves=6,
)


@given(data=st.data())
def test_a_wrong_value_anywhere_never_stops_the_checks(data: st.DataObject) -> None:
    wrong = inventory()
    node: Any = wrong
    while True:
        key = data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        if not isinstance(node[key], (dict, list)) or not node[key] or data.draw(st.booleans()):
            break
        node = node[key]
    node[key] = data.draw(json_values)
    report(problems(wrong))
