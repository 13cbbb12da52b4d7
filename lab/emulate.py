#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The first process in the container of a virtual machine: hands its networks over to the machine and becomes QEMU.

/machine has kernel, first stage and disk (never written to), /own what this machine is told. What the machine writes
to its disk stays in the container, over restarts too.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess

BASE, OWN, STATE = pathlib.Path("/machine"), pathlib.Path("/own"), pathlib.Path("/var/lib/machine")
# One without AVX: as QEMU 7.2 emulates it, systemd in the machine fails to mount and to write files.
PROCESSOR = "Westmere"
PROCESSORS = "2"  # so that plays need not wait for what the pods do
KERNEL_ARGUMENTS = "root=/dev/vda rw console=ttyS0 net.ifnames=0 panic=5 loglevel=4"


def run(*argv: str, stdin: str | None = None) -> None:
    """Run a command; its failure ends the machine."""
    subprocess.run(argv, input=stdin, text=True, check=True)


def bridge(number: int) -> None:
    """Join interface `number` of the container with one of the machine: the container has no address there any more."""
    outer, inner, joined = f"eth{number}", f"tap{number}", f"br{number}"
    run("ip", "address", "flush", "dev", outer)
    run("ip", "link", "add", joined, "type", "bridge")
    run("ip", "tuntap", "add", inner, "mode", "tap", "vnet_hdr")
    for port in (outer, inner):
        run("ip", "link", "set", port, "master", joined, "up")
        # Podman's bridge sends broadcasts back to where they came from; from those nothing must be learnt.
        run("bridge", "link", "set", "dev", port, "learning", "off")
    run("ip", "link", "set", joined, "up")


def network_file(network: dict[str, object]) -> str:
    """The systemd-networkd file of one interface."""
    text = (
        f"[Match]\nMACAddress={network['mac']}\n\n[Network]\nAddress={network['address']}\nLinkLocalAddressing=ipv6\n"
    )
    text += "IPv6AcceptRA=no\n" + (f"Gateway={network['gateway']}\n" if network["gateway"] else "")
    routes = network["routes"]
    assert isinstance(routes, dict)
    return text + "".join(f"\n[Route]\nDestination={to}\nGateway={via}\n" for to, via in routes.items())


def write(path: pathlib.Path, content: str, mode: int = 0o644) -> None:
    """Write a file and the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    path.chmod(mode)


def first_stage(told: dict[str, object]) -> pathlib.Path:
    """The first stage with the files of this machine, which it copies to the disk."""
    tree = STATE / "overlay"
    shutil.rmtree(tree, ignore_errors=True)
    networks = told["networks"]
    assert isinstance(networks, list)
    write(tree / "lab/etc/hostname", f"{told['name']}\n")
    write(tree / "lab/etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {told['name']}\n")
    write(tree / "lab/etc/resolv.conf", pathlib.Path("/etc/resolv.conf").read_text(encoding="utf-8"))
    for number, network in enumerate(networks):
        write(tree / f"lab/etc/systemd/network/10-eth{number}.network", network_file(network))
    write(tree / "lab/root/.ssh/authorized_keys", str(told["authorized_keys"]), 0o600)
    (tree / "lab/root").chmod(0o700)
    (tree / "lab/root/.ssh").chmod(0o700)
    key = "lab/etc/ssh/ssh_host_ed25519_key"
    write(tree / key, (OWN / "host_key").read_text(encoding="utf-8"), 0o600)
    write(tree / f"{key}.pub", (OWN / "host_key.pub").read_text(encoding="utf-8"))
    names = "".join(f"{path.relative_to(tree)}\n" for path in sorted(tree.rglob("*")))
    made = STATE / "initrd"
    shutil.copyfile(BASE / "initrd.img", made)
    with made.open("ab") as output:
        output.write(b"\0" * (-output.tell() % 4))  # an archive begins at a multiple of four bytes
        output.flush()
        argv = ["cpio", "--quiet", "--create", "--format=newc", "--owner=0:0"]
        subprocess.run(argv, cwd=tree, input=names.encode(), stdout=output, check=True)
    return made


def main() -> None:
    """Entry point; does not return."""
    told = json.loads((OWN / "machine.json").read_text(encoding="utf-8"))
    STATE.mkdir(parents=True, exist_ok=True)
    disk = STATE / "disk"
    if not disk.exists():
        run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(BASE / "disk"), str(disk))
    argv = [
        "qemu-system-x86_64", "-name", told["name"], "-machine", "q35", "-cpu", PROCESSOR,
        "-accel", os.environ.get("QNET_LAB_ACCELERATOR") or "tcg",
        "-smp", PROCESSORS, "-m", str(told["mebibytes"]), "-nodefaults", "-display", "none", "-serial", "stdio",
        "-monitor", f"unix:{STATE}/monitor,server=on,wait=off",
        "-kernel", str(BASE / "vmlinuz"), "-initrd", str(first_stage(told)), "-append", KERNEL_ARGUMENTS,
        "-drive", f"file={disk},if=virtio,format=qcow2,cache=unsafe", "-device", "virtio-rng-pci",
    ]  # fmt: skip
    for number, network in enumerate(told["networks"]):
        bridge(number)
        argv += ["-netdev", f"tap,id=net{number},ifname=tap{number},script=no,downscript=no"]
        argv += ["-device", f"virtio-net-pci,netdev=net{number},mac={network['mac']},romfile="]
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    main()
