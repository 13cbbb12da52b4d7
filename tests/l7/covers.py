# SPDX-License-Identifier: Apache-2.0
"""Which options a test shows at work; the table in docs/design/l7.md is made of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Test = TypeVar("Test", bound=Callable[..., object])


def covers(*options: str) -> Callable[[Test], Test]:
    """Say which options a test shows: route.path, listener.tls.ciphers, and route.x for what both have."""

    def mark(test: Test) -> Test:
        test.covers = options  # type: ignore[attr-defined]
        return test

    return mark
