# SPDX-License-Identifier: GPL-3.0-or-later
"""What a controller is asked about a plan has the form of its rows, and its answer is told in words."""

from __future__ import annotations

import pytest

from ansible_collections.qiniu.qnet.plugins.module_utils import _model, _plan, _what_if


@pytest.mark.parametrize(("seconds", "told"), [(None, []), (60, [60])])
def test_an_optional_number_is_a_list_of_one_or_none(seconds: int | None, told: list[int]) -> None:
    after = _model.ServiceIP("fop", "image", "main", "prod", "10.96.0.10", "client", affinity_seconds=seconds)
    plan = _plan.Plan(changes=(_plan.Change("service_ip", after.key, None, after),), after=_model.State())
    (change,) = _what_if.question(plan)["changes"]
    assert change["row"]["affinity_seconds"] == told


def test_who_may_speak_to_all_is_told_in_words() -> None:
    item = {"group": "fop", "target": "broadcast", "network": "prod", "address": "255.255.255.255", "ports": "all"}
    found = {
        "lost": [],
        "gained": [item],
        "requests": {"lost": [], "gained": [], "reloaded": []},
        "connections_ended": 0,
        "hosts": [],
        "unknown": [],
    }
    assert "+ fop reaches all of its own in prod by broadcast and multicast" in _what_if.text(found)
