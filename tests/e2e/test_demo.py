# SPDX-License-Identifier: Apache-2.0
"""The first thing that anybody sees of qnet."""

from __future__ import annotations

import subprocess

from tests.e2e.fleet import ROOT, Fleet


def test_everything_the_demo_shows_is_as_the_inventory_says(fop: Fleet) -> None:
    """It measures what it shows, and its exit status says whether all of it was right."""
    done = subprocess.run([ROOT / "lab/demo"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "NOT AS EXPECTED" not in done.stdout
