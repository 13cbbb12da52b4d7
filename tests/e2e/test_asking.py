# SPDX-License-Identifier: Apache-2.0
"""How often the controllers are asked, and what happens when the one in charge dies."""

from __future__ import annotations

import re
import time

from tests.e2e.fleet import Fleet, Pod, eventually

AGENTS_IP = "10.96.0.10"  # inventories/fop
IMAGE_IP, IMAGE_PORT = "10.96.0.20", 8081
PACKET_INS = "qnet_packet_in_total"
DROP_SECONDS = 30  # how long a refusal is remembered
PORT = 12346
AGES = re.compile(r"cookie=(\S+), duration=([\d.]+)s, table=(\d+), n_packets=(\d+), n_bytes=\d+, (.*)")


def test_only_the_first_connection_of_a_pair_asks(fop: Fleet, pods: dict[str, Pod]) -> None:
    callers = [pods["entry/entry-1"], pods["fop/video-1"]]
    agents = [pod for name, pod in pods.items() if name.startswith("fop/agents-")]
    with fop.serving(agents, "serve-tcp", "{}", PORT, 60):
        for caller in callers:  # enough connections to have been to every backend
            assert fop.ask(caller, "ask", "tcp", AGENTS_IP, PORT, 20)["errors"] == []
        before = fop.total(PACKET_INS)
        for caller in callers:
            assert fop.ask(caller, "ask", "tcp", AGENTS_IP, PORT, 50)["errors"] == []
        assert fop.total(PACKET_INS) == before


def test_a_refused_pair_asks_once_per_window(fop: Fleet, pods: dict[str, Pod]) -> None:
    caller, unknown = pods["entry/entry-1"], f"10.10.253.{int(time.time()) % 250 + 1}"
    before = fop.total(PACKET_INS)
    sent = fop.ask(caller, "knock", unknown, PORT, DROP_SECONDS + 5, 0.1)["sent"]
    assert sent > DROP_SECONDS * 5
    assert fop.total(PACKET_INS) - before == 2  # one for each window that has begun


def flows(fop: Fleet, host: str) -> dict[str, float]:
    """The flows of a host that have no timeout to end them during the test: table and match -> age in seconds."""
    dump = fop.run(host, "ovs-ofctl", "-O", "OpenFlow15", "dump-flows", "br-int")
    rows = [found.groups() for line in dump.splitlines() if (found := AGES.search(line))]
    return {
        f"{cookie} {table} {rest}": float(age)
        for cookie, age, table, _, rest in rows
        if "hard_timeout" not in rest and "idle_age" not in rest
    }


def test_killing_the_master_disturbs_nothing(fop: Fleet, pods: dict[str, Pod]) -> None:
    caller = pods["fop/agents-1"]
    found = fop.switch(caller.host)
    assert found is not None
    master = found[0]
    with fop.running(caller, "probe.py", "load", IMAGE_IP, IMAGE_PORT, 120, 0.05) as load:
        load.wait_until_ready()
        time.sleep(2)  # the pairs that the load needs are there
        before, when = flows(fop, caller.host), time.monotonic()
        main_pid = fop.run(master, "systemctl", "show", "--property=MainPID", "--value", "qnet-controller")
        fop.run(master, "kill", "-9", main_pid)
        eventually(lambda: is_adopted(fop, caller.host, master, main_pid), 30, f"{caller.host} has a master again")
        time.sleep(2)
        after, elapsed = flows(fop, caller.host), time.monotonic() - when
        rows = load.stop()["rows"]
    assert len(rows) > 100
    assert [row for row in rows if row[2]] == []
    assert set(before) - set(after) == set()
    touched = {key for key, age in before.items() if after[key] < age + elapsed - 1}
    assert touched == set()


def is_adopted(fop: Fleet, host: str, old_master: str, old_pid: str) -> bool:
    """The controller runs again, by another process, and the switch has a master that has adopted it."""
    pid = fop.run(old_master, "systemctl", "show", "--property=MainPID", "--value", "qnet-controller")
    return pid not in ("0", old_pid) and has_master(fop, host, fop.groups["controllers"])


def has_master(fop: Fleet, host: str, among: list[str]) -> bool:
    """One of these controllers is master of the switch and has adopted it."""
    try:
        return fop.switch(host, among) is not None
    except AssertionError:  # its API is not up yet
        return False


def test_another_controller_takes_over_from_one_that_is_gone(fop: Fleet, pods: dict[str, Pod]) -> None:
    caller = pods["fop/agents-1"]
    found = fop.switch(caller.host)
    assert found is not None
    gone = found[0]
    rest = [name for name in fop.groups["controllers"] if name != gone]
    fop.run(gone, "systemctl", "stop", "qnet-controller")
    try:
        eventually(lambda: has_master(fop, caller.host, rest), 30, f"{caller.host} has another master")
        before = fop.total(PACKET_INS, rest)
        unknown = f"10.10.252.{int(time.time()) % 250 + 1}"
        assert fop.ask(caller, "knock", unknown, PORT, 1, 0.1)["sent"] > 5
        assert fop.total(PACKET_INS, rest) - before == 1  # decided, by one of the others, once
    finally:
        fop.run(gone, "systemctl", "start", "qnet-controller")
    eventually(lambda: has_master(fop, caller.host, [gone]), 60, f"{gone} is master of {caller.host} again")
