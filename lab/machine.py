# SPDX-License-Identifier: Apache-2.0
"""Virtual machines of the lab: hosts with a kernel of their own, and with it the kernel's datapath of Open vSwitch.

A machine is a QEMU process in a podman container, which has the two networks of any host and hands them over to the
machine (emulate.py). So what ends, freezes or removes a container does the same to a machine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import inspect
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator

import image
from host import LIMITS, SHARES_OF_MACHINE, LabError, podman, run, say
from plan import Host, Lab

REPOSITORY = "localhost/qnet-lab-emulator"
EMULATE = pathlib.Path(__file__).resolve().with_name("emulate.py")
KERNEL = "linux-image-cloud-amd64"
DISK_SIZE = "4G"
MEBIBYTES = 1024
PATIENCE_SECONDS = 90  # for an answer of a machine that runs
BOOT_SECONDS = 240  # without KVM on a machine that has other things to do
# What the first stage of booting loads; the rest is on the disk.
EARLY_MODULES = ("virtio_pci", "virtio_blk", "ext4")
# Files that lab/emulate.py adds to the first stage are put onto the disk: the name, the addresses and the keys.
COPY_OVERLAY = """\
#!/bin/sh
[ "$1" = prereqs ] && exit 0
[ ! -d /lab ] || cp -a /lab/. "$rootmnt/"
"""
GUEST = f"""
set -e
export DEBIAN_FRONTEND=noninteractive
apt-get -qy install --no-install-recommends initramfs-tools busybox udev
echo MODULES=list >/etc/initramfs-tools/conf.d/lab
printf '%s\\n' {" ".join(EARLY_MODULES)} >/etc/initramfs-tools/modules
cat >/etc/initramfs-tools/scripts/init-bottom/lab
chmod 0755 /etc/initramfs-tools/scripts/init-bottom/lab
apt-get -qy install --no-install-recommends {KERNEL}
systemctl unmask systemd-sysctl.service systemd-modules-load.service
systemctl enable systemd-networkd.service
systemctl mask e2scrub_reap.service
rm -rf /var/log/journal /etc/systemd/system/ssh.service.d
"""
EMULATOR = """
set -e
export DEBIAN_FRONTEND=noninteractive
apt-get -qy install --no-install-recommends qemu-system-x86 qemu-utils cpio
apt-get clean
"""


@dataclasses.dataclass(frozen=True)
class Machine:
    """What a machine is started from: the image of its container, and a directory with kernel, first stage and disk."""

    image: str
    directory: pathlib.Path


@contextlib.contextmanager
def scratch(base: str, script: str, stdin: str = "") -> Iterator[str]:
    """A container in which `script` has run on top of the image `base`, as long as the block runs."""
    name = f"qnet-lab-build-{os.getpid()}"
    try:
        argv = ["run", "--interactive", "--network", "host", *LIMITS, "--name", name, base, "sh", "-c", script]
        podman(*argv, stdin=stdin)
        yield name
    finally:
        podman("rm", "--force", "--volumes", name, check=False)


def build_guest(base: str, directory: pathlib.Path) -> None:
    """Write kernel, first stage and disk of a machine with the root file system of `base` into `directory`."""
    with scratch(base, GUEST, stdin=COPY_OVERLAY) as name:
        root = pathlib.Path(podman("mount", name))
        try:
            for part in ("vmlinuz", "initrd.img"):
                (found,) = (root / "boot").glob(f"{part}-*")
                shutil.copyfile(found, directory / part)
                found.unlink()
            run("mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", str(root), str(directory / "disk"), DISK_SIZE)
        finally:
            podman("umount", name)


def recipe_of(base: str) -> str:
    """The name of what is made on top of an image: the same as long as what is put into it is the same."""
    parts = (base, EMULATOR, GUEST, COPY_OVERLAY, DISK_SIZE, inspect.getsource(build_guest))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def ensure(release: str) -> Machine:
    """Make what machines of a release are started from unless it is there. Safe to run from several labs at once."""
    base = image.ensure(release)
    recipe = recipe_of(base)
    emulator, directory = f"{REPOSITORY}:{recipe}", image.CACHE / f"machine-{recipe}"
    with (image.CACHE / "lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not podman("image", "ls", "--quiet", emulator):
            say("installing the emulator of virtual machines into an image (about a minute)")
            with scratch(base, EMULATOR) as name:
                podman("commit", "--quiet", name, emulator)
        if not directory.is_dir():
            began = time.monotonic()
            say("making the disk of virtual machines (about a minute)")
            with tempfile.TemporaryDirectory(prefix="machine-", dir=image.CACHE) as made:
                build_guest(base, pathlib.Path(made))
                os.chmod(made, 0o755)
                shutil.copytree(made, directory.with_suffix(".new"), copy_function=os.rename)
            directory.with_suffix(".new").rename(directory)
            say(f"disk made in {time.monotonic() - began:.0f} s")
    return Machine(emulator, directory)


def own_directory(lab: Lab, host: Host) -> pathlib.Path:
    """Where the lab keeps what one machine is told at its boot."""
    return lab.directory / host.name


def describe(lab: Lab, host: Host, public_key: str) -> None:
    """Write what the machine is told at its boot: its name, networks and keys."""
    directory = own_directory(lab, host)
    directory.mkdir(mode=0o700, exist_ok=True)
    if not (directory / "host_key").exists():
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", host.name, "-f", str(directory / "host_key"))
    networks = [
        {
            "mac": lab.mac(host, number),
            "address": f"{lab.address(host, number)}/{subnet.prefixlen}",
            "gateway": str(subnet[1]) if number == 0 else "",
            "routes": lab.routes(host) if number else {},
        }
        for number, subnet in enumerate(lab.networks_of(host).values())
    ]
    told = {"name": host.name, "networks": networks, "authorized_keys": public_key, "mebibytes": MEBIBYTES}
    (directory / "machine.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def start(lab: Lab, host: Host, words: list[str], machine: Machine, public_key: str) -> None:
    """Create and start a machine; `words` are podman's for every host of the lab."""
    describe(lab, host, public_key)
    attachments = [
        f"{name}:ip={lab.address(host, n)},interface_name=eth{n}" for n, name in enumerate(lab.networks_of(host))
    ]
    podman(
        "run", "--detach", "--privileged", "--pids-limit=-1", "--cpu-shares", str(SHARES_OF_MACHINE),
        "--name", lab.container(host.name), "--hostname", f"{host.name}-emulator", *words,
        "--volume", f"{machine.directory}:/machine:ro", "--volume", f"{own_directory(lab, host)}:/own:ro",
        "--volume", f"{EMULATE}:/emulate.py:ro", "--env", "QNET_LAB_ACCELERATOR", *LIMITS,
        *(part for attachment in attachments for part in ("--network", attachment)),
        machine.image, "python3", "-u", "/emulate.py",
    )  # fmt: skip


