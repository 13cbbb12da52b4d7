#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""P6: from the transaction that changes a service to the last packet handled the old way, with many services present.

Two hosts with real Open vSwitch (userspace datapath), the real database and controller. Datagrams go both ways between
pods of both hosts over an export; it goes in one transaction, and the last datagram that arrives on any host is what
counts. Beside it there are services with a Service IP and an export each, as many as said. Goal: flat, with 10,000 at
most 1.5 times what it takes with 100. Records are sent every few milliseconds, so a figure may be that much too small.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "controller" / "tests"))

from bench import report

from policy.live import Fleet, dotted
from policy.revocation import PROGRAM, Intent, Streams, last_arrivals, settle
from policy.tenants import SERVICE_BLOCK, UDP, ExportPlan, World

GOAL_RATIO = 1.5
ROWS_AT_ONCE = 500
SERVICES_OF_A_GROUP, FIRST_GROUP = 10, 1000
AFTER_SECONDS = 1.0
LONGEST_SECONDS = 120.0
FIRST_ADDRESS = 0xAC100000  # 172.16.0.0, of the services that are only there


def world() -> World:
    """a/s with a pod on each host, exported to b with a pod on each host."""
    made = World({"red": 100}, {"a": 1, "b": 2})
    made.services = {"a/s": "red", "b/u": "red"}
    made.service_ips = {"a/s:main": SERVICE_BLOCK + 10}
    for service in ("a/s", "b/u"):
        for host in ("h1", "h2"):
            made.new_pod(service, host, families=(0,))
    made.exports["a/s", "b"] = ExportPlan("a/s", "b", direct=True)
    return made


class Crowd:
    """Services that are only there, each with a Service IP and an export."""

    def __init__(self, intent: Intent) -> None:
        self.intent, self.count = intent, 0
        self._network, self._to = self._row("Network", "red"), self._row("Security_Group", "b")

    def _row(self, table: str, name: str) -> object:
        where = [["name", "==", name]]
        (found,) = self.intent.execute({"op": "select", "table": table, "where": where, "columns": ["_uuid"]})
        rows: list[dict[str, object]] = found["rows"]  # type: ignore[assignment]
        return rows[0]["_uuid"]

    def grow(self, wanted: int) -> None:
        """Have this many."""
        while self.count < wanted:
            operations: list[dict[str, object]] = []
            for number in range(self.count, min(wanted, self.count + ROWS_AT_ONCE)):
                mine, group = ["named-uuid", f"s{number}"], number // SERVICES_OF_A_GROUP
                if number % SERVICES_OF_A_GROUP == 0:
                    new = {"name": f"x{group}", "tenant": "x", "number": FIRST_GROUP + group}
                    operations.append({"op": "insert", "table": "Security_Group", "uuid-name": f"g{group}", "row": new})
                service = {"name": f"n{number}", "group": ["named-uuid", f"g{group}"], "network": self._network}
                address = dotted(FIRST_ADDRESS + number)
                row = {"name": "main", "service": mine, "network": self._network, "address": address}
                export = {"service": mine, "to_group": self._to, "direct": False}
                operations += [
                    {"op": "insert", "table": "Service", "uuid-name": f"s{number}", "row": service},
                    {"op": "insert", "table": "Service_IP", "row": row | {"affinity": "none", "algorithm": "hash"}},
                    {"op": "insert", "table": "Export", "row": export},
                ]
            self.count = min(wanted, self.count + ROWS_AT_ONCE)
            self.intent.execute(*operations, GROWS)

    def clear(self) -> None:
        """Have none."""
        exports = [["to_group", "==", self._to], ["direct", "==", False]]
        addresses = [["address", "!=", dotted(SERVICE_BLOCK + 10)]]
        own = [["name", "!=", "s"], ["name", "!=", "u"]]
        groups = [["tenant", "==", "x"]]
        gone = {"Export": exports, "Service_IP": addresses, "Service": own, "Security_Group": groups}
        self.intent.execute(*({"op": "delete", "table": name, "where": where} for name, where in gone.items()), GROWS)
        self.count = 0


