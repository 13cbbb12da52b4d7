# SPDX-License-Identifier: Apache-2.0
"""The fleet that all tests of this folder share: the lab of `make demo`, brought up or taken as it is."""

from __future__ import annotations

import os
import subprocess

import pytest
from tests.e2e.fleet import ROOT, Fleet, Pod


@pytest.fixture(scope="session")
def lab() -> Fleet:
    """The lab, up; what runs on it may be anything."""
    name = os.environ.get("QNET_LAB", "qnet")
    subprocess.run([ROOT / "lab" / "lab", "up"], check=True, stdin=subprocess.DEVNULL)
    return Fleet(name)


@pytest.fixture(scope="session")
def fop(lab: Fleet) -> Fleet:
    """The lab with the FOP inventory applied."""
    lab.play("site", "fop")
    lab.install_scripts()
    return lab


@pytest.fixture
def pods(fop: Fleet) -> dict[str, Pod]:
    """The pods of the FOP inventory by name, as they are attached now."""
    return fop.pods()
