# SPDX-License-Identifier: Apache-2.0
"""`qnet` and the API it asks, with a controller process, a real Open vSwitch and a real intent database."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from contract.fixtures import BRIDGE, attach
from contract.intent import delete
from contract.process import API, Process, its_switch, master, shared_stage, small_fleet
from contract.real import Database, Vswitch, wait_for

__all__ = ["its_switch", "master", "shared_stage", "small_fleet"]

from qnet_controller.cli.qnet import show_verify
from qnet_controller.controller.verify import differences
from qnet_controller.model.model import Model
from qnet_controller.openflow.events import Dump
from qnet_controller.pipeline.demands import Settings
from qnet_controller.pipeline.fields import IN_PORT
from qnet_controller.pipeline.messages import InstalledFlow, match
from qnet_controller.pipeline.program import SwitchProgram
from qnet_controller.pipeline.tables import Table

ROOT = Path(__file__).resolve().parents[3]


def qnet(*arguments: str, api: int = API) -> tuple[int, str]:
    """Exit status and output; errors are part of it."""
    done = subprocess.run(
        [sys.executable, "-m", "qnet_controller.cli.qnet", *arguments, "--api", f"127.0.0.1:{api}"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30,
    )  # fmt: skip
    assert "Traceback" not in done.stdout, done.stdout
    return done.returncode, done.stdout


def test_status_fits_on_a_screen_and_says_what_is_wrong(process: Process, switch: Vswitch) -> None:
    code, text = qnet("status")
    assert (code, text.splitlines()[-1]) == (0, "nothing is wrong"), text
    assert re.search(r"^h1 +active +connected +master", text, re.MULTILINE)
    assert len(text.splitlines()) < 25
    switch.vsctl("del-port", "dummy3")
    wait_for(lambda: "pod entry/web-3: attached nowhere" in qnet("status")[1])
    attach(switch, 3)
    wait_for(lambda: "nothing is wrong" in qnet("status")[1])
    assert json.loads(qnet("status", "--json")[1])["name"]


def test_a_trace_names_tables_objects_and_the_verdict(process: Process, intent: Database) -> None:
    code, text = qnet("trace", "entry/web-3", "fop/image", "tcp/80")
    assert code == 0, text
    assert "entry/web-3 -> fop/image:main (10.96.0.10), tcp/80, network prod" in text
    assert "(export fop/image->entry)" in text
    assert "balanced over 2 pods" in text
    assert {"  to fop/image-1:", "  to fop/image-2:", "delivered"} <= set(text.splitlines())
    code, text = qnet("trace", "entry/web-3", "fop/image-1")
    assert (code, "NOT delivered" in text, "<- ends here" in text) == (1, True, True), text
    intent.execute(delete("Export"))
    wait_for(lambda: qnet("trace", "entry/web-3", "fop/image", "tcp/80")[0] == 1)


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (["entry/web-4", "fop/image"], "from: 'entry/web-4' is not a pod; did you mean entry/web-3?"),
        (["entry/web-3", "fop/imag"], "to: 'fop/imag' is no address, pod, service or Service IP; did you mean"),
        (["entry/web-3", "fop/image", "tcp"], "port: '' is not a port from 1 to 65535, which tcp needs"),
        (["entry/web-3", "fop/image", "tcp/70000"], "port: '70000' is not a port"),
        (["entry/web-3", "fop/image", "icmp/3"], "icmp has no ports"),
        (["entry/web-3", "fop/image", "quic/3"], "protocol: 'quic' is none of icmp, tcp"),
    ],
)
def test_a_wrong_question_is_answered_with_what_is_wrong(process: Process, arguments: list[str], wrong: str) -> None:
    code, text = qnet("trace", *arguments)
    assert code == 2
    assert wrong in text


def test_flows_carry_names_and_counters_and_strangers_are_marked(process: Process, switch: Vswitch) -> None:
    code, text = qnet("flows", "--pod", "entry/web-3")
    assert code == 0, text
    assert "pod entry/web-3" in text
    assert "fop/image-1" not in text
    answer = json.loads(qnet("flows", "--host", "h1", "--json")[1])
    assert len(answer["flows"]) == len(switch.flows())
    assert all(flow["intended"] and flow["actions"] for flow in answer["flows"])
    switch.ofctl("packet-out", f"in_port=1 packet={'ff' * 12}9999{'00' * 50} actions=resubmit(,0)")
    counted = [f for f in json.loads(qnet("flows", "--host", "h1", "--json")[1])["flows"] if f["packets"]]
    assert counted, "a packet has passed, but no flow has counted one"
    assert qnet("flows", "--host", "h7")[1] == "qnet flows: host: 'h7' is not a host\n"


def test_drops_are_shown_by_pod_and_reason(process: Process, switch: Vswitch) -> None:
    def dropped(reason: str) -> int:
        code, text = qnet("drops", "--json")
        assert code == 0, text
        rows = [row for row in json.loads(text)["drops"] if row["reason"] == reason]
        return sum(row["packets"] for row in rows if row["sender"] == "pod entry/web-3")

    before = dropped("spoofed_mac")
    packet = f"{'ff' * 6}060504030201{'0806'}{'00' * 46}"
    for _ in range(3):
        switch.ofctl("packet-out", f"in_port=3 packet={packet} actions=resubmit(,0)")
    assert dropped("spoofed_mac") == before + 3
    code, text = qnet("drops", "--events")
    assert code == 0
    assert re.search(r"^h1 +pod entry/web-3 +spoofed_mac +\d+$", text, re.MULTILINE), text
    assert "h1 pod entry/web-3: 3 packets dropped: source MAC address is not its own" in text


def test_a_cookie_leads_back_to_its_object(process: Process, switch: Vswitch) -> None:
    line = next(line for line in switch.flows() if "10.10.0.3" in line and "table=0" in line)
    found = re.search(r"cookie=(0x[0-9a-f]+)", line)
    assert found
    code, text = qnet("explain", found[1])
    assert code == 0
    assert "pod flow of pod entry/web-3" in text
    assert '"10.10.0.3"' in text
    assert qnet("explain", "0x12")[0] == 2


def test_without_a_controller_the_answer_says_so() -> None:
    code, text = qnet("status", api=1)
    assert code == 2
    assert "is qnet-controller running?" in text
    assert BRIDGE not in text


def test_verify_shows_differences_with_an_example_and_repairs_them(process: Process, switch: Vswitch) -> None:
    assert qnet("verify") == (0, "checked as master: h1; no difference\n")
    # Behind the controller's back, while it is not connected: otherwise it would put it right at once.
    process.end()
    switch.ofctl("add-flow", "table=2,priority=7,ip,nw_dst=10.10.0.9 actions=drop")
    process.start()
    wait_for(lambda: process.switch().get("adopted"))
    wait_for(lambda: qnet("verify") == (0, "checked as master: h1; no difference\n"))


def test_verify_reports_what_is_there_and_should_not_be() -> None:
    model, program, key = Model(), SwitchProgram(Model(), 1, Settings()), (Table.PLAN, 7, match((IN_PORT, 9)))
    dump = Dump((InstalledFlow(key, 5),), {3: 1}, {})
    flow, group = differences(model, "h1", dump, program)
    assert (flow["problem"], flow["table"], flow["packet"]) == ("foreign", "plan", "in_port=9")
    assert (group["what"], group["problem"], group["number"]) == ("group", "foreign", 3)
    answer = {"hosts": ["h1"], "differences": [flow, group], "repairing": False}
    text, status = show_verify(answer)
    assert status == 1
    assert text.endswith("2 differences; --repair puts them right")


def module(name: str, **arguments: object) -> dict[str, object]:
    """The result of an Ansible module that asks this controller."""
    options = " ".join(f"{key}={value}" for key, value in arguments.items())
    command = ["ansible", "localhost", "-o", "-m", f"qiniu.qnet.{name}", "-a", f"api=http://127.0.0.1:{API} {options}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stdout + done.stderr
    found: dict[str, object] = json.loads(done.stdout[done.stdout.index("{") :])
    return found


def test_modules_ask_the_same_questions(process: Process) -> None:
    asked = {"source": "entry/web-3", "target": "fop/image", "protocol": "tcp/80"}
    assert module("qnet_trace", **asked, expect="delivered")["delivered"] is True
    wrong = str(module("qnet_trace", **asked, expect="refused")["msg"])
    assert "entry/web-3 -> fop/image tcp/80: delivered, expected refused; h1, table " in wrong
    assert "did you mean entry/web-3" in str(module("qnet_trace", **asked | {"source": "entry/web-4"})["msg"])
    found = module("qnet_verify", repair="true")
    assert (found["changed"], found["hosts"], found["differences"]) == (False, ["h1"], [])
