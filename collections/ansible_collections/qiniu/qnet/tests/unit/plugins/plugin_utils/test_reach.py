# SPDX-License-Identifier: GPL-3.0-or-later
"""The policy table of docs/design/architecture.md, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ansible_collections.qiniu.qnet.plugins.plugin_utils.reach import ALL, NOTHING, pairs, targets

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def pod(name: str, service: str, address: str, network: str = "prod", **keys: Any) -> dict[str, Any]:
    """A pod as qnet_pod_info returns it."""
    group, short = name.split("/")
    return {
        "group": group,
        "name": short,
        "service": service,
        "network": network,
        "addresses": address.split(),
        "state": "active",
        "weight": 100,
        **keys,
    }


PODS = (
    pod("entry/entry-1", "entry", "10.0.0.2"),
    pod("fop/agents-1", "agents", "10.0.0.3"),
    pod("fop/image-1", "image", "10.0.0.4"),
)
SERVICE_IPS = [
    {"group": "fop", "service": "agents", "name": "main", "network": "prod", "address": "10.1.0.2"},
    {"group": "fop", "service": "image", "name": "second", "network": "prod", "address": "10.1.0.3"},
]


def reach(pods: Sequence[dict[str, Any]] = PODS, **export: Any) -> dict[tuple[str, str], tuple[str, ...]]:
    """Source and target to what passes, with one export of fop/agents to entry when any of its keys is given."""
    exports = [{"service": "fop/agents", "to": "entry", **export}] if export else []
    return {(p.source.name, p.target.name): p.allowed for p in pairs(targets(pods, SERVICE_IPS), exports, NOW)}


def test_every_ordered_pair_is_there_once() -> None:
    assert len(reach()) == 3 * 2 + 3 * 2
    assert len(list(pairs(targets(PODS, SERVICE_IPS), [], NOW))) == 12


def test_inside_a_group_everything_passes() -> None:
    measured = reach()
    for target in ("fop/image-1", "fop/agents", "fop/image:second"):
        assert measured["fop/agents-1", target] == ALL


def test_without_an_export_nothing_passes_between_groups() -> None:
    crossing = {p for p in reach().items() if p[0][0].split("/")[0] != p[0][1].split("/")[0]}
    assert {allowed for dummy, allowed in crossing} == {NOTHING}
    assert len(crossing) == 6


def test_export_opens_its_service_ip_one_way_and_nothing_else() -> None:
    opened = {pair for pair, allowed in reach(direct=False).items() if allowed != reach()[pair]}
    assert opened == {("entry/entry-1", "fop/agents")}


def test_direct_export_opens_the_pods_of_that_service_too() -> None:
    opened = {pair for pair, allowed in reach(direct=True).items() if allowed != reach()[pair]}
    assert opened == {("entry/entry-1", "fop/agents"), ("entry/entry-1", "fop/agents-1")}


def test_export_is_limited_to_its_ports() -> None:
    (pair,) = (
        p
        for p in pairs(
            targets(PODS, SERVICE_IPS), [{"service": "fop/agents", "to": "entry", "ports": ["tcp/80", "icmp"]}], NOW
        )
        if p.allowed and p.source.group != p.target.group
    )
    assert [pair.permits(p) for p in ("tcp/80", "icmp", "tcp/81", "udp/80")] == [True, True, False, False]


@pytest.mark.parametrize(("seconds", "passes"), [(1, True), (0, False), (-1, False)])
def test_export_ends_at_its_expiry(seconds: int, passes: bool) -> None:
    expires = (NOW + timedelta(seconds=seconds)).isoformat()
    assert (reach(expires=expires)["entry/entry-1", "fop/agents"] == ALL) is passes


@pytest.mark.parametrize("keys", [{"state": "draining"}, {"weight": 0}])
def test_service_ip_without_a_pod_that_takes_connections_answers_nobody(keys: dict[str, Any]) -> None:
    measured = reach([PODS[0], pod("fop/agents-1", "agents", "10.0.0.3", **keys), PODS[2]], direct=True)
    assert measured["fop/image-1", "fop/agents"] == NOTHING
    assert measured["entry/entry-1", "fop/agents"] == NOTHING
    assert measured["entry/entry-1", "fop/agents-1"] == ALL


def test_pod_of_another_network_is_denied_even_in_the_same_group() -> None:
    measured = reach([*PODS, pod("fop/far-1", "far", "10.9.0.2", network="lab")])
    assert measured["fop/far-1", "fop/image-1"] == NOTHING
    assert measured["fop/image-1", "fop/far-1"] == NOTHING


def test_address_that_means_another_pod_in_the_own_network_is_left_out() -> None:
    measured = reach([*PODS, pod("fop/far-1", "far", "10.0.0.4", network="lab")])
    assert ("fop/agents-1", "fop/far-1") not in measured
    assert measured["fop/agents-1", "fop/image-1"] == ALL


def test_each_ip_version_is_a_pair_of_its_own_and_none_crosses() -> None:
    both = pod("fop/both-1", "both", "10.0.0.9 fd00::9")
    wide = {"group": "fop", "service": "both", "name": "main", "network": "prod", "address": "fd00:1::2"}
    known = targets([*PODS, both, pod("fop/wide-1", "wide", "fd00::8")], [*SERVICE_IPS, wide])
    found = {(p.source.address, p.target.address): p.allowed for p in pairs(known, [], NOW)}
    assert all((":" in source) == (":" in target) for source, target in found)
    assert found["fd00::8", "fd00::9"] == found["fd00::8", "fd00:1::2"] == found["10.0.0.3", "10.0.0.9"] == ALL


def test_service_ip_answers_only_in_a_version_that_its_pods_have() -> None:
    wide = {"group": "fop", "service": "image", "name": "wide", "network": "prod", "address": "fd00:1::2"}
    known = targets([*PODS, pod("fop/wide-1", "wide", "fd00::8")], [wide])
    assert {p.target.name: p.allowed for p in pairs(known, [], NOW)}["fop/image:wide"] == NOTHING
