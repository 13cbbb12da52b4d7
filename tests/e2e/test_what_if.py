# SPDX-License-Identifier: Apache-2.0
"""`--check --diff` with whole plays says what a change of the inventory means, and does nothing; then it is done."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import yaml
from tests.drills.plays import dump
from tests.e2e.fleet import ROOT, Fleet, Pod

AGENTS_IP, PORT, SECONDS = "10.96.0.10", 12348, 600  # inventories/fop
TENANTS = ROOT / "inventories/fop/group_vars/all/tenants.yml"
WOULD_END = re.compile(r"connections that would be ended: (\d+)")
ENDED = re.compile(r"(\d+) connections ended")
pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def less(fop: Fleet) -> Iterator[list[dict[str, object]]]:
    """The exports of the inventory less that of the agents to the entry; all are there again afterwards."""
    exports = yaml.safe_load(TENANTS.read_text())["qnet_exports"]
    yield [export for export in exports if (export["service"], export["to"]) != ("fop/agents", "entry")]
    fop.play("tenants", "fop")


def found(pattern: re.Pattern[str], output: str) -> int:
    """The number that a play has said."""
    match = pattern.search(" ".join(output.split()))
    assert match, output[-4000:]
    return int(match.group(1))


def test_whole_plays_say_what_a_change_means_before_it_happens(
    fop: Fleet, pods: dict[str, Pod], less: list[dict[str, object]]
) -> None:
    caller = pods["entry/entry-1"]
    agents = [pod for name, pod in pods.items() if name.startswith("fop/agents-")]
    before = dump(fop)
    with fop.serving(agents, "serve-tcp", "{}", PORT, SECONDS), ExitStack() as stack:
        held = [
            stack.enter_context(fop.running(caller, "probe.py", "hold", AGENTS_IP, PORT, SECONDS, 0.05))
            for _ in range(4)
        ]
        for client in held:
            client.wait_until_ready()
        would = 0
        for playbook in ("tenants", "site"):
            said = fop.play(playbook, "fop", "--check", "--diff", qnet_exports=less).output
            assert re.search(rf"^- entry reaches fop/agents.*{re.escape(AGENTS_IP)}", said, re.MULTILINE), said[-6000:]
            would = found(WOULD_END, said)
            assert would >= len(held), playbook
            assert re.search(rf"{caller.host}: \d+ connections, \d+ flows added, \d+ removed", said), playbook
        assert dump(fop) == before
        for client in held[:2]:  # nothing was done: they go on
            assert client.stop()["lines"] > 10
        done = fop.play("tenants", "fop", qnet_exports=less, tenants_wait=True)
        assert 2 <= found(ENDED, done.output) <= would
        assert fop.ask(caller, "ask", "tcp", AGENTS_IP, PORT, 1)["errors"]
