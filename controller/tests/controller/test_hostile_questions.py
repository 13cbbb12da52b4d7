# SPDX-License-Identifier: Apache-2.0
"""Questions that mean nothing are answered with what is wrong, and cost nobody else anything."""

from __future__ import annotations

import random
import socket

import pytest
from bench.fleet.hostile_questions import BODIES, Asked, mutated

from contract.process import API, Process, its_switch, master, shared_stage, small_fleet

__all__ = ["its_switch", "master", "shared_stage", "small_fleet"]

QUESTIONS = 600


def status_of(asked: Asked) -> int:
    """The status of the answer."""
    with socket.create_connection(("127.0.0.1", API), timeout=10) as line:
        line.sendall(asked.wire())
        answer = line.makefile("rb").readline()
    return int(answer.split()[1])


@pytest.mark.parametrize("asked", BODIES, ids=lambda asked: f"{asked.path} {asked.body[:40]!r}")
def test_a_body_that_is_no_question_is_said_to_be_none(process: Process, asked: Asked) -> None:
    assert status_of(asked) == 400
    assert process.get("/healthz")[0] == 200


def test_no_question_makes_the_controller_fail(process: Process) -> None:
    chance = random.Random(11)
    for _ in range(QUESTIONS):
        asked = mutated(chance)
        assert status_of(asked) in (200, 400, 404), asked
    assert process.alive()
    assert "Traceback" not in process.log
    assert process.switch()["adopted"]
