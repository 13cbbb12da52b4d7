# SPDX-License-Identifier: Apache-2.0
"""Calls between networks that use the same addresses, from the inventory to the packets and back again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.e2e.fleet import ROOT, Fleet, Pod

SERVED_AT, PORT = "10.96.0.20", 8081  # of fop/image, in both networks
PRIVATE = 12345  # nobody has exported it
SECONDS = 60
GROUP_VARS = Path("fop/group_vars/all")
pytestmark = pytest.mark.timeout(900)


def joined(directory: Path) -> Path:
    """The FOP inventory and a partner in a network of its own with the addresses of `prod`, who may ask for images."""
    shutil.copytree(ROOT / "inventories", directory, dirs_exist_ok=True)
    path = directory / GROUP_VARS / "networks.yml"
    variables = yaml.safe_load(path.read_text())
    variables["qnet_networks"].append({**variables["qnet_networks"][0], "name": "partner", "vni": 200})
    variables["qnet_guests"] = [{"network": "partner", "home": "prod"}]
    path.write_text(yaml.safe_dump(variables))
    path = directory / GROUP_VARS / "tenants.yml"
    variables = yaml.safe_load(path.read_text())
    for tenant in variables["qnet_tenants"]:
        for group in tenant["security_groups"]:
            for service in group["services"]:
                if (group["name"], service["name"]) == ("fop", "image"):
                    service["service_ips"].append({"name": "partner", "network": "partner", "address": SERVED_AT})
    app = {"name": "app", "network": "partner", "replicas": 2}
    variables["qnet_tenants"].append({"name": "p", "security_groups": [{"name": "partner", "services": [app]}]})
    variables["qnet_exports"].append({"service": "fop/image", "to": "partner", "ports": [f"tcp/{PORT}"]})
    path.write_text(yaml.safe_dump(variables))
    return directory / "fop"


@pytest.fixture
def partner(fop: Fleet, tmp_path: Path) -> Iterator[Path]:
    """The inventory above, applied; afterwards the fleet is as it was."""
    inventory = joined(tmp_path)
    fop.play("tenants", inventory)
    fop.play("pods", inventory)
    yield inventory
    fop.play("pods", "fop")
    fop.play("tenants", "fop")


def answering(fop: Fleet, caller: Pod, times: int) -> set[str]:
    return {name for (name,) in fop.ask(caller, "ask", "http", SERVED_AT, PORT, times)["answers"]}


def test_a_network_with_the_same_addresses_uses_what_is_exported_to_it(fop: Fleet, partner: Path) -> None:
    pods = fop.pods()
    callers = [pods["partner/app-1"], pods["partner/app-2"]]
    images = {name: pod for name, pod in pods.items() if name.startswith("fop/image-")}
    others = {pod.address for name, pod in pods.items() if not name.startswith("partner/")}
    assert {caller.address for caller in callers} <= others, "the addresses do not overlap"

    for caller in callers:
        assert answering(fop, caller, 40) == set(images)
        for pod in images.values():
            if pod.address not in {partner.address for partner in callers}:
                assert fop.ask(caller, "ask", "tcp", pod.address, PORT, 2)["answers"] == []
    with fop.serving(images.values(), "serve-tcp", "{}", PRIVATE, SECONDS):
        assert fop.ask(callers[0], "ask", "tcp", SERVED_AT, PRIVATE, 2)["answers"] == []
        own = fop.ask(pods["fop/agents-1"], "ask", "tcp", SERVED_AT, PRIVATE, 20)
    assert {name for name, _ in own["answers"]} == set(images)

    again = fop.play("tenants", partner)
    assert again.changed == {}
    path = partner.parent / GROUP_VARS / "tenants.yml"
    variables = yaml.safe_load(path.read_text())
    variables["qnet_exports"].pop()
    path.write_text(yaml.safe_dump(variables))
    fop.play("tenants", partner, tenants_wait=True)
    assert answering(fop, callers[0], 2) == set()
