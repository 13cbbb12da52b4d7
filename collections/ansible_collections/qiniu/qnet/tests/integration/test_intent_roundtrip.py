# SPDX-License-Identifier: GPL-3.0-or-later
"""Random intents through the real database: what is read back is what was planned."""

from __future__ import annotations

import typing as t

from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.qiniu.qnet.plugins.module_utils import _model, _ovsdb, _pods, _tenant
from ansible_collections.qiniu.qnet.tests import intent_strategies

if t.TYPE_CHECKING:
    from ansible_collections.qiniu.qnet.tests.conftest import IntentDatabase


@settings(max_examples=25, deadline=None)
@given(history=st.lists(intent_strategies.wishes(), min_size=1, max_size=4))
def test_the_database_holds_what_was_planned(
    shared_database: IntentDatabase, history: list[intent_strategies.Wish]
) -> None:
    shared_database.clear()
    connection = _ovsdb.Connection((shared_database.remote,))
    generation = 0
    for wish in history:
        planners: list[_ovsdb.Planner] = [
            lambda have: _pods.plan_removal(
                have, [{"group": pod.group, "name": pod.name} for pod in have["pod"].values()]
            ),
            lambda have, wish=wish: _tenant.plan_tenants(  # type: ignore[misc]
                have, wish.networks, wish.tenants, wish.exports, purge=True
            ),
            lambda have, wish=wish: _pods.plan_pods(have, wish.pods),  # type: ignore[misc]
        ]
        for planner in planners:
            tried = _ovsdb.converge(connection, planner, check_mode=True)
            assert tried.generation == generation
            done = _ovsdb.converge(connection, planner, check_mode=False)
            assert done.plan.changes == tried.plan.changes
            generation += bool(done.plan.changes)
            assert _ovsdb.read(connection) == (done.state, generation)
        assert not _ovsdb.converge(connection, planners[2], check_mode=False).plan.changed
    assert isinstance(done.state, _model.State)
