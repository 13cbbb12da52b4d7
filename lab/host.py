# SPDX-License-Identifier: Apache-2.0
"""What the lab asks of the machine it runs on: commands, packages, memory, disk."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGES = {  # command -> Debian package
    "podman": "podman",
    "runc": "runc",
    "iptables": "iptables",
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
    "ssh-keygen": "openssh-client",
    "mke2fs": "e2fsprogs",
}
MEBIBYTES_PER_HOST = 256
# Podman asks for more by default than root may have without CAP_SYS_RESOURCE.
LIMITS = ("--ulimit", "nofile=20000:20000", "--ulimit", "nproc=30000:30000")
INOTIFY = pathlib.Path("/proc/sys/fs/inotify/max_user_instances")
SOCKET_BYTES = pathlib.Path("/proc/sys/net/core/rmem_default")
LEAST_SOCKET_BYTES = 8 << 20  # as role openvswitch sets it where it may: it is the machine's, and not a container's
INOTIFY_INSTANCES = 1024  # each host's systemd takes about seven, and Debian's default is 128 for all of root's
MEBIBYTES_OF_DISK = 3072
GROUPS = pathlib.Path("/sys/fs/cgroup")
SHARES_OF_CONTAINER, SHARES_OF_MACHINE = 1024, 4096  # each instruction of an emulated processor takes many


class LabError(Exception):
    """Something the person at the keyboard can act on; the text says what to do."""


def say(text: str) -> None:
    """Print one progress line."""
    print(f"lab: {text}", flush=True)


def run(*argv: str, stdin: str | None = None, check: bool = True) -> str:
    """Run a command and return its standard output, stripped.

    Raises LabError with the command and its last lines of error output when it fails and `check` is set.
    """
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        tail = " / ".join(done.stderr.strip().splitlines()[-3:]) or f"exit status {done.returncode}"
        raise LabError(f"`{' '.join(argv[:6])}{' …' if len(argv) > 6 else ''}` failed: {tail}")
    return done.stdout.strip()


def podman(*argv: str, stdin: str | None = None, check: bool = True) -> str:
    """Run podman with the runtime that works under every cgroup layout."""
    return run("podman", "--runtime", "runc", *argv, stdin=stdin, check=check)


def os_release() -> dict[str, str]:
    """The fields of os-release of this machine."""
    lines = pathlib.Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    return {key: value.strip('"') for key, _, value in (line.partition("=") for line in lines if "=" in line)}


def require_root_on_debian() -> None:
    """Refuse early where nothing else could work."""
    if os.geteuid() != 0:
        raise LabError("needs root (containers with systemd and Open vSwitch): run it with sudo")
    release = os_release()
    families = {release.get("ID", ""), *release.get("ID_LIKE", "").split()}
    if not families & {"debian", "ubuntu"}:
        name = release.get("PRETTY_NAME", "this system")
        raise LabError(f"needs Debian or Ubuntu, this is {name}: use a Debian 12 machine or virtual machine")


def require_room(mebibytes: int) -> None:
    """Refuse when hosts that take so much would not fit into memory, or their image onto the disk."""
    fields = dict(line.split(":") for line in pathlib.Path("/proc/meminfo").read_text(encoding="utf-8").splitlines())
    available = int(fields["MemAvailable"].split()[0]) // 1024
    if available < mebibytes:
        raise LabError(
            f"needs {mebibytes} MiB of free memory for new hosts, there are {available}: "
            "free some, or set QNET_LAB_CONTROLLERS and QNET_LAB_SWITCHES to fewer hosts"
        )
    for place in (pathlib.Path("/var/lib"), ROOT):
        free = shutil.disk_usage(place).free >> 20
        if free < MEBIBYTES_OF_DISK:
            raise LabError(f"needs {MEBIBYTES_OF_DISK} MiB of free disk under {place}, there are {free}: free some")


def allow_inotify() -> None:
    """Raise the machine's limit on inotify instances until its next boot: past it, systemd of a new host hangs."""
    have = int(INOTIFY.read_text(encoding="ascii"))
    if have < INOTIFY_INSTANCES:
        say(f"raising fs.inotify.max_user_instances from {have} to {INOTIFY_INSTANCES} until the next boot")
        INOTIFY.write_text(f"{INOTIFY_INSTANCES}\n", encoding="ascii")


def allow_longer_queues() -> None:
    """Raise the room of new sockets until the next boot: switches in user space lose packets where they run late."""
    have = int(SOCKET_BYTES.read_text(encoding="ascii"))
    if have < LEAST_SOCKET_BYTES:
        say(f"raising net.core.rmem_default from {have} to {LEAST_SOCKET_BYTES} until the next boot")
        SOCKET_BYTES.write_text(f"{LEAST_SOCKET_BYTES}\n", encoding="ascii")


def install_missing_packages() -> None:
    """Install the Debian packages of the commands that are not there."""
    missing = sorted({package for command, package in PACKAGES.items() if shutil.which(command) is None})
    if not missing:
        return
    say(f"installing {' '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for argv in (["apt-get", "-q", "update"], ["apt-get", "-qy", "install", "--no-install-recommends", *missing]):
        done = subprocess.run(argv, env=environment, stdout=subprocess.DEVNULL, stderr=sys.stderr, check=False)
        if done.returncode != 0:
            raise LabError(f"`{' '.join(argv)}` failed: see the lines above, or install {' '.join(missing)} by hand")


def group_of(name: str) -> str:
    """The control group of a lab of its own."""
    return f"qnet-lab-{name}"


def ensure_group(name: str, containers: int, machines: int) -> list[str]:
    """A control group for a lab, in which its hosts weigh as much as if each were a machine; the words for podman.

    Otherwise all containers together weigh no more than one process beside them, say one of the ten that a play has,
    and an emulated processor gets so little that plays give its host up. Only with the first version of control
    groups, managed by podman itself: elsewhere the list is empty, and podman's groups stay as they are.
    """
    processor = GROUPS / "cpu"
    if not (processor / "cpu.shares").exists() or podman("info", "--format", "{{.Host.CgroupManager}}") != "cgroupfs":
        return []
    group = processor / group_of(name)
    group.mkdir(exist_ok=True)
    shares = SHARES_OF_CONTAINER * containers + SHARES_OF_MACHINE * machines
    (group / "cpu.shares").write_text(f"{shares}\n", encoding="ascii")
    return ["--cgroup-parent", f"/{group.name}"]


def remove_group(name: str) -> None:
    """Remove the control group of a lab whose hosts are gone, and what podman made in it, from all hierarchies."""
    for group in GROUPS.glob(f"*/{group_of(name)}"):
        for inner in sorted(group.glob("**/"), reverse=True):  # the innermost first, then the group itself
            with contextlib.suppress(OSError):  # one that is in use: the lab says that it is left
                inner.rmdir()
