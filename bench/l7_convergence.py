#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""From a change of the intent to requests: a pod added → its first request, a pod removed → its last one.

A real intent database, the feeder of the role and the balancer's nginx, on this machine, while wrk asks without pause.
A change is one transaction, as a module makes it; time counts from the moment before it is sent. The backends are
addresses of one nginx that notes when it answered which of them. Goal: 99 of 100 within 200 ms.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "collections")]

from bench.l7_cost import nginx  # noqa: E402
from bench.report import arguments, number  # noqa: E402
from tests.l7.balancer import BALANCER, Balancer  # noqa: E402
from tests.l7.conftest import free_port  # noqa: E402
from tests.l7.intent import SERVICE, SUBNET, Intent, feeding, intent_database, own_network  # noqa: E402

GOAL_MS = 200.0
STAYING = (1, 2)
COMING = 3
BACKENDS = """
worker_processes 1; daemon off; pid {directory}/backend.pid; error_log {directory}/backend.log;
events {{ worker_connections 4096; }}
http {{
  log_format when "$msec $server_addr"; access_log {directory}/answers.log when;
  client_body_temp_path {directory}/t1; proxy_temp_path {directory}/t2; fastcgi_temp_path {directory}/t3;
  uwsgi_temp_path {directory}/t4; scgi_temp_path {directory}/t5; keepalive_requests 1000000;
  server {{ listen {port}; location / {{ return 200 "ok\\n"; }} }}
}}
"""


class Answers:
    """When the backend of an address answered, read from its log as it grows."""

    def __init__(self, path: Path) -> None:
        self._file = path.open(encoding="utf-8")
        self._rest = ""
        self.last: dict[str, float] = {}
        self.first: dict[str, float] = {}

    def look(self) -> dict[str, float]:
        """Take in what is new; returns when each address answered first."""
        *lines, self._rest = (self._rest + self._file.read()).split("\n")
        for line in lines:
            when, address = line.split()
            self.last[address] = float(when)
            self.first.setdefault(address, float(when))
        return self.first

    def forget(self, address: str) -> None:
        """Begin anew with an address."""
        self.look()
        self.first.pop(address, None)
        self.last.pop(address, None)


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Until a condition holds, at most 20 s."""
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"no success within 20 s: {what}")
        time.sleep(0.002)


@contextlib.contextmanager
def running(directory: Path, method: str) -> Iterator[tuple[Intent, Answers, int]]:
    """Database, feeder, balancer and backends; the port of the balancer."""
    port, listen = free_port(), free_port()
    backend = [{"service": SERVICE, "port": port}]
    route = {"name": "all", "listener": "web", "backends": backend, "balance": {"method": method}}
    balancer = Balancer(directory, {}, {"fop": "files"})
    with (
        nginx(directory, "backend", BACKENDS.format(directory=directory, port=port)),
        intent_database(directory / "db") as intent,
    ):
        intent.begin()
        for pod in STAYING:
            intent.pod(pod, f"{SUBNET}.2.{pod}")
        try:
            balancer.configure([{"name": "web", "balancer": BALANCER, "protocol": "http", "port": listen}], [route])
            with feeding(balancer, intent):
                yield intent, Answers(directory / "answers.log"), listen
        finally:
            balancer.stop()


def main() -> int:
    """Add and remove a pod again and again under load."""
    parser: argparse.ArgumentParser = arguments(__doc__ or "", rounds=200)
    options = parser.parse_args()
    address = f"{SUBNET}.2.{COMING}"
    added, removed = [], []
    with (
        own_network(),
        tempfile.TemporaryDirectory(prefix="qnet-bench-l7-") as name,
        running(Path(name), "round_robin") as (intent, answers, listen),
    ):
        url = f"http://127.0.0.1:{listen}/"
        wrk = subprocess.Popen(["wrk", "-t1", "-c8", "-d3600s", url], stdout=subprocess.PIPE, text=True)
        try:
            wait_for(lambda: len(answers.look()) == len(STAYING), "the first requests")
            for _ in range(options.rounds):
                answers.forget(address)
                sent = intent.pod(COMING, address)
                wait_for(lambda: address in answers.look(), "the new pod's first request")
                added.append(max(0.0, answers.first[address] - sent) * 1000)
                sent = intent.remove_pod(COMING)
                quiet = time.time() + 0.3
                while time.time() < max(quiet, answers.last[address] + 0.3):
                    time.sleep(0.02)
                    answers.look()
                removed.append(max(0.0, answers.last[address] - sent) * 1000)
        finally:
            wrk.send_signal(2)
            said = wrk.communicate(timeout=20)[0]
    for title, found in (("pod added → first request", added), ("pod removed → last request", removed)):
        p99 = statistics.quantiles(found, n=100)[98] if len(found) > 1 else found[0]
        verdict = "met" if p99 <= GOAL_MS else "MISSED"
        print(
            f"{title}: median {number(statistics.median(found))} ms, p99 {number(p99)} ms, largest "
            f"{number(max(found))} ms of {len(found)}; goal p99 ≤ {number(GOAL_MS)} ms: {verdict}"
        )
    print("\n".join(line.strip() for line in said.splitlines() if "Requests/sec" in line or "errors" in line.lower()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
