# SPDX-License-Identifier: Apache-2.0
"""The fleet on one machine: hosts with systemd and sshd on a management and an underlay network.

A host is a container, or a virtual machine (machine.py) where a kernel of its own is wanted.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import dataclasses
import fcntl
import json
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import image
import machine
from host import (
    GROUPS,
    LIMITS,
    MEBIBYTES_PER_HOST,
    ROOT,
    LabError,
    allow_inotify,
    allow_longer_queues,
    ensure_group,
    group_of,
    install_missing_packages,
    podman,
    remove_group,
    require_room,
    require_root_on_debian,
    run,
    say,
)
from plan import ROUTER, ROUTER_OCTET, Host, Lab, load, state_directory, wanted

BOOT_SECONDS = 60
ROUTES_UNIT = """\
[Unit]
Description=Routes to the other underlays of the lab
DefaultDependencies=no
Before=network.target

[Service]
Type=oneshot
RemainAfterExit=yes
{commands}

[Install]
WantedBy=multi-user.target
"""
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?")


def labels(name: str) -> list[str]:
    """The podman labels that say which lab and which checkout something belongs to."""
    return ["--label", f"qnet.lab={name}", "--label", f"qnet.checkout={ROOT}"]


def containers(name: str) -> dict[str, dict[str, str]]:
    """Host name -> its container's fields (State, checkout) for every container of the lab."""
    listed = json.loads(podman("ps", "--all", "--format", "json", "--filter", f"label=qnet.lab={name}") or "[]")
    return {
        row["Names"][0].removeprefix(f"{name}-"): {"state": row["State"], "checkout": row["Labels"]["qnet.checkout"]}
        for row in listed
    }


def refuse_foreign(name: str) -> None:
    """Refuse to touch a lab of the same name that another checkout made."""
    owners = {row["checkout"] for row in containers(name).values()} - {str(ROOT)}
    if owners:
        raise LabError(
            f"a lab called {name} belongs to the checkout {', '.join(sorted(owners))}: "
            "take it down there, or set QNET_LAB to another name"
        )


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lab's lock: two commands on one lab go one after the other. `down` leaves no lock file behind."""
    path = ROOT / ".lab" / f".{name}.lock"
    while True:
        path.parent.mkdir(exist_ok=True)
        with path.open("w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists() or path.stat().st_ino != os.fstat(lock.fileno()).st_ino:
                continue  # the one before us took the lab down, and the file with it
            try:
                yield
            finally:
                if not state_directory(name).exists():
                    path.unlink()
            return


def ensure_key(lab: Lab) -> str:
    """Make the lab's own SSH key if missing; return the public part."""
    key = lab.directory / "id_ed25519"
    if not key.exists():
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"qnet-lab-{lab.name}", "-f", str(key))
    return key.with_suffix(".pub").read_text(encoding="utf-8")


def ensure_networks(lab: Lab) -> None:
    """Make the networks that are missing. Only the management network leads out of the machine."""
    have = set(podman("network", "ls", "--format", "{{.Name}}").splitlines())
    for number, (name, subnet) in enumerate(lab.networks.items()):
        if name not in have:
            extra = ["--internal"] if number else []
            podman("network", "create", "--disable-dns", *extra, "--subnet", str(subnet), *labels(lab.name), name)


def forbid_reflection(lab: Lab) -> None:
    """Have the networks send no frame back to where it came from, as no real network does.

    Bridges of podman do so with some network back ends. A switch on a host then sees its own address come from outside,
    and no longer finds the way back to itself: the host drops off the underlay as soon as it asks for a neighbour.
    """
    for name in lab.networks:
        bridge = podman("network", "inspect", "--format", "{{.NetworkInterface}}", name)
        for setting in Path("/sys/class/net", bridge, "brif").glob("*/hairpin_mode"):
            setting.write_text("0\n", encoding="ascii")


