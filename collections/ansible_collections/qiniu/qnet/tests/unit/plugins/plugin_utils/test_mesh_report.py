# SPDX-License-Identifier: GPL-3.0-or-later
"""Every way in which a pair of hosts can fail has its name."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ansible_collections.qiniu.qnet.plugins.plugin_utils.mesh_report import TITLES, Host, report

GOOD: dict[str, Any] = {
    "peer": "h2",
    "address": "192.0.2.2",
    "route": "eth1",
    "sent": 10,
    "answered": 10,
    "latency_milliseconds": 0.25,
    "mtu": 1500,
}
H2 = Host("h2", "192.0.2.2", [{**GOOD, "peer": "h1", "address": "192.0.2.1"}], ["h1"], ["192.0.2.2"])


def h1(**way: Any) -> Host:
    return Host("h1", "192.0.2.1", [{**GOOD, **way}], ["h2"], ["192.0.2.1"])


def test_a_mesh_that_is_well_has_no_faults_and_a_row_for_each_direction() -> None:
    result = report([h1(), H2], 1500)
    assert result["faults"] == []
    assert result["rows"][0] == list(TITLES)
    assert result["rows"][1:] == [
        ["h1", "h2", "eth1", "0%", "0.25 ms", "1500", "yes", "ok"],
        ["h2", "h1", "eth1", "0%", "0.25 ms", "1500", "yes", "ok"],
    ]


@pytest.mark.parametrize(
    ("way", "receiver", "word"),
    [
        ({"route": "no route: Network is unreachable", "sent": 0, "answered": 0, "mtu": None}, {}, "route: h1"),
        ({"answered": 0, "mtu": None}, {"heard": []}, "nothing from h1"),
        ({}, {"heard": []}, "firewall"),
        ({"mtu": 1400}, {}, "MTU: the path carries 1400, the overlay needs 1500"),
        ({"answered": 7}, {}, "loss: 30%"),
        ({}, {"vteps": ["192.0.2.9"]}, "wrong VTEP"),
        ({}, {"heard": None}, "did not answer"),
    ],
)
def test_the_cause_is_named_for_the_direction_that_has_it(way: dict[str, Any], receiver: Any, word: str) -> None:
    faults = report([h1(**way), dataclasses.replace(H2, **receiver)], 1500)["faults"]
    assert len(faults) == 1
    assert faults[0].startswith("h1 -> h2: ")
    assert word in faults[0]


def test_filtered_echoes_are_no_fault_when_tunnels_work() -> None:
    assert report([h1(answered=0, mtu=None), H2], 1500)["faults"] == []


def test_a_host_that_could_not_be_asked_and_a_fault_of_a_host_are_faults() -> None:
    hosts = [dataclasses.replace(h1(), ways=None), dataclasses.replace(H2, faults=["userspace-tso-enable"])]
    assert {fault.partition(":")[0] for fault in report(hosts, 1500)["faults"]} == {"h1", "h2"}
