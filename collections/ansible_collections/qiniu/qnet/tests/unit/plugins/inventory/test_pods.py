# SPDX-License-Identifier: GPL-3.0-or-later
"""Pods as inventory hosts, by ansible-inventory itself."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import typing as t

import pytest

COLLECTIONS = pathlib.Path(__file__).resolve().parents[7]
HOSTS = """
all:
  children:
    switches:
      vars: {ansible_user: root, ansible_port: 2222}
      hosts: {h1: {ansible_host: 192.0.2.1}, h2: {ansible_host: 192.0.2.2, ansible_port: 22}}
"""
TENANTS = """
count: 2
qnet_tenants:
  - name: t
    security_groups:
      - name: fop-a
        services:
          - {name: image, network: prod, replicas: "{{ count | int }}", placement: {image-1: h1, image-2: h2}}
"""


class Inventory:
    """Sources in a directory."""

    def __init__(self, directory: pathlib.Path, tenants: str = TENANTS, hosts: str = HOSTS) -> None:
        self.directory = directory
        (directory / "group_vars").mkdir()
        (directory / "group_vars" / "all.yml").write_text(tenants)
        (directory / "hosts.yml").write_text(hosts)
        (directory / "pods.qnet.yml").write_text("plugin: qiniu.qnet.pods\n")

    def read(self) -> subprocess.CompletedProcess[str]:
        program = pathlib.Path(sys.executable).with_name("ansible-inventory")
        sources = ("-i", "hosts.yml", "-i", "pods.qnet.yml", "--list")
        environment = {
            "PATH": "/usr/bin:/bin", "HOME": str(self.directory), "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1", "LC_ALL": "C.UTF-8",
        }  # fmt: skip
        return subprocess.run(
            [program, *sources],
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=60,
            env=environment,
            check=False,
        )


def test_pods_are_hosts_that_are_entered_by_way_of_theirs(tmp_path: pathlib.Path) -> None:
    done = Inventory(tmp_path).read()
    assert done.returncode == 0, done.stderr
    found: dict[str, t.Any] = json.loads(done.stdout)
    assert found["pods"]["hosts"] == ["fop-a.image-1", "fop-a.image-2"]
    assert found["pods_of_fop_a_image"]["hosts"] == found["pods_of_fop_a"]["hosts"] == found["pods"]["hosts"]
    assert found["pods_on_h2"]["hosts"] == ["fop-a.image-2"]
    one, two = (found["_meta"]["hostvars"][name] for name in found["pods"]["hosts"])
    assert (one["ansible_host"], one["ansible_user"], one["ansible_port"]) == ("192.0.2.1", "root", 2222)
    assert (two["ansible_host"], two["ansible_port"]) == ("192.0.2.2", 22)
    assert "fop-a/image-1" in str(one["qnet_pod"])
    assert "fop-a.image-1" in str(one["ansible_pod_namespace"])


@pytest.mark.parametrize(
    ("tenants", "hosts", "wrong"),
    [
        (TENANTS.replace("image-2: h2", "image-2: h9"), HOSTS, "pod fop-a/image-2 is placed on h9, which is no host"),
        (TENANTS.replace(", placement: {image-1: h1, image-2: h2}", ""), "all: {}", "no host to place its pods on"),
    ],
)
def test_a_pod_without_a_host_is_an_error(tmp_path: pathlib.Path, tenants: str, hosts: str, wrong: str) -> None:
    done = Inventory(tmp_path, tenants, hosts).read()
    assert done.returncode != 0
    assert wrong in " ".join(done.stderr.split())


def test_without_tenants_nothing_is_added(tmp_path: pathlib.Path) -> None:
    done = Inventory(tmp_path, tenants="x: 1\n").read()
    assert done.returncode == 0, done.stderr
    assert "pods" not in json.loads(done.stdout)
