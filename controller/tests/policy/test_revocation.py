# SPDX-License-Identifier: Apache-2.0
"""A revoked export on real Open vSwitch: streams of every kind end, in both directions, and no other one notices."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from .live import Fleet, dotted
from .revocation import ALL, PROGRAM, Streams, bystander, settle, world
from .streams import PORT
from .tenants import UDP, ExportPlan

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]
QUIET_SECONDS = 1.5
BYSTANDERS, TICK_MILLISECONDS = 24, 40


def test_streams_of_every_kind_end_with_their_export_and_the_receipt_counts_them(tmp_path: Path) -> None:
    with Fleet(tmp_path, world(), ["h1", "h2"], PROGRAM) as fleet:
        fleet.wait_until_ready()
        streams = Streams(fleet)
        streams.revocable(TICK_MILLISECONDS)
        streams.bystanders(BYSTANDERS, TICK_MILLISECONDS)
        before = settle(streams)
        revoked = {number for number in before if not bystander(number)}
        assert {streams.case(number, before[number]) for number in revoked} == ALL

        # What would happen, and that nothing happens by asking.
        asked = {"_ansible_check_mode": True, "_ansible_diff": True}
        would = fleet.module("qnet_export", service="a/s", to="b", state="absent", **asked)["what_if"]
        assert would["gained"] == []
        assert {(item["group"], item["target"], item["ports"]) for item in would["lost"]} == {
            ("b", target, "all") for target in ("a/s-1", "a/s-2", "a/s:main")
        }
        assert would["connections_ended"] == len(revoked)

        asked_whole = fleet.module("qnet_what_if", exports=[], purge=True)
        assert not asked_whole["changed"]
        assert asked_whole["what_if"]["connections_ended"] > len(revoked)
        assert "- b reaches a/s:main" in asked_whole["text"]

        gone = fleet.module("qnet_export", service="a/s", to="b", state="absent", wait=True)
        receipt = gone["receipt"]
        time.sleep(QUIET_SECONDS)
        after = streams.report()
        time.sleep(QUIET_SECONDS)
        later = streams.report()

        # The receipt: every switch, every stream, no other.
        assert gone["changed"]
        assert receipt["ended"] == would["ended"]
        predicted = {part["host"]: (part["flows_added"], part["flows_removed"]) for part in would["hosts"]}
        assert predicted == {part["host"]: (part["flows_added"], part["flows_removed"]) for part in receipt["hosts"]}
        assert receipt["generation"] == gone["generation"]
        assert receipt["confirmed"]
        assert receipt["pending"] == []
        assert receipt["connections_ended"] == len(receipt["ended"]) == len(revoked)
        hosts = {part["host"]: part for part in receipt["hosts"]}
        assert set(hosts) == {"h1", "h2"}, receipt
        assert all(part["problem"] is None and part["milliseconds"] > 0 for part in hosts.values())
        assert hosts["h1"]["connections"] == len(revoked)
        across = [n for n in revoked if streams.case(n, before[n]).place == "across hosts"]
        assert hosts["h2"]["connections"] == len(across)
        # The streams: nothing more arrives at either end, whoever sends.
        moved = [n for n in revoked if any(after[n][side][2] != later[n][side][2] for side in after[n])]
        assert not moved, [streams.case(n, after[n]) for n in moved]
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
        back = fleet.module("qnet_export", service="a/s", to="b", direct=True, wait=True)
        assert back["receipt"]["confirmed"]
        assert back["receipt"]["connections_ended"] == 0
        assert fleet.module("qnet_export", service="a/s", to="b", direct=True, wait=True)["receipt"] is None
        streams.open("b/u-1", [(6, fleet.world.pods["a/s-1"].address, 3, TICK_MILLISECONDS)])


KNOCK = """
import itertools, socket, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in itertools.count():
    sock.sendto(b"?", (sys.argv[1], int(sys.argv[2]) + 1 + number % 50))
    time.sleep(float(sys.argv[3]))
"""


@contextmanager
def knocking(fleet: Fleet, target: str, seconds: float) -> Iterator[None]:
    """Datagrams of b/u-1 to ports of a pod beside that of the streams, one every so many seconds."""
    inside, address = fleet.pod_namespace(fleet.world.pods["b/u-1"]), dotted(fleet.world.pods[target].address)
    command = ["ip", "netns", "exec", inside, sys.executable, "-S", "-c", KNOCK, address, str(PORT), str(seconds)]
    with subprocess.Popen(command) as process:
        try:
            yield
        finally:
            process.kill()


@pytest.mark.parametrize("number", [1, 2], ids=["same host", "across hosts"])
def test_streams_end_whose_export_was_wider_in_between(number: int, tmp_path: Path) -> None:
    """Their flows in the datapath are of the narrow export; Open vSwitch before 3.1.3 corrects the wide ones instead.

    If it finds those first, which the datagrams to a/t are for (ADR 0035).
    """
    made, target = world(), f"a/s-{number}"
    made.exports["a/s", "b"] = ExportPlan("a/s", "b", frozenset({(UDP, PORT)}), direct=True)
    with Fleet(tmp_path, made, ["h1", "h2"], PROGRAM) as fleet, ExitStack() as stack:
        fleet.wait_until_ready()
        stack.enter_context(knocking(fleet, f"a/t-{number}", 0.0005))
        time.sleep(QUIET_SECONDS)
        streams = Streams(fleet)
        streams.open("b/u-1", [(UDP, made.pods[target].address, 1, 5)] * 4)
        settle(streams)
        time.sleep(3)  # of a hundred packets Open vSwitch remembers one with its flow, if it is to remember any
        fleet.change_export(ExportPlan("a/s", "b", direct=True))
        stack.enter_context(knocking(fleet, target, 0.01))
        time.sleep(QUIET_SECONDS)
        gone = fleet.module("qnet_export", service="a/s", to="b", state="absent", wait=True)
        assert gone["receipt"]["confirmed"]
        time.sleep(QUIET_SECONDS)
        after = streams.report()
        time.sleep(QUIET_SECONDS)
        later = streams.report()
    came = {stream: later[stream]["server"][2] - after[stream]["server"][2] for stream in after}
    assert came == dict.fromkeys(streams.opened, 0)
