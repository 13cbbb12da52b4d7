# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of a health check: what is filled in, and what is refused in which words."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.qiniu.qnet.plugins.module_utils import _model, _parse

TIMES = {"interval_seconds": 2.0, "timeout_seconds": 1.0, "healthy_threshold": 2, "unhealthy_threshold": 3}


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({}, {}),
        ({"type": None, "port": None}, {}),
        ({"type": "icmp"}, {"type": "icmp", **TIMES}),
        ({"type": "tcp", "port": 80}, {"type": "tcp", "port": 80, **TIMES}),
        ({"type": "http", "port": 80}, {"type": "http", "port": 80, "path": "/", **TIMES}),
        (
            {"type": "icmp", "interval_seconds": 0.5},
            {"type": "icmp", **TIMES, "interval_seconds": 0.5, "timeout_seconds": 0.25},
        ),
    ],
)
def test_everything_is_stored(given: dict[str, t.Any], shown: dict[str, t.Any]) -> None:
    stored = _parse.health_check(given)
    assert _model.shown_check(stored) == shown
    assert _parse.health_check(shown) == stored


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"port": 80}, "not a kind of check"),
        ({"type": "tcp"}, "a check by tcp needs one"),
        ({"type": "tcp", "port": 0}, "out of range"),
        ({"type": "tcp", "port": 80, "path": "/x"}, "only a check by http"),
        ({"type": "icmp", "port": 80}, "a check by icmp has none"),
        ({"type": "http", "port": 80, "path": "x"}, "begins with '/'"),
        ({"type": "http", "port": 80, "path": "/\r\nHost: x"}, "has no blanks"),
        ({"type": "icmp", "interval_seconds": 0.01}, "out of range"),
        ({"type": "icmp", "unhealthy_threshold": 0}, "out of range"),
        ({"type": "icmp", "interval_seconds": 1, "timeout_seconds": 2}, "longer than interval_seconds"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, t.Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _parse.health_check(given)
