# SPDX-License-Identifier: Apache-2.0
"""Other controllers, installed on first use: Python ones in environments of their own under .cache, one from Debian."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import REPOSITORY, wire

CACHE = REPOSITORY / ".cache" / "peers"


class Unavailable(Exception):
    """The peer cannot be had here; the text says why."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A controller that learns MACs; `command` installs it and returns how it is started on a port (plain TCP)."""

    name: str
    version: int
    command: Callable[[int], list[str]]


def _environment(name: str, *packages: str, build: str = "") -> Path:
    """A virtual environment with `packages`; `build` limits what they are built with."""
    where = CACHE / name
    stamp = where / "installed"
    if stamp.exists() and stamp.read_text() == repr((packages, build)):
        return where
    shutil.rmtree(where, ignore_errors=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    steps = [[sys.executable, "-m", "venv", str(where)]]
    install = [str(where / "bin" / "pip"), "install", "--quiet"]
    steps.append([*install, "--upgrade", "pip"])
    if build:
        limits = CACHE / f"{name}-build.txt"
        limits.write_text(build + "\n")
        steps.append([*install, build, "wheel"])
        install += ["--build-constraint", str(limits)]
    steps.append([*install, *packages])
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, timeout=900)
        if done.returncode:
            raise Unavailable(f"{' '.join(step)}: {done.stderr.strip()[-300:]}")
    stamp.write_text(repr((packages, build)))
    return where


_RUN_RYU = """
import eventlet.wsgi, sys
eventlet.wsgi.ALREADY_HANDLED = object()  # for Ryu's web server, which is not used
from ryu.cmd.manager import main
main(sys.argv[1:])
"""


def _ryu(port: int) -> list[str]:
    # Ryu's setup needs an old setuptools. The last eventlet that its web server can import does not run on Python 3.11.
    where = _environment("ryu", "ryu==4.34", "eventlet==0.33.3", "dnspython<2.3", build="setuptools<68")
    options = ["--default-log-level", "30", "--ofp-tcp-listen-port", str(port), "ryu.app.simple_switch_13"]
    return [str(where / "bin" / "python"), "-c", _RUN_RYU, *options]


def _os_ken(port: int) -> list[str]:
    where = _environment("os-ken", "os-ken==4.2.2")
    return [str(where / "bin" / "python"), str(Path(__file__).with_name("os_ken_learning.py")), str(port)]


def _testcontroller(port: int) -> list[str]:
    if not shutil.which("ovs-testcontroller"):
        subprocess.run(
            ["apt-get", "install", "--quiet", "--quiet", "--yes", "--no-install-recommends",
             "openvswitch-testcontroller"],
            capture_output=True, check=False,
        )  # fmt: skip
        # Its package starts a controller of its own on port 6653.
        subprocess.run(
            ["systemctl", "disable", "--now", "openvswitch-testcontroller"], capture_output=True, check=False
        )
    if not shutil.which("ovs-testcontroller"):
        raise Unavailable("apt-get install openvswitch-testcontroller has failed")
    return ["ovs-testcontroller", "--verbose=off", "-O", "OpenFlow13", f"--unixctl={CACHE / 'testcontroller.ctl'}",
            f"ptcp:{port}:127.0.0.1"]  # fmt: skip


ALL = (
    Peer("ryu", wire.OPENFLOW_13, _ryu),
    Peer("os-ken", wire.OPENFLOW_13, _os_ken),
    Peer("ovs-testcontroller", wire.OPENFLOW_13, _testcontroller),
)