def prepare(lab: Lab, host: Host) -> str:
    """Wait until the machine lets the lab's key in; return its line for known_hosts."""
    kind, key = (own_directory(lab, host) / "host_key.pub").read_text(encoding="utf-8").split()[:2]
    line = f"{lab.address(host)} {kind} {key}\n"
    deadline = time.monotonic() + BOOT_SECONDS
    with tempfile.NamedTemporaryFile("w", prefix="qnet-lab-") as known:
        known.write(line)
        known.flush()
        while subprocess.run(
            ssh(lab, host, pathlib.Path(known.name), "true"), capture_output=True, check=False
        ).returncode:
            running = podman("inspect", "--format", "{{.State.Running}}", lab.container(host.name)) == "true"
            if not running or time.monotonic() > deadline:
                fault = f"no SSH after {BOOT_SECONDS} s" if running else "QEMU has ended"
                look = f"look at `podman logs {lab.container(host.name)}`, then `lab/lab down` and `up`"
                raise LabError(f"{host.name}: {fault}: {look}")
            time.sleep(1)
    return line


def ssh(lab: Lab, host: Host, known_hosts: pathlib.Path, *command: str) -> list[str]:
    """The command that runs `command` on a host as Ansible would."""
    patience = PATIENCE_SECONDS if host.virtual else 10
    return [
        "ssh", "-i", str(lab.directory / "id_ed25519"), "-o", f"UserKnownHostsFile={known_hosts}",
        "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes",
        "-o", f"ConnectTimeout={patience}", "-o", "LogLevel=ERROR",
        f"root@{lab.address(host)}", *command,
    ]  # fmt: skip


def remove() -> None:
    """Remove what machines are started from."""
    for found in podman("image", "ls", "--quiet", "--no-trunc", REPOSITORY).splitlines():
        podman("image", "rm", found)
    for directory in image.CACHE.glob("machine-*"):
        shutil.rmtree(directory, ignore_errors=True)
