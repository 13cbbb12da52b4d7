# SPDX-License-Identifier: GPL-3.0-or-later
"""A small real host for tests: a network namespace with ``/run`` and Open vSwitch (userspace datapath) of its own.

Everything dies with :meth:`Host.stop`, or with the test run at the latest.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import typing as t

COLLECTIONS = pathlib.Path(__file__).resolve().parents[5]
QNET_SCHEMA = COLLECTIONS.parent / "schemas" / "qnet.ovsschema"
RUN_MODULE = pathlib.Path(__file__).with_name("run_module.py")
SCHEMA = pathlib.Path("/usr/share/openvswitch/vswitch.ovsschema")
HOLD = """
mount -t tmpfs tmpfs /run && mount -t sysfs sysfs /sys && mkdir /run/netns /run/openvswitch &&
ip link set lo up && echo ready && exec sleep 3600
"""


def reason_to_skip() -> str | None:
    """Why a host cannot be made on this machine, None when it can."""
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    if not SCHEMA.exists() or not pathlib.Path("/usr/sbin/ovs-vswitchd").exists():
        return "needs the package openvswitch-switch"
    return None


class Host:
    """One host. ``directory`` keeps its database and logs."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self._holder: subprocess.Popen[str] | None = None

    def start(self, switch: bool = True) -> Host:
        """Make the namespaces and, with ``switch``, start Open vSwitch in them."""
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", HOLD],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline().strip() == "ready", "the namespaces of a test host cannot be made here"
        if switch:
            self.run("ovsdb-tool", "create", str(self.directory / "conf.db"), str(SCHEMA))
            self.start_database()
            self.start_daemon()
        return self

    def stop(self) -> None:
        """End every process of the host."""
        for name in ("ovs-vswitchd", "ovsdb-server"):
            self.kill(name)
        if self._holder is not None:
            self._holder.kill()
            self._holder.wait(10)
            if self._holder.stdout is not None:
                self._holder.stdout.close()
            self._holder = None

    def start_database(self) -> None:
        """Start ovsdb-server on the Open_vSwitch database."""
        self._daemon("ovsdb-server", str(self.directory / "conf.db"), "--remote=punix:/run/openvswitch/db.sock")

    def start_daemon(self) -> None:
        """Start ovs-vswitchd."""
        self._daemon("ovs-vswitchd", "unix:/run/openvswitch/db.sock")

    def kill(self, name: str) -> None:
        """End a daemon of this host as by kill -9, and wait until it is gone."""
        pidfile = pathlib.Path(f"/proc/{self.pid}/root/run/openvswitch/{name}.pid")
        if not pidfile.exists():
            return
        pid = int(pidfile.read_text())
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not pathlib.Path(f"/proc/{pid}").exists(), 10)
        pidfile.unlink()

    @property
    def pid(self) -> int:
        """The process that holds the host's namespaces."""
        assert self._holder is not None
        return self._holder.pid

    def popen(self, *command: str, **arguments: t.Any) -> subprocess.Popen[str]:
        """Start a command on the host."""
        return subprocess.Popen(self._enter(*command), text=True, **arguments)

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command on the host and return what it wrote, less the white space around."""
        done = subprocess.run(self._enter(*command), capture_output=True, text=True, timeout=60, check=False)
        if check:
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return (done.stdout + ("" if check else done.stderr)).strip()

    def module(self, name: str, check_mode: bool = False, /, **parameters: t.Any) -> dict[str, t.Any]:
        """Run a module on the host as Ansible would, and return its result."""
        arguments = {**parameters, "_ansible_check_mode": check_mode, "_ansible_diff": True}
        done = subprocess.run(
            self._enter(sys.executable, str(RUN_MODULE), name),
            input=json.dumps(arguments),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, "PYTHONPATH": str(COLLECTIONS)},
        )
        try:
            return t.cast("dict[str, t.Any]", json.loads(done.stdout))
        except ValueError:
            raise AssertionError(f"{name} wrote no result: {done.stdout}{done.stderr}") from None

    def start_module(self, name: str, /, **parameters: t.Any) -> subprocess.Popen[str]:
        """Start a module on the host without waiting for it; its result is lost."""
        process = self.popen(
            sys.executable,
            str(RUN_MODULE),
            name,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(COLLECTIONS)},
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(parameters))
        process.stdin.close()
        return process

    def _enter(self, *command: str) -> list[str]:
        return ["nsenter", "--net", "--mount", "--target", str(self.pid), "--", *command]

    def _daemon(self, name: str, *arguments: str) -> None:
        self.run(
            name,
            *arguments,
            "--pidfile",
            "--detach",
            "--no-chdir",
            "-vconsole:off",
            f"--log-file={self.directory / name}.log",
        )


class Intent:
    """A real intent database of its own, reached at ``remote``."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.remote = f"unix:{directory / 'qnet.sock'}"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Intent:
        """Make the database at first, and start its server."""
        file = self._directory / "qnet.db"
        if not file.exists():
            subprocess.run(["ovsdb-tool", "create", file, QNET_SCHEMA], check=True)
        self._process = subprocess.Popen(
            ["ovsdb-server", file, f"--remote=p{self.remote}", "--unixctl=none", "-vconsole:off"]
        )
        wait_until((self._directory / "qnet.sock").exists, 10)
        return self

    def stop(self) -> None:
        """End the server; the database stays."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None
            (self._directory / "qnet.sock").unlink(missing_ok=True)


def wait_until(condition: t.Callable[[], t.Any], seconds: float) -> t.Any:
    """Poll until the condition gives something true, and return it."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return result
