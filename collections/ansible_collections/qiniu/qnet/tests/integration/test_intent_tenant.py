# SPDX-License-Identifier: GPL-3.0-or-later
"""qnet_tenant: the inventory in one transaction, pruning, and how long it takes."""

from __future__ import annotations

import copy
import resource
import typing as t

if t.TYPE_CHECKING:
    from ansible_collections.qiniu.qnet.tests.conftest import IntentDatabase, Runner

NETWORKS = [{"name": "prod", "vni": 100, "pod_subnets": ["10.10.0.0/16"], "service_subnets": ["10.96.0.0/16"]}]
TENANTS = [
    {
        "name": "fop",
        "security_groups": [
            {
                "name": "fop",
                "services": [
                    {"name": "image", "network": "prod", "service_ips": [{"address": "10.96.0.10"}]},
                    {"name": "video", "network": "prod", "service_ips": [{}, {"name": "second", "affinity": "client"}]},
                    {"name": "agent", "network": "prod"},
                ],
            }
        ],
    },
    {"name": "platform", "security_groups": [{"name": "entry", "services": [{"name": "web", "network": "prod"}]}]},
]
EXPORTS = [
    {"service": "fop/image", "to": "entry", "ports": ["tcp/80"]},
    {"service": "fop/video", "to": "entry", "expires": "2027-01-01T00:00:00Z"},
]


def inventory() -> dict[str, t.Any]:
    return copy.deepcopy({"networks": NETWORKS, "tenants": TENANTS, "exports": EXPORTS, "purge": True})


def test_the_inventory_is_applied_once(run: Runner, database: IntentDatabase) -> None:
    tried = run("qnet_tenant", check=True, **inventory())
    assert database.rows("Network") == []
    done = run("qnet_tenant", **inventory())
    assert (done["diff"], done["plan"]) == (tried["diff"], tried["plan"])
    assert done["generation"] == 1
    again = run("qnet_tenant", **inventory())
    assert (again["changed"], again["generation"], again["diff"]) == (False, 1, {"before": {}, "after": {}})
    addresses = {f"{ip['service']}:{ip['name']}": ip["address"] for ip in run("qnet_service_ip_info")["service_ips"]}
    assert addresses == {"image:main": "10.96.0.10", "video:main": "10.96.0.1", "video:second": "10.96.0.2"}


def test_what_is_taken_from_the_inventory_goes(run: Runner) -> None:
    run("qnet_tenant", **inventory())
    smaller = inventory()
    del smaller["tenants"][0]["security_groups"][0]["services"][1]
    del smaller["exports"][1]
    del smaller["exports"][0]["ports"]
    done = run("qnet_tenant", **smaller)
    assert [(step["action"], step["name"]) for step in done["plan"]] == [
        ("remove", "fop/video"),
        ("remove", "fop/video:main"),
        ("remove", "fop/video:second"),
        ("change", "fop/image -> entry"),
        ("remove", "fop/video -> entry"),
    ]
    assert run("qnet_tenant", **smaller)["changed"] is False
    assert run("qnet_export_info")["exports"][0]["ports"] == []


def test_without_purge_nothing_is_taken_away(run: Runner) -> None:
    run("qnet_tenant", **inventory())
    part = {
        "tenants": [{"name": "fop", "security_groups": [{"name": "fop"}]}],
        "exports": [{"service": "fop/image", "to": "entry"}],
    }
    assert run("qnet_tenant", **part)["changed"] is False


def test_what_belongs_to_pods_is_an_unknown_key(run: Runner) -> None:
    wrong = inventory()
    wrong["tenants"][0]["security_groups"][0]["services"][0]["replicas"] = 3
    assert "replicas" in run.refused("qnet_tenant", **wrong)
    assert "tenants.security_groups.services" in run.refused("qnet_tenant", **wrong)


def test_nothing_is_written_when_one_part_is_wrong(run: Runner, database: IntentDatabase) -> None:
    wrong = inventory()
    wrong["exports"].append({"service": "fop/nothing", "to": "entry"})
    wrong["tenants"][1]["security_groups"][0]["services"][0]["network"] = "dev"
    assert run.refused("qnet_tenant", **wrong).splitlines() == [
        "tenants[1].security_groups[0].services[0]: service 'entry/web': network 'dev' does not exist; there are prod; "
        "create it first or correct the name",
        "exports[2]: export 'fop/nothing -> entry': service 'fop/nothing' does not exist; there are entry/web, "
        "fop/agent, fop/image, fop/video; create it first or correct the name",
    ]
    assert database.rows("Network") == []


def test_a_large_fleet_costs_a_few_times_what_one_network_does(run: Runner) -> None:
    groups = [
        {
            "name": f"t{number}",
            "security_groups": [
                {
                    "name": f"g{number}",
                    "services": [{"name": f"s{index}", "network": "prod", "service_ips": [{}]} for index in range(10)],
                }
            ],
        }
        for number in range(100)
    ]
    exports = [
        {"service": f"g{number}/s{index}", "to": f"g{(number + step) % 100}", "ports": ["tcp/80", "udp/53"]}
        for number in range(100)
        for index in range(10)
        for step in range(1, 6)
    ]
    arguments = {"networks": NETWORKS, "tenants": groups, "exports": exports, "purge": True}
    begun = processor_seconds()
    run("qnet_tenant", networks=NETWORKS)
    started = processor_seconds()
    assert len(run("qnet_tenant", **arguments)["plan"]) == 100 + 1000 + 1000 + 5000
    applied = processor_seconds()
    assert run("qnet_tenant", **arguments)["changed"] is False
    finished = processor_seconds()
    # What one network costs is how slow this machine is; bench/large_intent.py prints seconds.
    smallest = started - begun
    assert applied - started < 20 * smallest, "applying 1,000 services and 5,000 exports"
    assert finished - applied < 12 * smallest, "finding that there is nothing to do"


def processor_seconds() -> float:
    """Time that finished child processes computed: what a module takes, whatever else runs on the machine."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
