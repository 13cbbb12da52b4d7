# SPDX-License-Identifier: GPL-3.0-or-later
"""When a pod begins to drain it gets an end, and only then."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.qiniu.qnet.plugins.module_utils import _model, _pods, _tenant

NETWORK = {"name": "prod", "vni": 100, "pod_subnets": ["10.10.0.0/24"]}
NOW = 1_800_000_000


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: NOW + 0.5)


def declared(drain_seconds: int | None) -> _model.State:
    service = {"name": "image", "network": "prod", "drain_seconds": drain_seconds}
    tenant = {"name": "fop", "security_groups": [{"name": "fop", "services": [service]}]}
    return _tenant.plan_tenants(_model.State(), [NETWORK], [tenant], None, purge=False).after


def put(have: _model.State, **wish: t.Any) -> _model.State:
    return _pods.plan_pods(have, [{"group": "fop", "service": "image", "name": "image-1", **wish}]).after


def until(state: _model.State) -> int | None:
    record: _model.Pod = state["pod"]["fop/image-1"]
    return record.drain_until


def test_the_end_is_set_once_and_taken_away_with_the_drain() -> None:
    state = put(declared(300))
    assert until(state) is None
    state = put(state, state="draining")
    assert until(state) == NOW + 300
    again = _pods.plan_pods(state, [{"group": "fop", "service": "image", "name": "image-1", "state": "draining"}])
    assert not again.changed
    assert until(put(state, weight=5)) == NOW + 300
    assert until(put(state, state="active")) is None


def test_without_a_time_a_drain_has_no_end() -> None:
    assert until(put(declared(None), state="draining")) is None
    assert until(put(declared(-1), state="draining")) is None
    assert until(put(declared(0), state="draining")) == NOW