def start(lab: Lab, host: Host, state: str | None, words: list[str], public_key: str) -> None:
    """Bring one host to running, whatever `state` its container is in.

    None: it does not exist, and podman gets `words` to make it.
    """
    container = lab.container(host.name)
    if state == "running":
        return
    if state == "paused":
        podman("unpause", container)
        return
    if state is not None:
        podman("start", container)
        return
    if host.virtual:
        machine.start(lab, host, words, machine.ensure(host.release), public_key)
        return
    attachments = [
        f"{name}:ip={lab.address(host, number)},mac={lab.mac(host, number)},interface_name=eth{number}"
        for number, name in enumerate(lab.networks_of(host))
    ]
    podman(
        "run", "--detach", "--systemd=always", "--privileged", "--pids-limit=-1",
        *LIMITS, "--name", container, "--hostname", host.name, *words,
        *(part for attachment in attachments for part in ("--network", attachment)),
        image.ensure(host.release), "/sbin/init",
    )  # fmt: skip


def start_router(lab: Lab, state: str | None) -> None:
    """Bring the router between the underlays to running: a container that forwards packets and is no host."""
    if state is not None:
        podman("start", lab.container(ROUTER))
        return
    underlays = list(lab.networks.items())[1:]
    attachments = [
        f"{name}:ip={subnet[ROUTER_OCTET]},interface_name=eth{n}" for n, (name, subnet) in enumerate(underlays)
    ]
    podman(
        "run", "--detach", "--privileged", *LIMITS, "--sysctl", "net.ipv4.ip_forward=1",
        "--name", lab.container(ROUTER), "--hostname", ROUTER, *labels(lab.name),
        *(part for attachment in attachments for part in ("--network", attachment)),
        image.ensure(), "sleep", "infinity",
    )  # fmt: skip


def set_routes(lab: Lab, host: Host) -> None:
    """Give a container the routes to the other underlays, at each of its boots; a machine has them from machine.py."""
    lines = [f"ExecStart=/usr/sbin/ip route replace {to} via {via} dev eth1" for to, via in lab.routes(host).items()]
    if not lines:
        return
    unit = ROUTES_UNIT.format(commands="\n".join(lines))
    install = (
        "cat >/etc/systemd/system/lab-routes.service && systemctl daemon-reload && systemctl enable --now lab-routes"
    )
    podman("exec", "--interactive", lab.container(host.name), "sh", "-c", install, stdin=unit)


def prepare(lab: Lab, host: Host, public_key: str) -> str:
    """Wait until the host has booted, let the lab's key in, and return the host's line for known_hosts."""
    if host.virtual:
        return machine.prepare(lab, host)
    container = lab.container(host.name)
    deadline = time.monotonic() + BOOT_SECONDS
    while (state := podman("exec", container, "systemctl", "is-active", "ssh", check=False)) != "active":
        if time.monotonic() > deadline:
            raise LabError(
                f"{host.name}: sshd is {state or 'unknown'} after {BOOT_SECONDS} s: "
                f"look at `podman exec {container} journalctl -b`, then `lab/lab down` and `up`"
            )
        time.sleep(0.3)
    install = "umask 077; mkdir -p /root/.ssh; cat > /root/.ssh/authorized_keys; cat /etc/ssh/ssh_host_ed25519_key.pub"
    host_key = podman("exec", "--interactive", container, "sh", "-c", install, stdin=public_key)
    set_routes(lab, host)
    kind, key = host_key.split()[:2]
    return f"{lab.address(host)} {kind} {key}\n"


def ssh_arguments(lab: Lab, silence_seconds: int) -> list[str]:
    """How Ansible comes to a host, as two lines of YAML: one that says nothing for so long is taken for dead."""
    return [
        "ansible_ssh_common_args: >-",
        f"  -o UserKnownHostsFile='{lab.directory / 'known_hosts'}' -o GlobalKnownHostsFile=/dev/null"
        f" -o StrictHostKeyChecking=yes -o ServerAliveInterval={silence_seconds // 3} -o ServerAliveCountMax=3",
    ]


