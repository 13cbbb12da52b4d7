# SPDX-License-Identifier: Apache-2.0
"""Plays of an older checkout are refused whole, and of two plays at once the newer one wins whole (ADR 0023)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.e2e.fleet import Fleet, Play

SOCKET = "unix:/run/qnet-database/qnet.sock"
FORGET = {
    "op": "mutate",
    "table": "QNet_Global",
    "where": [],
    "mutations": [["options", "delete", ["set", ["revision"]]]],
}
OLDER = "is older than"
pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def numbered(fop: Fleet) -> Iterator[Fleet]:
    """The fleet, whose intent has a revision for the time of a test."""
    yield fop
    for host in fop.groups["controllers"]:  # the leader takes it; the others hand it on, or refuse it
        transaction = json.dumps(["QNet", FORGET])
        fop.run(host, "ovsdb-client", "--timeout=10", "transact", SOCKET, transaction, check=False)
    fop.play("tenants pods", "fop")


def images(fop: Fleet) -> set[str]:
    """The pods of the image service that are attached."""
    return {name for name in fop.pods() if name.startswith("fop/image-")}


def test_an_older_checkout_is_refused_before_it_changes_anything(numbered: Fleet) -> None:
    numbered.play("tenants", "fop", qnet_revision=2)
    for playbook in ("site", "tenants"):
        done = numbered.try_play(playbook, "fop", qnet_revision=1, fop_image_replicas=5)
        assert done.status != 0
        assert OLDER in done.output, done.output[-3000:]
        assert done.changed == {}


def test_of_two_plays_at_once_the_newer_one_wins_whole(numbered: Fleet) -> None:
    def play(revision: int) -> Play:
        return numbered.try_play("tenants pods", "fop", qnet_revision=revision, fop_image_replicas=2 + revision)

    with ThreadPoolExecutor(2) as pool:
        older, newer = pool.map(play, (2, 3))
    assert newer.status == 0, newer.output[-3000:]
    assert older.status == 0 or OLDER in older.output, older.output[-3000:]
    assert images(numbered) == {f"fop/image-{number}" for number in range(1, 6)}
    again = numbered.play("tenants pods", "fop", qnet_revision=3, fop_image_replicas=5)
    assert again.changed == {}
