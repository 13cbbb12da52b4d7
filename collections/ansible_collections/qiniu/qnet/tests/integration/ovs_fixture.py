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
import time
import typing as t

MODULES = pathlib.Path(__file__).resolve().parents[2] / "plugins" / "modules"
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
    """One host.

    Args:
        directory: keeps its database and logs.
        interpreter: the Python that modules run with.
        import_path: PYTHONPATH of modules.
    """

    def __init__(self, directory: pathlib.Path, interpreter: str, import_path: str) -> None:
        self.directory = directory
        self._interpreter = interpreter
        self._import_path = import_path
        self._holder: subprocess.Popen[str] | None = None

    def start(self, *options: str, switch: bool = True) -> Host:
        """Make the namespaces and, with ``switch``, start Open vSwitch in them, ovs-vswitchd with ``options``."""
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
            self.start_daemon(*options)
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

    def start_daemon(self, *options: str) -> None:
        """Start ovs-vswitchd."""
        self._daemon("ovs-vswitchd", "unix:/run/openvswitch/db.sock", *options)

    def kill(self, name: str) -> None:
        """End a daemon of this host as by kill -9, and wait until it is gone."""
        pidfile = self._pidfile(name)
        if not pidfile.exists():
            return
        pid = self.daemon_pid(name)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not _is_running(pid), 10)
        pidfile.unlink()

    def daemon_pid(self, name: str) -> int:
        """Process id of a daemon of this host."""
        return int(self._pidfile(name).read_text())

    def _pidfile(self, name: str) -> pathlib.Path:
        return pathlib.Path(f"/proc/{self.pid}/root/run/openvswitch/{name}.pid")

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

    def start_module(self, name: str, check_mode: bool = False, /, **parameters: t.Any) -> subprocess.Popen[str]:
        """Start a module on the host and do not wait for it."""
        process = self.popen(
            self._interpreter,
            str(MODULES / f"{name}.py"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": self._import_path, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        internal = {"_ansible_check_mode": check_mode, "_ansible_diff": True}
        assert process.stdin is not None
        process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": {**parameters, **internal}}))
        process.stdin.close()
        process.stdin = None
        return process

    def module(self, name: str, check_mode: bool = False, /, **parameters: t.Any) -> dict[str, t.Any]:
        """Run a module on the host as Ansible would, and return its result."""
        output, errors = self.start_module(name, check_mode, **parameters).communicate(timeout=120)
        assert "Traceback" not in output + errors, output + errors
        return t.cast("dict[str, t.Any]", json.loads(output))

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


def _is_running(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for by its parent yet does not."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: t.Callable[[], t.Any], seconds: float) -> t.Any:
    """Poll until the condition gives something true, and return it."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return result
