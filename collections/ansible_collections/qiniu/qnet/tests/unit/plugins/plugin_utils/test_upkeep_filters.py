# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters of the upgrade and of the rebuilt database."""

from __future__ import annotations

from typing import Any

from ansible_collections.qiniu.qnet.plugins.filter.qnet_kept_addresses import qnet_kept_addresses
from ansible_collections.qiniu.qnet.plugins.filter.qnet_loss_pairs import qnet_loss_pairs


def pod(name: str, group: str = "fop", network: str = "prod") -> dict[str, Any]:
    return {"name": name, "group": group, "network": network, "addresses": [f"10.0.0.{name[-1]}"]}


def placed(**hosts: str) -> list[dict[str, str]]:
    return [{"name": f"fop/{name}", "host": host} for name, host in hosts.items()]


def test_every_host_probes_every_other_that_it_shares_a_group_with() -> None:
    pods = [pod("a1"), pod("a2"), pod("a3"), pod("b4", "else")]
    where = [*placed(a1="h1", a2="h2", a3="h3"), {"name": "else/b4", "host": "h4"}]
    found = qnet_loss_pairs(pods, where)
    assert {host: [pair["target"] for pair in pairs] for host, pairs in found.items()} == {
        "h1": ["fop/a2", "fop/a3"], "h2": ["fop/a3", "fop/a1"], "h3": ["fop/a1", "fop/a2"], "h4": [],
    }  # fmt: skip
    assert found["h1"][0] == {
        "namespace": "fop.a1", "source": "fop/a1", "target": "fop/a2", "address": "10.0.0.2",
    }  # fmt: skip


def test_a_host_of_a_large_fleet_probes_only_some() -> None:
    pods = [pod(f"a{number}") for number in range(9)]
    where = placed(**{f"a{number}": f"h{number}" for number in range(9)})
    assert {len(pairs) for pairs in qnet_loss_pairs(pods, where, 3).values()} == {3}
    assert [pair["target"] for pair in qnet_loss_pairs(pods, where, 3)["h7"]] == ["fop/a8", "fop/a0", "fop/a1"]


def test_pods_of_different_networks_are_no_pair() -> None:
    assert qnet_loss_pairs([pod("a1"), pod("a2", network="lab")], placed(a1="h1", a2="h2")) == {"h1": [], "h2": []}


def test_pods_keep_what_they_have_but_the_inventory_has_the_last_word() -> None:
    service = {"name": "image", "network": "prod", "replicas": 3, "addresses": {"image-2": ["10.0.0.9"]}}
    tenants = [{"name": "t", "security_groups": [{"name": "fop", "services": [service]}]}]
    found = {"fop/image-1": ["10.0.0.1"], "fop/image-2": ["10.0.0.2"], "fop/image-4": ["10.0.0.4"], "x/image-3": ["1"]}
    kept = qnet_kept_addresses(tenants, found)
    assert kept[0]["security_groups"][0]["services"][0]["addresses"] == {
        "image-1": ["10.0.0.1"], "image-2": ["10.0.0.9"],
    }  # fmt: skip
    assert service["addresses"] == {"image-2": ["10.0.0.9"]}
