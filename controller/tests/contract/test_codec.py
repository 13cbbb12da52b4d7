# SPDX-License-Identifier: Apache-2.0
"""The codec that the suite runs with is the one that was asked for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from qnet_controller.openflow import codec


def test_the_codec_is_the_one_asked_for() -> None:
    asked = os.environ.get("QNET_OPENFLOW_CODEC", "os_ken")
    assert asked == codec.CODEC
    assert codec._parser.__name__ == f"{asked}.ofproto.ofproto_v1_5_parser"
    other = {"os_ken": "ryu", "ryu": "os_ken"}[asked]
    assert f"{other}.ofproto.ofproto_v1_5_parser" not in sys.modules


@pytest.mark.parametrize("name", ["pox", ""])
def test_another_codec_is_refused_by_name(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import qnet_controller.openflow.codec"],
        env=os.environ | {"QNET_OPENFLOW_CODEC": name},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode
    assert "the codec is one of os_ken, ryu" in done.stderr
