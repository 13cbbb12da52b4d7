# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole installation on one host of :mod:`ovs_fixture`: certificates, intent database over TLS, controller, switch.

Plays run on it as they do on a fleet, by ``ansible-playbook`` itself; what the modules log is kept in a file.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import typing as t

import yaml

from ansible_collections.qiniu.qnet.tests.conftest import COLLECTIONS_ROOT, SCHEMA
from ansible_collections.qiniu.qnet.tests.integration.ovs_fixture import Host, wait_until

BIN = pathlib.Path(sys.executable).parent
ADDRESS = "192.0.2.11"
Tasks = list[dict[str, t.Any]]

# /etc, /srv, /dev and what belongs to a host, as private copies: nothing of this reaches the machine.
PRIVATE = """
cp -a /etc /run/etc && mount --bind /run/etc /etc && echo 'qnet:x:64999:' >>/etc/group && mount -t tmpfs tmpfs /srv
mkdir /run/dev /run/home /run/qnet-database && mount -t tmpfs tmpfs /run/dev && mkdir /run/dev/net
for name in null zero full random urandom tty net/tun; do
  : >/run/dev/$name; mount --bind /dev/$name /run/dev/$name
done
mkdir /run/dev/pts /run/dev/shm && mount --bind /dev/pts /run/dev/pts && mount -t tmpfs tmpfs /run/dev/shm
ln -s pts/ptmx /run/dev/ptmx && ln -s /proc/self/fd /run/dev/fd && mount --rbind /run/dev /dev
for address in 192.0.2.1 192.0.2.2 192.0.2.11; do ip address add $address/32 dev lo; done
for link in eth0 eth1; do
  ip link add $link type veth peer name ${link}-peer && ip link set $link up && ip link set ${link}-peer up
done
ip address add 198.51.100.1/24 dev eth0 && ip route add default via 198.51.100.254
"""
SYSLOG = """
import socket, sys
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.bind("/dev/log")
with open(sys.argv[1], "ab", buffering=0) as file:
    print("ready", flush=True)
    while True:
        file.write(log.recv(1 << 20) + b"\\n")
"""
CONTROLLER = """
name = "c1"
openflow.listen = "192.0.2.11:6653"
database.remotes = ["unix:/run/qnet-database/qnet.sock"]
pki = {ca = "/etc/qnet/pki/ca.pem", certificate = "/etc/qnet/pki/host.pem", private_key = "/etc/qnet/pki/host.key"}
api.listen = "127.0.0.1:9680"
controllers = [{name = "c1", address = "192.0.2.11"}]
"""


class WholeHost:
    """The host ``c1``, which is also a switch. Use as a context manager."""

    def __init__(self, directory: pathlib.Path, interpreter: str, import_path: str) -> None:
        self.host = Host(directory, interpreter, import_path)
        self.directory = directory
        self.syslog = directory / "syslog"
        self._interpreter = interpreter
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> WholeHost:
        self.host.start()
        try:
            self.host.run("sh", "-ec", PRIVATE)
            self._start(sys.executable, "-c", SYSLOG, str(self.syslog), ready="ready")
            (self.directory / "playbooks").mkdir()
            (self.directory / "schemas").symlink_to(SCHEMA.parent)
            host = {"ansible_connection": "local", "ansible_host": ADDRESS}
            host["ansible_python_interpreter"] = self._interpreter
            fleet = {name: {"hosts": {"c1": host}} for name in ("controllers", "switches")}
            (self.directory / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": fleet}}))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *dummy: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait(10)
            if process.stdout is not None:
                process.stdout.close()
        self.host.stop()

    def start_database(self) -> None:
        """The intent database with its socket and TLS; certificates must be there."""
        self.host.run("ovsdb-tool", "create", "/run/qnet-database/qnet.db", str(SCHEMA))
        files = ("--private-key=/etc/qnet/pki/host.key", "--certificate=/etc/qnet/pki/host.pem")
        self._start(
            "ovsdb-server", "/run/qnet-database/qnet.db", "--remote=punix:/run/qnet-database/qnet.sock",
            f"--remote=pssl:6641:{ADDRESS}", *files, "--ca-cert=/etc/qnet/pki/ca.pem", "--no-chdir",
            "--unixctl=/run/qnet-database/qnet.ctl", "-vconsole:off",
        )  # fmt: skip
        wait_until(lambda: self.host.run("ls", "/run/qnet-database/qnet.sock", check=False).endswith("qnet.sock"), 20)

    def start_controller(self) -> None:
        """The controller; the database must run."""
        config = self.directory / "controller.toml"
        config.write_text(CONTROLLER)
        self._start(str(BIN / "qnet-controller"), "--config", str(config), log=self.directory / "controller.log")

    def play(
        self, tasks: Tasks, *options: str, plays: Tasks | None = None, **variables: t.Any
    ) -> subprocess.CompletedProcess[str]:
        """Run tasks as a play on the host, or ready ``plays``; variables are those of the play."""
        book = self.directory / "playbooks" / "play.yml"
        whole = {"hosts": "c1", "gather_facts": False, "vars": variables, "tasks": tasks}
        book.write_text(yaml.safe_dump(plays or [whole], sort_keys=False))
        environment = {
            **{k: v for k, v in os.environ.items() if k == "ANSIBLE_LIBRARY"},
            "PATH": f"{BIN}:{os.environ['PATH']}:/usr/sbin:/sbin", "HOME": "/run/home", "LC_ALL": "C.UTF-8",
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS_ROOT), "ANSIBLE_LOCAL_TEMP": "/run/home/local",
            "ANSIBLE_LOG_PATH": str(self.directory / "ansible.log"), "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": "/run/home", "ANSIBLE_REMOTE_TMP": "/run/home/remote", "ANSIBLE_ASYNC_DIR": "/run/home/async",
        }  # fmt: skip
        program = [str(BIN / "ansible-playbook"), "-i", str(self.directory / "hosts.yml"), *options, str(book)]
        process = self.host.popen(*program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
        out, err = process.communicate(timeout=800)
        return subprocess.CompletedProcess(program, process.returncode, out, err)

    def good(self, tasks: Tasks, *options: str, **more: t.Any) -> str:
        """Run tasks that must succeed; returns what Ansible wrote."""
        done = self.play(tasks, *options, **more)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def _start(self, *command: str, ready: str = "", log: pathlib.Path | None = None) -> None:
        target: t.Any = subprocess.PIPE if ready else subprocess.DEVNULL
        errors: t.Any = log.open("w") if log else subprocess.DEVNULL
        process = self.host.popen(*command, stdout=target, stderr=errors)
        self._processes.append(process)
        if ready:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == ready