GROWS: dict[str, object] = {
    "op": "mutate", "table": "QNet_Global", "where": [], "mutations": [["generation", "+=", 1]],
}  # fmt: skip


class Change:
    """One change: milliseconds until the last packet of the old kind, until all switches have confirmed, and of the
    controller's CPU, which says the same on a busy machine.
    """

    def __init__(self, fleet: Fleet, intent: Intent, tick: int) -> None:
        confirm(fleet, intent)
        streams = Streams(fleet)
        servers = [fleet.world.pods[key].address for key in ("a/s-1", "a/s-2")]
        for client in ("b/u-1", "b/u-2"):
            streams.open(client, [(UDP, address, 3, tick) for address in servers])
        settle(streams, 30.0)
        time.sleep(AFTER_SECONDS)
        before = cpu_milliseconds(fleet.controller.pid)
        fleet.remove_export(fleet.world.exports["a/s", "b"])
        sent_at = intent.sent_at
        time.sleep(AFTER_SECONDS)
        self.cpu = cpu_milliseconds(fleet.controller.pid) - before
        found = streams.report()
        self.effect = max(milliseconds for _, milliseconds in last_arrivals(streams, found, sent_at))
        self.confirmed = float(confirm(fleet, intent)["milliseconds"])
        streams.close()
        fleet.add_export(ExportPlan("a/s", "b", direct=True))


def cpu_milliseconds(process: int) -> float:
    """What a process has used of the CPU so far, all its threads together."""
    threads = Path(f"/proc/{process}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e6


def confirm(fleet: Fleet, intent: Intent) -> dict[str, Any]:
    """Wait until every switch holds what the database says."""
    generation, end = intent.generation(), time.monotonic() + LONGEST_SECONDS
    while True:
        found: dict[str, Any] = {}
        with contextlib.suppress(AssertionError):  # it is busy with what has come in before
            found = json.loads(fleet.api(f"/v1/receipt?generation={generation}&wait=2"))
        if found.get("confirmed"):
            return found
        assert time.monotonic() < end, found


def main() -> None:
    """Measure and print."""
    parser = report.arguments(__doc__ or "")
    parser.add_argument("--services", type=int, nargs="+", default=[100, 1000, 10000], help="how many beside it")
    parser.add_argument("--tick", type=int, default=2, help="milliseconds between datagrams of a stream")
    options = parser.parse_args()
    effect: dict[int, list[float]] = {count: [] for count in options.services}
    confirmed: dict[int, list[float]] = {count: [] for count in options.services}
    cpu: dict[int, list[float]] = {count: [] for count in options.services}
    with tempfile.TemporaryDirectory() as directory, Fleet(Path(directory), world(), ["h1", "h2"], PROGRAM) as fleet:
        fleet.wait_until_ready()
        intent = Intent(fleet.database.socket)
        fleet.database = intent  # type: ignore[assignment]
        crowd = Crowd(intent)
        Change(fleet, intent, options.tick)  # the first one finds nothing warm
        for turn in range(options.rounds):
            for count in options.services:
                crowd.grow(count)
                change = Change(fleet, intent, options.tick)
                effect[count].append(change.effect)
                confirmed[count].append(change.confirmed)
                cpu[count].append(change.cpu)
                print(f"  round {turn + 1}: {count} services: {change.effect:.1f} ms", file=sys.stderr, flush=True)
            crowd.clear()
    for what, values in (
        ("last packet the old way", effect), ("confirmed by all switches", confirmed), ("CPU of the controller", cpu),
    ):  # fmt: skip
        series = {str(count): report.Series(str(count), tuple(found)) for count, found in values.items()}
        for count, found in series.items():
            print(f"{what}, {count} services present: {found} ms")
        print(report.Goal(str(max(values)), str(min(values)), GOAL_RATIO, at_least=False).line(series))
    print(f"load at the end: {' '.join(f'{value:.1f}' for value in os.getloadavg())}")


if __name__ == "__main__":
    main()
