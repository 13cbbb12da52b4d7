# SPDX-License-Identifier: Apache-2.0
"""The image of a lab host: made from the distribution's packages, with the mirror this machine itself uses."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import pathlib
import shlex
import subprocess
import tempfile
import time

from host import ROOT, LabError, os_release, podman, run, say

CACHE = ROOT / ".cache" / "lab"
REPOSITORY = "localhost/qnet-lab"
INSTALLED = (
    "systemd", "systemd-sysv", "dbus", "openssh-server", "python3", "python3-apt",
    "iproute2", "iputils-ping", "procps", "ca-certificates", "openssl",
)  # fmt: skip
# Fetched but not installed: roles install them, as on a real host, without each host loading them again.
FETCHED = (
    "openvswitch-switch", "python3-openvswitch", "python3-netaddr", "python3-venv", "ethtool", "nftables",
    "python3-pil",
)  # fmt: skip
# Units that would act on the machine below, which a host of the lab shares its kernel with, or that hold apt's lock.
MASKED = (
    "systemd-sysctl.service", "systemd-modules-load.service", "getty.target", "console-getty.service",
    "apt-daily.timer", "apt-daily-upgrade.timer",
)  # fmt: skip
SSH_DROP_IN = """\
[Service]
ExecStartPre=
ExecStartPre=/usr/bin/ssh-keygen -A
ExecStartPre=/usr/sbin/sshd -t
"""


def apt_sources(wanted: str) -> str:
    """One-line sources for the release `wanted`, from the places that this machine's apt configuration names.

    Raises LabError when apt knows no source of the running release.
    """
    release = os_release()
    codename, origin = release.get("VERSION_CODENAME", ""), release.get("ID", "").lower()
    listing = ("apt-get", "indextargets", "--format", "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)")
    rows = [line.split("|") for line in run(*listing, "Created-By: Packages").splitlines()]
    if not any(row[3].lower() == origin for row in rows):  # the origin is known only once the lists are there
        say("updating the package lists of this machine")
        run("apt-get", "-q", "update")
        rows = [line.split("|") for line in run(*listing, "Created-By: Packages").splitlines()]
    found = sorted(
        {
            f"deb {uri} {suite.replace(codename, wanted, 1)} {component}"
            for uri, suite, component, source in rows
            if source.lower() == origin and (suite == codename or suite.startswith(f"{codename}-"))
        }
    )
    if not any(f" {wanted} " in line for line in found):
        raise LabError(f"apt has no source of {origin} {codename}: add one to /etc/apt/sources.list.d")
    return "\n".join(found) + "\n"


def apt_proxies() -> str:
    """The machine's apt proxy settings as apt.conf lines, for the hosts of the lab."""
    dump = run("apt-config", "dump").splitlines()
    return "".join(f"{line}\n" for line in dump if line.startswith(("Acquire::http::Proxy", "Acquire::https::Proxy")))


def name_of(release: str, sources: str, proxies: str) -> str:
    """The image's name: the same recipe always has the same name."""
    recipe = pathlib.Path(__file__).read_bytes() + f"{sources}\n{proxies}".encode()
    return f"{REPOSITORY}:{release}-{hashlib.sha256(recipe).hexdigest()[:12]}"


def build(tarball: pathlib.Path, release: str, sources: str, proxies: str) -> None:
    """Make the root file system of a host as a tar file, alone in its directory."""
    masks = " ".join(shlex.quote(unit) for unit in MASKED)
    scratch = tarball.parent
    (scratch / "ssh.conf").write_text(SSH_DROP_IN, encoding="utf-8")
    (scratch / "proxy.conf").write_text(proxies, encoding="utf-8")
    steps = (
        'rm -f "$1"/etc/ssh/ssh_host_*',
        'mkdir -p "$1/etc/systemd/system/ssh.service.d"',
        f'cp {scratch}/ssh.conf "$1/etc/systemd/system/ssh.service.d/hostkeys.conf"',
        f'cp {scratch}/proxy.conf "$1/etc/apt/apt.conf.d/90proxy"',
        f'chroot "$1" systemctl mask {masks}',
        f'chroot "$1" apt-get -qy install --download-only --no-install-recommends {" ".join(FETCHED)}',
    )
    argv = [
        "mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(INSTALLED)}",
        "--skip=cleanup/apt", *(f"--customize-hook={step}" for step in steps),
        release, str(tarball), "-",
    ]  # fmt: skip
    done = subprocess.run(argv, input=sources, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("E:")] or done.stderr.splitlines()
        raise LabError(f"mmdebstrap could not make the image: {' / '.join(lines[-3:])}")


@functools.cache
def ensure(release: str = "") -> str:
    """Build and import the image of a release (default: this machine's) unless podman has it; return its name.

    Safe to run from several labs at once.
    """
    release = release or os_release()["VERSION_CODENAME"]
    sources, proxies = apt_sources(release), apt_proxies()
    name = name_of(release, sources, proxies)
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if podman("image", "ls", "--quiet", name):
            return name
        began = time.monotonic()
        say(f"building the host image of {release} from the distribution's packages (about half a minute)")
        with tempfile.TemporaryDirectory(prefix="qnet-lab-", dir=CACHE) as directory:
            tarball = pathlib.Path(directory) / "host.tar"
            build(tarball, release, sources, proxies)
            say(f"image built in {time.monotonic() - began:.0f} s, importing it into podman")
            podman("import", "--change", "CMD=/sbin/init", str(tarball), name)
    return name


def remove() -> None:
    """Remove every lab image."""
    for image in podman("image", "ls", "--quiet", "--no-trunc", REPOSITORY).splitlines():
        podman("image", "rm", image)
    (CACHE / "lock").unlink(missing_ok=True)
