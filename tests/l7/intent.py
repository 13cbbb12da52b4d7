# SPDX-License-Identifier: Apache-2.0
"""A real intent database and the real feeder behind a balancer: pods change where they really do."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.l7.balancer import ROOT, Balancer

from ansible_collections.qiniu.qnet.plugins.module_utils import _model, _ovsdb, _plan
from ansible_collections.qiniu.qnet.tests.conftest import start_database

FEEDER = ROOT / "roles/l7_balancer/files/qnet_l7_feed.py"
SERVICE = "fop/agents"
Fields = dict[str, Any]


CLONE_NEWNET = 0x40000000
SUBNET = "10.50"  # addresses that pods may have


@contextmanager
def own_network() -> Iterator[None]:
    """A network namespace for this thread and all that it starts, in which every address of SUBNET is local."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net", encoding="utf-8") as before:
        if libc.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare: this test needs root")
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            subprocess.run(["ip", "route", "add", "local", f"{SUBNET}.0.0/16", "dev", "lo"], check=True)
            yield
        finally:
            libc.setns(before.fileno(), CLONE_NEWNET)


Wish = tuple[str, Fields]


def _apply(remote: str, wishes: Sequence[Wish], gone: Sequence[Wish]) -> tuple[float, int]:
    planned = [time.time()]

    def planner(have: _model.State) -> _plan.Plan:
        draft = _plan.Draft(have)
        for kind, fields in wishes:
            draft.put(kind, fields)
        for kind, fields in gone:
            draft.remove(kind, fields)
        plan = draft.plan()
        planned.append(time.time())
        return plan

    outcome = _ovsdb.converge(_ovsdb.Connection((remote,)), planner, False)
    return planned[-1], outcome.generation


class Intent:
    """The database, written as the modules write it: in a process of its own, since theirs uses select()."""

    def __init__(self, remote: str) -> None:
        self.remote = remote
        self._writer = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))

    def apply(self, *wishes: Wish, gone: Mapping[str, Fields] | None = None) -> float:
        """Put objects and remove others (kind to fields) in one transaction; when it was about to be sent."""
        return self._writer.submit(_apply, self.remote, wishes, list((gone or {}).items())).result(60)[0]

    def change(self, wishes: Sequence[Wish], gone: Sequence[Wish]) -> int:
        """Put objects and remove others in one transaction; the generation of the intent after it."""
        return self._writer.submit(_apply, self.remote, wishes, gone).result(60)[1]

    def close(self) -> None:
        """End the writer."""
        self._writer.shutdown()

    def begin(self) -> None:
        """A network, the groups edge and fop, the service fop/agents exported to edge with its pods."""
        self.apply(
            ("network", {"name": "prod", "vni": 1, "pod_subnets": [f"{SUBNET}.0.0/16"]}),
            ("security_group", {"name": "edge", "tenant": "platform"}),
            ("security_group", {"name": "fop", "tenant": "files"}),
            ("service", {"group": "fop", "name": "agents", "network": "prod"}),
            ("export", {"service": SERVICE, "to": "edge", "direct": True}),
        )

    def pod(self, number: int, address: str, state: str = "active") -> float:
        """Declare a pod of fop/agents, or change it; when that was about to be sent."""
        name = f"agents-{number}"
        values = {"group": "fop", "service": "agents", "name": name, "addresses": [address], "state": state}
        return self.apply(("pod", values))

    def remove_pod(self, number: int) -> float:
        """Take a pod's declaration away; when that was about to be sent."""
        return self.apply(gone={"pod": {"group": "fop", "name": f"agents-{number}"}})


@contextmanager
def intent_database(directory: Path) -> Iterator[Intent]:
    """A private ovsdb-server with the schema of the intent."""
    directory.mkdir(exist_ok=True)
    server = contextmanager(start_database)
    with server(directory) as database:
        intent = Intent(database.remote)
        try:
            yield intent
        finally:
            intent.close()


@contextmanager
def feeding(balancer: Balancer, intent: Intent) -> Iterator[subprocess.Popen[bytes]]:
    """The feeder of the role, between the database and the balancer."""
    told = {
        "group": "edge",
        "services": [SERVICE],
        "database": [intent.remote],
        "control": str(balancer.run / "control.sock"),
        "metrics": str(balancer.run / "metrics.sock"),
        "state": str(balancer.directory / "pods.json"),
        "metrics_port": 0,
    }
    (balancer.directory / "feed.json").write_text(json.dumps(told))
    process = subprocess.Popen([sys.executable, FEEDER, balancer.directory / "feed.json"])
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)
