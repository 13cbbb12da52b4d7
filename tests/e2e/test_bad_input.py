# SPDX-License-Identifier: Apache-2.0
"""A bad inventory is refused before anything changes, with all its errors at once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.e2e.fleet import ROOT, Fleet


def service(**keys: Any) -> dict[str, Any]:
    return {"name": "s", "network": "n", "service_ips": [{"address": "10.2.0.1"}], **keys}


def inventory(*services: dict[str, Any], network: dict[str, Any] | None = None, **variables: Any) -> dict[str, Any]:
    """A sound inventory of one network and two groups, with these services in the first, with changes."""
    first = {"name": "n", "vni": 7, "pod_subnets": ["10.1.0.0/16"], "service_subnets": ["10.2.0.0/16"]}
    group = {"name": "g", "services": list(services) or [service()]}
    other = {"name": "other", "services": [{"name": "o", "network": "n"}]}
    sound = {
        "qnet_networks": [first | (network or {})],
        "qnet_tenants": [{"name": "t", "security_groups": [group, other]}],
        "qnet_exports": [{"service": "g/s", "to": "other"}],
    }
    return sound | variables


FAULTS = {  # name -> (variables, for each error: what its line must contain: path, value, rule)
    "unknown key": (
        inventory(service(replica=2)),
        [("qnet_tenants[0].security_groups[0].services[0].replica", "2", "no known key")],
    ),
    "overlapping subnets": (
        inventory(network={"service_subnets": ["10.2.0.0/16", "10.1.128.0/24"]}),
        [("qnet_networks[0].service_subnets[1]", "10.1.128.0/24", "overlaps 10.1.0.0/16")],
    ),
    "duplicate Service IP": (
        inventory(
            service(),
            service(name="r"),
        ),
        [("services[1].service_ips[0].address", "10.2.0.1", "is there twice")],
    ),
    "export of a missing service": (
        inventory(qnet_exports=[{"service": "g/missing", "to": "other"}]),
        [("qnet_exports[0].service", "g/missing", "no service")],
    ),
    "pod on a missing network": (
        inventory(service(network="nowhere")),
        [("qnet_tenants[0].security_groups[0].services[0].network", "nowhere", "no network")],
    ),
    "VNI out of range": (
        inventory(network={"vni": 16777216}),
        [("qnet_networks[0].vni", "16777216", "1 to 16777215")],
    ),
    "several at once": (
        inventory(service(replica=2), network={"vni": 0}, qnet_exports=[{"service": "g/s", "to": "nobody"}]),
        [
            ("services[0].replica", "2", "no known key"),
            ("qnet_networks[0].vni", "0", "1 to 16777215"),
            ("qnet_exports[0].to", "nobody", "no security group"),
        ],
    ),
}


def write(directory: Path, variables: dict[str, Any]) -> Path:
    """An inventory folder with these variables for the hosts of the lab."""
    shutil.copy(ROOT / "inventories" / "fop" / "groups.yml", directory / "groups.yml")
    (directory / "group_vars").mkdir()
    (directory / "group_vars" / "all.yml").write_text(yaml.safe_dump(variables))
    return directory


def assert_refused(lab: Fleet, path: Path, expected: list[tuple[str, str, str]]) -> None:
    """`site.yml` stops at the control node and prints one line for each error: path, value, rule, hint."""
    done = lab.try_play("site", path)
    assert done.status != 0, done.output
    assert set(done.recap) == {"localhost"}, done.output
    assert not done.changed
    lines = {line.strip() for line in done.output.splitlines() if line.strip().startswith("- qnet_")}
    assert len(lines) == len(expected), done.output
    for where, value, rule in expected:
        found = [line for line in lines if where in line.partition(" = ")[0]]
        assert len(found) == 1, (where, lines)
        text, _, hint = found[0].partition(" = ")[2].partition(": ")[2].partition(". ")
        assert found[0].partition(" = ")[2].startswith((value, f'"{value}"')), found
        assert rule in text, found
        assert hint, found


@pytest.mark.parametrize("fault", FAULTS)
def test_refused_before_any_host_is_touched(lab: Fleet, tmp_path: Path, fault: str) -> None:
    variables, expected = FAULTS[fault]
    assert_refused(lab, write(tmp_path, variables), expected)


def test_the_inventory_without_faults_is_accepted(lab: Fleet, tmp_path: Path) -> None:
    """Else the refusals above might have another cause."""
    lab.play("validate", write(tmp_path, inventory()))


def test_a_host_without_open_vswitch_stops_the_pods_of_all_hosts(fop: Fleet, tmp_path: Path) -> None:
    """Pods would be placed on it, and be taken from the hosts where they are."""
    shutil.copytree(ROOT / "inventories", tmp_path, dirs_exist_ok=True)
    bare = fop.groups["controllers"][0]
    switches: dict[str, Any] = {"hosts": {bare: {}}}
    groups = yaml.safe_dump({"all": {"children": {"controllers": {}, "switches": switches}}})
    (tmp_path / "fop" / "groups.yml").write_text(groups)
    before = fop.pods()
    done = fop.try_play("pods", tmp_path / "fop")
    assert done.status != 0
    assert f"{bare}: Open vSwitch does not answer: set the host up with playbooks/site.yml" in done.output
    assert not done.changed
    assert fop.pods() == before
