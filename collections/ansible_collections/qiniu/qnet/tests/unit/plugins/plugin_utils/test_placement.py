# SPDX-License-Identifier: GPL-3.0-or-later
"""Which pods there are and where they are placed."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.qiniu.qnet.plugins.plugin_utils.placement import (
    PlacementError,
    by_host,
    declarations,
    intent,
    place,
    workloads,
)

HOSTS = ["h1", "h2", "h3"]


def tenants(**keys: Any) -> list[dict[str, Any]]:
    """One tenant, one group fop, one service image."""
    return [
        {"name": "t", "security_groups": [{"name": "fop", "services": [{"name": "image", "network": "prod", **keys}]}]}
    ]


def test_pod_has_every_key_that_the_roles_read() -> None:
    workload = {"command": "/bin/true"}
    pods = place(
        tenants(
            replicas=2,
            weights={"image-1": 50},
            addresses={"image-2": ["10.0.0.7"]},
            draining=["image-2"],
            placement={"image-1": "h3", "image-2": "h2"},
            workload=workload,
        ),
        HOSTS,
    )
    common = {"service": "fop/image", "network": "prod", "workload": workload}
    assert pods == [
        {"name": "fop/image-1", "host": "h3", "weight": 50, "draining": False, **common},
        {"name": "fop/image-2", "host": "h2", "weight": 100, "draining": True, "addresses": ["10.0.0.7"], **common},
    ]


def test_default_placement_is_the_documented_rule() -> None:
    offset = int(hashlib.sha256(b"fop/image").hexdigest()[:8], 16)
    expected = [HOSTS[(i - 1 + offset) % 3] for i in range(1, 6)]
    assert [pod["host"] for pod in place(tenants(replicas=5), HOSTS)] == expected


def test_known_placement_never_changes() -> None:
    # computed by hand with sha256sum; a change here moves pods of every fleet
    assert [pod["host"] for pod in place(tenants(replicas=3), HOSTS)] == ["h3", "h1", "h2"]


def test_one_replica_is_the_default() -> None:
    assert [pod["name"] for pod in place(tenants(), HOSTS)] == ["fop/image-1"]


def test_own_hosts_of_a_service_come_before_the_default_hosts() -> None:
    assert {pod["host"] for pod in place(tenants(replicas=4, hosts=["h9"]), HOSTS)} == {"h9"}


def test_pod_without_any_host_is_refused_with_its_service() -> None:
    with pytest.raises(PlacementError, match="fop/image: no host"):
        place(tenants(), [])


@given(
    replicas=st.integers(0, 40), hosts=st.lists(st.from_regex(r"h[0-9]{1,3}", fullmatch=True), min_size=1, unique=True)
)
def test_pods_are_spread_evenly_and_scaling_up_moves_none(replicas: int, hosts: list[str]) -> None:
    pods = place(tenants(replicas=replicas), hosts)
    counts = [sum(pod["host"] == host for pod in pods) for host in hosts]
    assert len(pods) == replicas
    assert max(counts) - min(counts) <= 1
    assert place(tenants(replicas=replicas + 1), hosts)[:-1] == pods


@given(pin=st.sampled_from(HOSTS))
def test_pin_moves_only_its_pod(pin: str) -> None:
    before = place(tenants(replicas=4), HOSTS)
    after = place(tenants(replicas=4, placement={"image-2": pin}), HOSTS)
    assert [pod["host"] for pod in after] == [before[0]["host"], pin, before[2]["host"], before[3]["host"]]


def test_intent_has_nothing_about_pods_and_says_what_is_left_out() -> None:
    with_pods = tenants(
        replicas=1,
        hosts=["h1"],
        placement={},
        weights={},
        addresses={},
        draining=[],
        workload={"command": "/bin/true"},
        service_ips=[{}],
    )
    (tenant,) = intent(with_pods)
    (group,) = tenant["security_groups"]
    (service,) = group.pop("services")
    assert group == {"name": "fop", "egress": [], "broadcast": False}
    assert service == {
        "name": "image",
        "network": "prod",
        "health_check": {},
        "drain_seconds": -1,
        "service_ips": [{"affinity": "none", "affinity_seconds": 0}],
    }
    said = {"affinity": "client", "affinity_seconds": 60}
    (tenant,) = intent(tenants(service_ips=[said], drain_seconds=5))
    (service,) = tenant["security_groups"][0]["services"]
    assert (service["service_ips"], service["drain_seconds"]) == ([said], 5)


def test_only_pods_with_a_workload_are_held_until_they_answer() -> None:
    pods = place(tenants(replicas=2, workload={"command": "/bin/true"}), HOSTS)
    assert [pod.get("hold") for pod in declarations(pods, hold=True)] == [True, True]
    assert [pod.get("hold") for pod in declarations(pods)] == [None, None]
    assert declarations(place(tenants(), HOSTS), hold=True) == declarations(place(tenants(), HOSTS))


def test_pod_that_the_inventory_drains_is_declared_draining() -> None:
    assert declarations(place(tenants(draining=["image-1"]), HOSTS))[0]["draining"] is True


def test_declaration_has_only_what_the_module_takes() -> None:
    pods = place(tenants(addresses={"image-1": ["10.0.0.7"]}, workload={"command": "/bin/true"}), HOSTS)
    declared = {
        "name": "fop/image-1",
        "service": "fop/image",
        "addresses": ["10.0.0.7"],
        "weight": 100,
        "draining": False,
    }
    assert declarations(pods) == [declared]
    assert declarations(pods, bare=True) == [{"name": "fop/image-1", "service": "fop/image"}]


def test_workload_knows_its_pod_and_where_its_files_are() -> None:
    workload = {"command": "/bin/true", "environment": {"PORT": "80"}, "files": ["a/b.py"]}
    (found,) = workloads(place(tenants(workload=workload, hosts=["h1"]), HOSTS), "/opt")
    assert found == {
        "pod": "fop/image-1",
        "command": "/bin/true",
        "environment": {"PORT": "80", "QNET_POD": "fop/image-1", "QNET_SERVICE": "fop/image", "QNET_HOST": "h1"},
        "files": ["/opt/b.py"],
    }
    assert workloads(place(tenants(), HOSTS), "/opt") == []


def test_each_host_is_told_its_own_pods_and_what_their_workloads_need_once() -> None:
    workload = {"command": "/bin/true", "packages": ["nginx", "curl"], "files": ["workloads/a.py"]}
    pods = place(tenants(replicas=3, hosts=["h1", "h2"], workload=workload), HOSTS)
    shares = by_host(pods, "/opt/w")
    assert sorted(pod["name"] for share in shares.values() for pod in share["pods"]) == [pod["name"] for pod in pods]
    assert all(pod["host"] == host for pod in pods for host in shares if pod["name"] in str(shares[host]["pods"]))
    for host, share in shares.items():
        assert (share["packages"], share["files"]) == (["nginx", "curl"], ["workloads/a.py"])
        assert share["workloads"] == workloads([pod for pod in pods if pod["host"] == host], "/opt/w")
