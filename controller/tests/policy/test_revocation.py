# SPDX-License-Identifier: Apache-2.0
"""A revoked export on real Open vSwitch: streams of every kind end, in both directions, and no other one notices."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from .live import Fleet
from .revocation import ALL, BYSTANDERS_FROM, PROGRAM, Intent, Streams, last_arrivals, settle, world
from .tenants import ExportPlan

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]
QUIET_SECONDS = 1.5
BYSTANDERS, TICK_MILLISECONDS = 24, 40


def test_streams_of_every_kind_end_with_their_export_and_the_receipt_counts_them(tmp_path: Path) -> None:
    with Fleet(tmp_path, world(), ["h1", "h2"], PROGRAM) as fleet:
        fleet.wait_until_ready()
        intent = Intent(fleet.database.socket)
        fleet.database = intent  # type: ignore[assignment]
        streams = Streams(fleet)
        streams.revocable(TICK_MILLISECONDS)
        streams.bystanders(BYSTANDERS, TICK_MILLISECONDS)
        before = settle(streams)
        revoked = {number for number in before if number < BYSTANDERS_FROM}
        assert {streams.case(number, before[number]) for number in revoked} == ALL

        generation = intent.generation() + 1
        fleet.remove_export(fleet.world.exports["a/s", "b"])
        receipt = json.loads(fleet.api(f"/v1/receipt?generation={generation}&wait=20"))
        time.sleep(QUIET_SECONDS)
        after = streams.report()
        time.sleep(QUIET_SECONDS)
        later = streams.report()

        # The receipt: every switch, every stream, no other.
        assert receipt["confirmed"] == ["h1", "h2"]
        hosts = {part["host"]: part for part in receipt["hosts"]}
        assert set(hosts) == {"h1", "h2"}, receipt
        assert all(part["problem"] is None and part["milliseconds"] > 0 for part in hosts.values())
        assert len(hosts["h1"]["connections"]) == len(revoked)
        across = [n for n in revoked if streams.case(n, before[n]).place == "across hosts"]
        assert len(hosts["h2"]["connections"]) == len(across)
        # The streams: nothing more arrives at either end, whoever sends.
        moved = [n for n in revoked if any(after[n][side][2] != later[n][side][2] for side in after[n])]
        assert not moved, [streams.case(n, after[n]) for n in moved]
        assert len(list(last_arrivals(streams, later, intent.sent_at))) == len(revoked)
        # The others: all go on, nothing was lost, nobody was reset.
        for number in streams.opened.keys() - revoked:
            for side, (pod, _, records, lost, reset) in later[number].items():
                assert not reset, (number, side, pod)
                assert not lost, (number, side, pod)
                if streams.opened[number][2] == 3:
                    assert records > after[number][side][2], (number, side, pod)

        # Deny to allow is as immediate, although what was refused meanwhile is cached.
        with pytest.raises(AssertionError):
            streams.open("b/u-1", [(6, fleet.world.pods["a/s-1"].address, 3, TICK_MILLISECONDS)])
        del streams.opened[max(streams.opened)]
        fleet.add_export(ExportPlan("a/s", "b", direct=True))
        fleet.api(f"/v1/receipt?generation={intent.generation()}&wait=20")
        streams.open("b/u-1", [(6, fleet.world.pods["a/s-1"].address, 3, TICK_MILLISECONDS)])
