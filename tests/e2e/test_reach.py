# SPDX-License-Identifier: Apache-2.0
"""What reaches what is exactly what the inventory says, and repeating changes nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from tests.e2e.fleet import ROOT, Fleet, Pod

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def ufop(fop: Fleet) -> Iterator[Fleet]:
    """The same fleet with the UFOP inventory for the time of a test."""
    fop.play("tenants", "ufop")
    fop.play("pods", "ufop")
    yield fop
    fop.play("tenants", "fop")
    fop.play("pods", "fop")


def test_site_again_changes_nothing(fop: Fleet) -> None:
    assert fop.play("site", "fop").changed == {}


def test_check_mode_finds_nothing_to_change(fop: Fleet) -> None:
    done = fop.play("site", "fop", "--check", "--diff")
    assert done.changed == {}
    assert [line for line in done.output.splitlines() if line.startswith(("+++", "---", "@@"))] == []


def test_fop_reaches_what_it_should(fop: Fleet) -> None:
    fop.play("verify", "fop")


def test_verify_notices_reach_that_the_inventory_does_not_give(fop: Fleet) -> None:
    done = fop.try_play("verify", "fop", qnet_exports=[])
    assert done.status != 0
    assert "entry/entry-1" in done.output


def test_users_of_ufop_reach_what_they_should(ufop: Fleet) -> None:
    ufop.play("verify", "ufop")


def test_tasks_run_inside_of_the_pods_of_a_service(fop: Fleet, pods: dict[str, Pod]) -> None:
    sources = [ROOT / "inventories" / "fop", fop.hosts_file, ROOT / "inventories" / "pods.qnet.yml"]
    done = subprocess.run(
        ["ansible", *(part for source in sources for part in ("-i", str(source))), "pods_of_fop_image", "-o",
         "-m", "ansible.builtin.command", "-a", "ip -o -4 address show dev eth0"],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for name, pod in pods.items():
        if name.startswith("fop/image-"):
            assert f"{pod.address}/16" in done.stdout
