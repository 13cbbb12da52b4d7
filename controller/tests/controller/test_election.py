# SPDX-License-Identifier: Apache-2.0
"""Mastership by rendezvous hash."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnet_controller.controller.election import master_of

NAMES = st.sets(st.text("abcdefgh-123", min_size=1, max_size=8), min_size=1, max_size=6)
DATAPATHS = st.integers(0, (1 << 64) - 1)


@given(NAMES, DATAPATHS)
def test_every_controller_agrees_whatever_the_order(names: set[str], datapath_id: int) -> None:
    assert master_of(datapath_id, sorted(names)) == master_of(datapath_id, sorted(names, reverse=True))


@given(NAMES, DATAPATHS, st.data())
def test_a_controller_that_goes_moves_only_its_own_switches(
    names: set[str], datapath_id: int, data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(sorted(names)))
    before = master_of(datapath_id, names)
    if before != gone:
        assert master_of(datapath_id, names - {gone}) == before


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_the_load_is_shared_within_a_fifth(count: int) -> None:
    """Datapath ids as the underlay role gives them, for a fleet of a thousand hosts."""
    hosts = (hashlib.sha256(f"h{number}".encode()).hexdigest()[:16] for number in range(1, 1001))
    names = [f"c{number}" for number in range(1, count + 1)]
    shares = Counter(master_of(int(datapath_id, 16), names) for datapath_id in hosts)
    fair = 1000 / count
    assert all(0.8 * fair <= shares[name] <= 1.2 * fair for name in names), shares


def test_nobody_is_master_when_nobody_lives() -> None:
    assert master_of(1, []) is None
