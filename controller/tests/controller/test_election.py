# SPDX-License-Identifier: Apache-2.0
"""Mastership by rendezvous hash."""

from __future__ import annotations

from collections import Counter

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


def test_the_load_is_shared() -> None:
    shares = Counter(master_of(number, ["c1", "c2", "c3"]) for number in range(3000))
    assert all(800 < share < 1200 for share in shares.values()), shares


def test_nobody_is_master_when_nobody_lives() -> None:
    assert master_of(1, []) is None