def render_inventory(lab: Lab) -> str:
    """The Ansible inventory of the lab as YAML."""
    lines = [
        "# Written by lab/lab up; do not edit.",
        "all:",
        "  vars:",
        "    ansible_user: root",
        "    ansible_python_interpreter: /usr/bin/python3",
        f"    ansible_ssh_private_key_file: {json.dumps(str(lab.directory / 'id_ed25519'))}",
        *(f"    {line}" for line in ssh_arguments(lab, 15)),
        "    qnet_underlay_interface: eth1",
        f"    certificates_ca_directory: {json.dumps(str(lab.directory / 'ca'))}",
        "  children:",
    ]
    for group in ("controllers", "switches"):
        lines += [f"    {group}:", "      hosts:"]
        for host in lab.hosts:
            if host.group == group:
                lines += [f"        {host.name}:", f"          ansible_host: {lab.address(host)}"]
                if host.virtual:  # its processor is emulated, and on a busy machine it needs long to answer
                    lines += [f"          {line}" for line in ssh_arguments(lab, machine.PATIENCE_SECONDS)]
                    lines.append(f"          ansible_timeout: {machine.PATIENCE_SECONDS}")
    return "\n".join(lines) + "\n"


def each(action: Callable[[Host], str | None], hosts: list[Host]) -> list[str | None]:
    """Run `action` for all hosts, a few at a time; the first failure is raised."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=4) as pool:
        return list(pool.map(action, hosts))


def up(name: str) -> None:
    """Bring the lab up, or repair it. Takes seconds when it is up already."""
    began = time.monotonic()
    install_missing_packages()
    refuse_foreign(name)
    lab, have = wanted(name), containers(name)
    new = [host for host in lab.hosts if host.name not in have]
    require_room(sum(machine.MEBIBYTES if host.virtual else MEBIBYTES_PER_HOST for host in new))
    allow_inotify()
    allow_longer_queues()
    for host in new:  # before the hosts are started side by side
        machine.ensure(host.release) if host.virtual else image.ensure(host.release)
    lab.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    (lab.directory / "lab.json").write_text(json.dumps(dataclasses.asdict(lab), indent=2) + "\n", encoding="utf-8")
    public_key = ensure_key(lab)
    ensure_networks(lab)
    surplus = sorted(set(have) - {host.name for host in lab.hosts} - ({ROUTER} if lab.underlays > 1 else set()))
    if surplus:
        say(f"removing {' '.join(surplus)}")
        podman("rm", "--force", "--time", "0", *(lab.container(host) for host in surplus))
    if any(have.get(host.name, {}).get("state") != "running" for host in lab.hosts):
        say(f"starting {len(lab.hosts)} hosts: {' '.join(host.name for host in lab.hosts)}")
    if lab.underlays > 1:
        start_router(lab, have.get(ROUTER, {}).get("state"))
    words = labels(name)
    if lab.virtual:  # labs without emulated processors do well without a group of their own
        words += ensure_group(name, len(lab.hosts) - lab.virtual, lab.virtual)
    each(lambda host: start(lab, host, have.get(host.name, {}).get("state"), words, public_key), lab.hosts)
    forbid_reflection(lab)
    known = each(lambda host: prepare(lab, host, public_key), lab.hosts)
    (lab.directory / "known_hosts").write_text("".join(line or "" for line in known), encoding="utf-8")
    inventory = lab.directory / "hosts.yml"
    inventory.write_text(render_inventory(lab), encoding="utf-8")
    say(f"{name} is up with {len(lab.hosts)} hosts in {time.monotonic() - began:.0f} s: {inventory.relative_to(ROOT)}")


def leftovers(name: str) -> list[str]:
    """Everything of the lab that still exists, in words."""
    networks = podman("network", "ls", "--format", "{{.Name}}", "--filter", f"label=qnet.lab={name}").splitlines()
    found = [f"container {name}-{host}" for host in containers(name)] + [f"network {network}" for network in networks]
    found += [f"control group {group}" for group in GROUPS.glob(f"*/{group_of(name)}")]
    return found + ([f"directory {state_directory(name)}"] if state_directory(name).exists() else [])


def down(name: str, everything: bool) -> None:
    """Remove all that `up` made, and check it; `everything` also removes the image shared by all labs."""
    if shutil.which("podman") is None:
        return
    refuse_foreign(name)
    running = [f"{name}-{host}" for host in containers(name)]
    if running:
        say(f"removing {len(running)} hosts")
        podman("rm", "--force", "--time", "0", "--volumes", *running)
    for network in podman("network", "ls", "--format", "{{.Name}}", "--filter", f"label=qnet.lab={name}").splitlines():
        podman("network", "rm", network)
    remove_group(name)
    shutil.rmtree(state_directory(name), ignore_errors=True)
    left = leftovers(name)
    using = podman("ps", "--all", "--format", '{{index .Labels "qnet.lab"}}', "--filter", "label=qnet.lab")
    others = sorted(set(using.split()))
    if everything and not others:
        machine.remove()
        image.remove()
        left += [f"image {line}" for line in podman("image", "ls", "--quiet", image.REPOSITORY).splitlines()]
    if left:
        raise LabError(f"still there after down: {', '.join(left)}: remove by hand and report this")
    about_image = f", the image stays for {', '.join(others)}" if others else ", image included"
    say(f"{name} is down, nothing of it is left" + (about_image if everything else ""))


def status(name: str) -> int:
    """Print one line per host; return 0 when all that should run runs and answers over SSH."""
    lab, have = load(name), containers(name)
    if lab is None or not have:
        say(f"{name} is down")
        return 3
    healthy = True
    for host in lab.hosts:
        state = have.get(host.name, {}).get("state", "missing")
        answers = state == "running" and ssh_answers(lab, host)
        healthy = healthy and answers
        ssh = "ssh ok" if answers else "no ssh"
        print(f"{host.name:<5} {host.group:<12} {state:<9} {ssh:<7} {lab.address(host):<15} {lab.address(host, 1)}")
    return 0 if healthy else 1


def ssh_answers(lab: Lab, host: Host) -> bool:
    """Whether the host lets the lab's key in, as Ansible would come."""
    argv = machine.ssh(lab, host, lab.directory / "known_hosts", "true")
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def execute(name: str, host: str, command: list[str]) -> int:
    """Run a command on a host, with this terminal; return its exit status."""
    if host not in containers(name):
        raise LabError(f"{name} has no host {host}: see `lab/lab status`")
    terminal = os.isatty(0)
    lab = load(name)
    virtual = [found for found in lab.hosts if found.virtual and found.name == host] if lab else []
    if lab and virtual:
        argv = machine.ssh(lab, virtual[0], lab.directory / "known_hosts", shlex.join(command))
        argv[1:1] = ["-t"] if terminal else []
    else:
        argv = ["podman", "exec", *(["--tty"] if terminal else []), "--interactive", f"{name}-{host}", *command]
    return subprocess.run(argv, check=False).returncode


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="lab",
        description="A fleet of hosts on this machine.",
        epilog=(
            "Environment: QNET_LAB (name, default qnet), QNET_LAB_CONTROLLERS, QNET_LAB_SWITCHES (numbers, default 3), "
            "QNET_LAB_VIRTUAL (number of virtual machines, default 0), QNET_LAB_UNDERLAYS (number of underlay networks "
            "with a router between them, default 1), QNET_LAB_RELEASES (Debian releases that switches have in turn)."
        ),
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="bring the lab up, or repair it")
    downward = commands.add_parser("down", help="remove everything the lab made")
    downward.add_argument("--all", action="store_true", help="also remove the host image that all labs share")
    commands.add_parser("status", help="one line per host; exit status 0 when all are well")
    execution = commands.add_parser("exec", help="run a command on a host")
    execution.add_argument("host")
    execution.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    arguments = parse(argv)
    name = os.environ.get("QNET_LAB", "qnet")
    try:
        if not NAME.fullmatch(name):
            raise LabError(f"QNET_LAB={name}: must be lower-case letters, digits and hyphens, at most 32")
        require_root_on_debian()
        if arguments.command == "up":
            with locked(name):
                up(name)
        elif arguments.command == "down":
            with locked(name):
                down(name, arguments.all)
        elif arguments.command == "status":
            return status(name)
        else:
            return execute(name, arguments.host, arguments.words or ["bash", "-l"])
    except LabError as error:
        say(f"error: {error}")
        return 1
    return 0
