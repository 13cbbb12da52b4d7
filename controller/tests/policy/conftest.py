# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the policy tests."""

from __future__ import annotations

import pytest

from policy.probe import Prober
from policy.scene import build_scene
from simulator.conntrack import Datapath


@pytest.fixture(params=["netdev", "system"])
def datapath(request: pytest.FixtureRequest) -> Datapath:
    """Both kinds of datapath."""
    kind: Datapath = request.param
    return kind


@pytest.fixture
def prober(datapath: Datapath) -> Prober:
    """The scene, on both kinds of datapath."""
    return build_scene(datapath)
