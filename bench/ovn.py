# SPDX-License-Identifier: Apache-2.0
"""OVN on one host: its databases, ovn-northd, ovn-controller and an Open vSwitch on the userspace datapath.

The programs are those of Debian's packages ovn-common, ovn-central and ovn-host, unpacked into .cache/ovn and not
installed, so that no service of theirs starts.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from contract.real import Vswitch, daemon, database, own_network, vswitch, wait_for

PACKAGES = ("ovn-common", "ovn-central", "ovn-host")
ROOT = Path(__file__).resolve().parents[1] / ".cache" / "ovn"
COMMANDS_AT_ONCE = 500
SYNC_SECONDS = 120


def install() -> Path:
    """Unpack the packages unless that is done; returns the directory that holds usr/."""
    root, stamp = ROOT / "root", ROOT / "unpacked"
    if not stamp.exists():
        ROOT.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "--quiet", "download", *PACKAGES], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        for package in sorted(ROOT.glob("*.deb")):
            subprocess.run(["dpkg", "-x", str(package), str(root)], check=True)
        stamp.touch()
    return root


class Ovn:
    """A running OVN; `switch` is that of its one host."""

    def __init__(self, root: Path, directory: Path, switch: Vswitch, agent: subprocess.Popen[bytes]) -> None:
        self._root, self._directory, self.switch, self.agent = root, directory, switch, agent

    def change(self, commands: Sequence[Sequence[str]]) -> None:
        """Run commands of ovn-nbctl, many in one transaction."""
        for first in range(0, len(commands), COMMANDS_AT_ONCE):
            self._nbctl(*(word for command in commands[first : first + COMMANDS_AT_ONCE] for word in (*command, "--")))

    def sync(self) -> None:
        """Wait until the host has taken over everything."""
        self._nbctl("--wait=hv", f"--timeout={SYNC_SECONDS}", "sync")

    def _nbctl(self, *words: str) -> None:
        database = f"--db=unix:{self._directory / 'OVN_Northbound.sock'}"
        command = [str(self._root / "usr/bin/ovn-nbctl"), database, *words]
        subprocess.run(command[:-1] if command[-1] == "--" else command, check=True, timeout=SYNC_SECONDS + 10)


@contextmanager
def ovn(directory: Path) -> Iterator[Ovn]:
    """OVN with one host and nothing in it."""
    root = install()
    directory.mkdir(exist_ok=True)
    with ExitStack() as stack:
        stack.callback(own_network())
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        remotes = []
        for name, schema in (("OVN_Northbound", "ovn-nb"), ("OVN_Southbound", "ovn-sb")):
            stack.enter_context(database(directory, name, root / f"usr/share/ovn/{schema}.ovsschema"))
            remotes.append(f"unix:{directory / name}.sock")
        switch = stack.enter_context(vswitch(directory, "br-int", 1))
        switch.vsctl(
            "set", "Open_vSwitch", ".", "external_ids:system-id=h1", f"external_ids:ovn-remote={remotes[1]}",
            "external_ids:ovn-encap-type=geneve", "external_ids:ovn-encap-ip=127.0.0.1",
            "external_ids:ovn-bridge-datapath-type=netdev", "external_ids:ovn-monitor-all=true",
        )  # fmt: skip
        start = ("env", f"OVN_RUNDIR={directory}")
        stack.enter_context(
            daemon(
                *start, root / "usr/bin/ovn-northd", f"--ovnnb-db={remotes[0]}", f"--ovnsb-db={remotes[1]}",
                f"--log-file={directory / 'northd.log'}", "-vconsole:off", directory=directory,
            )
        )  # fmt: skip
        agent = stack.enter_context(
            daemon(
                *start, root / "usr/bin/ovn-controller", f"unix:{switch.socket}",
                f"--log-file={directory / 'agent.log'}", "-vconsole:off", directory=directory,
            )
        )  # fmt: skip
        wait_for(lambda: list(directory.glob("ovn-controller.*.ctl")))
        yield Ovn(root, directory, switch, agent)
