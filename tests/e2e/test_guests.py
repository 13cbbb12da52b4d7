# SPDX-License-Identifier: Apache-2.0
"""A service for another network, from the inventory. Both have the same addresses and do not see each other."""

from __future__ import annotations

import ipaddress
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.e2e.fleet import ROOT, Fleet, Pod

PORT, OTHER_PORT, SECONDS = 12345, 12346, 120
THERE = "10.96.0.77"  # where the other network sees fop/image
pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def as_before(fop: Fleet) -> Iterator[None]:
    """The FOP inventory alone again."""
    yield
    fop.play("tenants pods", "fop")
    assert not [name for name in fop.pods() if name.startswith("trials/")]


def inventory_with_guest(directory: Path) -> Path:
    """A copy of the FOP inventory with a network beside `prod`, a pod in it, and a port of fop/image for that pod."""
    shutil.copytree(ROOT / "inventories", directory, dirs_exist_ok=True)
    variables = directory / "fop" / "group_vars" / "all"
    tenants = yaml.safe_load((variables / "tenants.yml").read_text())
    (image,) = (
        service
        for tenant in tenants["qnet_tenants"]
        for group in tenant["security_groups"]
        for service in group["services"]
        if service["name"] == "image"
    )
    image["service_ips"].append({"name": "lab", "network": "lab", "address": THERE})
    runner = {"name": "runner", "network": "lab", "replicas": 1}
    tenants["qnet_tenants"].append(
        {"name": "research", "security_groups": [{"name": "trials", "services": [runner]}]}
    )  # fmt: skip
    tenants["qnet_exports"].append({"service": "fop/image", "to": "trials", "ports": [f"tcp/{PORT}"]})
    (variables / "tenants.yml").write_text(yaml.safe_dump(tenants))
    networks = yaml.safe_load((variables / "networks.yml").read_text())
    networks["qnet_networks"].append({**networks["qnet_networks"][0], "name": "lab", "vni": 200})
    networks["qnet_guests"] = [{"network": "lab", "home": "prod"}]
    (variables / "networks.yml").write_text(yaml.safe_dump(networks))
    return directory / "fop"


@pytest.mark.usefixtures("as_before")
def test_a_pod_of_another_network_with_the_same_addresses_calls_what_is_exported(
    fop: Fleet, pods: dict[str, Pod], tmp_path: Path
) -> None:
    fop.play("tenants pods", inventory_with_guest(tmp_path))
    caller = fop.pods()["trials/runner-1"]
    images = [pod for name, pod in pods.items() if name.startswith("fop/image-")]
    with (
        fop.serving(images, "serve-tcp", "{}", PORT, SECONDS),
        fop.serving(images, "serve-tcp", "{}", OTHER_PORT, SECONDS),
    ):
        seen = fop.ask(caller, "ask", "tcp", THERE, PORT, 40)
        refused = [
            fop.ask(caller, "ask", "tcp", address, port, 2)["answers"]
            for address, port in ((THERE, OTHER_PORT), ("10.96.0.20", PORT), (images[0].address, PORT))
        ]
    assert seen["errors"] == []
    assert {name for name, _ in seen["answers"]} == {pod.name for pod in images}
    # Its own address may be that of a pod here: they see it at an address of their own network.
    (client,) = {client for _, client in seen["answers"]}
    assert ipaddress.ip_address(client) in ipaddress.ip_network("10.96.0.0/16")
    assert refused == [[], [], []]
