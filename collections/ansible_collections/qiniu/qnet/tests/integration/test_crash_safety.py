# SPDX-License-Identifier: GPL-3.0-or-later
"""A module killed at any moment: run again it reaches the same state, a third run changes nothing, nobody else notices.

``QNET_KILLS`` is the number of kills of each kind (default 20).
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
import random
import subprocess
import time
import typing as t
from functools import partial

import pytest

from ansible_collections.qiniu.qnet.tests.conftest import start_database
from ansible_collections.qiniu.qnet.tests.integration.ovs_fixture import Host, reason_to_skip
from ansible_collections.qiniu.qnet.tests.integration.pod_site import ONE, TWO, Site, good, links, pods, prepare

if t.TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Iterator

    from ansible_collections.qiniu.qnet.tests.conftest import IntentDatabase, Runner

KILLS = int(os.environ.get("QNET_KILLS", "20"))
pytestmark = pytest.mark.timeout(60 + 30 * KILLS)


def kill_at(start: Callable[[], subprocess.Popen[str]], seconds: float) -> bool:
    """Kill what ``start`` starts after a while; whether it was still at work then."""
    process = start()
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return True
    return False


def duration(run: Callable[[], object]) -> float:
    began = time.monotonic()
    run()
    return time.monotonic() - began


# -- the intent --------------------------------------------------------------------------------------------------

TREE: dict[str, t.Any] = {
    "networks": [{"name": "prod", "vni": 1, "pod_subnets": ["10.0.0.0/16"], "service_subnets": ["10.1.0.0/16"]}],
    "tenants": [
        {
            "name": "a",
            "security_groups": [
                {
                    "name": group,
                    "services": [
                        {"name": f"s{n}", "network": "prod", "service_ips": [{"address": f"10.1.{i}.{n + 1}"}]}
                        for n in range(40)
                    ],
                }
                for i, group in enumerate(("a", "b"))
            ],
        }
    ],
    "exports": [{"service": f"a/s{n}", "to": "b"} for n in range(40)],
    "purge": True,
}


def changed_tree() -> dict[str, t.Any]:
    """Another wish: half of the exports gone, services renamed, a group less."""
    tree = copy.deepcopy(TREE)
    tree["exports"] = tree["exports"][::2]
    del tree["tenants"][0]["security_groups"][1]["services"][10:]
    return tree


def digest(database: IntentDatabase) -> str:
    """A hash of the intent: every row without what the database numbers by itself."""
    found = []
    for table in ("Network", "Security_Group", "Service", "Service_IP", "Export"):
        for row in database.rows(table):
            found.append((table, sorted((k, v) for k, v in row.items() if "uuid" not in str(v))))
    return hashlib.sha256(json.dumps(sorted(found, key=str)).encode()).hexdigest()


def test_a_killed_change_of_intent_is_all_or_nothing(run: Runner, database: IntentDatabase) -> None:
    chooser = random.Random(4)
    wishes = [TREE, changed_tree()]
    run("qnet_tenant", **TREE)
    digests = [digest(database)]
    run("qnet_tenant", **wishes[1])
    digests.append(digest(database))
    assert digests[0] != digests[1]
    run("qnet_tenant", **TREE)
    longest = duration(lambda: run("qnet_tenant", **TREE))
    interrupted = now = 0
    for dummy in range(KILLS):
        goal = 1 - now
        wish = wishes[goal]
        interrupted += kill_at(partial(run.start, "qnet_tenant", **wish), chooser.uniform(0, longest * 1.2))
        assert digest(database) in digests, "half a change is in the database"
        run("qnet_tenant", **wish)
        assert digest(database) == digests[goal]
        assert not run("qnet_tenant", **wish)["changed"]
        now = goal
    assert interrupted > KILLS / 3, "most runs had ended before they were killed"


# -- pods --------------------------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: pathlib.Path, target_python: str, import_path: str) -> Iterator[Site]:
    """A host with the pod ONE, the bystander of all that follows."""
    host = Host(tmp_path, target_python, import_path)
    with contextlib.contextmanager(start_database)(tmp_path) as database:
        try:
            found = Site(host.start(), database.remote)
            prepare(found)
            good(found.pods(**pods(ONE)))
            host.run("ovs-ofctl", "add-flow", "br-int", "actions=normal")
            yield found
        finally:
            host.stop()


def state_of(site: Site) -> tuple[object, ...]:
    """What of a host a pod is made of."""
    declared = {name: (pod["mac"], pod["addresses"]) for name, pod in site.declared().items()}
    veths = sorted((link["ifname"], link["operstate"], link["mtu"]) for link in links(site))
    return (declared, site.ports(), site.namespaces(), veths)


@pytest.mark.skipif(reason_to_skip() is not None, reason=str(reason_to_skip()))
def test_a_killed_attachment_is_finished_by_the_next_run_and_nobody_notices(site: Site) -> None:
    chooser = random.Random(5)
    wishes = {True: pods(TWO), False: pods(TWO, state="absent")}
    states = {False: state_of(site)}
    longest = duration(lambda: good(site.pods(**wishes[True])))
    states[True] = state_of(site)
    # The bystander talks to the host's side of the bridge all the time.
    site.host.run("ip", "address", "add", "10.10.255.1/16", "dev", "br-int")
    site.host.run("ip", "link", "set", "br-int", "up")
    ping = site.host.popen(
        "ip", "netns", "exec", "g.s-1", "ping", "-i", "0.01", "-W", "1", "10.10.255.1", stdout=subprocess.PIPE
    )
    interrupted, there = 0, True
    for dummy in range(KILLS):
        there = not there
        wish = wishes[there]
        begin = partial(site.host.start_module, "qnet_pod", False, database=[site.remote], mtu=1400, **wish)
        interrupted += kill_at(begin, chooser.uniform(0, longest * 1.2))
        good(site.pods(**wish))
        assert state_of(site) == states[there]
        assert not good(site.pods(**wish))["changed"]
    ping.send_signal(2)
    output = ping.communicate(timeout=10)[0]
    assert " 0% packet loss" in output, output[-300:]
    assert interrupted > KILLS / 3, "most runs had ended before they were killed"
