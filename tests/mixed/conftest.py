# SPDX-License-Identifier: Apache-2.0
"""A mixed fleet: Debian 12 and 13 in containers (datapath in user space), in two underlays with a router between them,
and a virtual machine with the kernel's datapath. It takes minutes to come up, so it is a tier of its own.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest
from tests.e2e.fleet import ROOT, Fleet, Pod

DEFAULTS = {
    "QNET_LAB": "mixed",
    "QNET_LAB_CONTROLLERS": "1",
    "QNET_LAB_SWITCHES": "2",
    "QNET_LAB_VIRTUAL": "1",
    "QNET_LAB_UNDERLAYS": "2",
    "QNET_LAB_RELEASES": "bookworm trixie",
}
# With QNET_LAB_SWITCHES=3 and QNET_LAB_VIRTUAL=0 the tests whose names do not say v1 run in a fraction of the time.
LAB = {name: os.environ.get(name, value) for name, value in DEFAULTS.items()}
PLAY_SECONDS = 3600  # the virtual machine's processor is emulated, and a play asks it for a hundred programs


def lab_up() -> None:
    """Bring the lab up, or back up."""
    os.environ.update(LAB)
    subprocess.run([ROOT / "lab" / "lab", "up"], check=True, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def fop() -> Iterator[Fleet]:
    """The mixed fleet with the FOP inventory; taken down afterwards unless QNET_LAB_KEEP is set."""
    lab_up()
    fleet = Fleet(LAB["QNET_LAB"], PLAY_SECONDS)
    fleet.play("site", "fop")
    fleet.install_scripts()
    yield fleet
    if not os.environ.get("QNET_LAB_KEEP"):
        subprocess.run([ROOT / "lab" / "lab", "down"], check=True, stdin=subprocess.DEVNULL)


@pytest.fixture
def pods(fop: Fleet) -> dict[str, Pod]:
    """The pods of the FOP inventory by name, as they are attached now."""
    return fop.pods()
