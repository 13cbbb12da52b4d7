# SPDX-License-Identifier: Apache-2.0
"""`qnet`: its manual page and completion are those of its parser, and what it prints.

`QNET_WRITE_DOCS=1 pytest controller/tests/unit/test_command_line.py` writes both files again.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import shtab
from argparse_manpage.manpage import Manpage

from qnet_controller.cli import qnet

SHARE = Path(__file__).parents[2] / "share"


def manual() -> str:
    """The manual page, without a date, which would change from day to day."""
    lines = str(Manpage(qnet.parser())).rstrip().splitlines()
    return "\n".join(['.TH QNET "1" "" "qnet" "qnet"', *lines[1:]]) + "\n"


@pytest.mark.parametrize(
    ("name", "wanted"), [("qnet.1", manual()), ("qnet", shtab.complete(qnet.parser(), shell="bash").rstrip() + "\n")]
)
def test_manual_and_completion_are_those_of_the_parser(name: str, wanted: str) -> None:
    file = SHARE / name
    if os.environ.get("QNET_WRITE_DOCS"):
        file.write_text(wanted)
    assert file.read_text() == wanted, "run this test with QNET_WRITE_DOCS=1"


def test_the_completion_completes_verbs() -> None:
    script = f'. {SHARE}/qnet; COMP_WORDS=(qnet tr); COMP_CWORD=1; _shtab_qnet; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=10)
    assert done.stdout.split() == ["trace"], done


def test_columns_are_aligned_and_end_without_blanks() -> None:
    assert qnet.columns([("A", "B"), ("long", None)]) == "A     B\nlong"


def test_what_is_wrong_is_said_in_words() -> None:
    answer = {
        "name": "c1", "ready": False, "loaded": False, "generation": 3, "model": {"service_ips": 1}, "waiting": ["x"],
        "switches": [{"host": "h1", "state": "active", "connected": False, "role": None}],
        "pods": [{"pod": "a/p", "host": None, "live": False}, {"pod": "a/q", "host": "h1", "live": False}],
    }  # fmt: skip
    text, status = qnet.show_status(answer)
    assert status == 0
    assert text.startswith("controller c1: not ready, intent generation 3\n1 service ips\n")
    for wrong in (
        "database has not been read",
        "h1: absent",
        "waits: x",
        "a/p: attached nowhere",
        "a/q: no link on h1",
    ):
        assert wrong in text


def test_a_broken_configuration_is_an_error_for_people(tmp_path: Path) -> None:
    config = tmp_path / "controller.toml"
    assert qnet.api_address(config) == qnet.DEFAULT_API
    config.write_text("[api]\nlisten = '127.0.0.1:7'\n")
    assert qnet.api_address(config) == "127.0.0.1:7"
    config.write_text("[")
    with pytest.raises(qnet.Failed, match="cannot be read"):
        qnet.api_address(config)
