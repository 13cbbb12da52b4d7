# SPDX-License-Identifier: Apache-2.0
"""Real parts for tests: a CA, Open vSwitch 3.1 (userspace datapath), ovsdb-server with the QNet schema.

Everything lives in a directory of its own and in the network namespace of the test process, and ends with the test.
"""

from __future__ import annotations

import ctypes
import datetime
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

REPOSITORY = Path(__file__).resolve().parents[3]
QNET_SCHEMA = REPOSITORY / "schemas" / "qnet.ovsschema"
VSWITCH_SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
CLONE_NEWNET = 0x40000000


def own_network() -> Callable[[], None]:
    """Move this thread, and what it starts, into a network namespace of its own; returns the way back."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    if libc.unshare(CLONE_NEWNET):
        raise PermissionError(ctypes.get_errno(), "the contract tests need root for a network namespace of their own")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    # The kernel would ask for routers and report its groups at every port of a switch, and be counted as spoofing.
    subprocess.run(["sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1"], check=True)

    def back() -> None:
        libc.setns(before, CLONE_NEWNET)
        os.close(before)

    return back


class Authority:
    """A CA that writes `ca.pem` and, per name, `<name>.pem` and `<name>.key`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"test CA {directory.name}")])
        certificate = self._build(self._name, self._key.public_key(), ca=True)
        self.ca = directory / "ca.pem"
        self.ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _build(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, ca: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        return builder.sign(self._key, hashes.SHA256())

    def issue(self, name: str) -> tuple[Path, Path]:
        """Certificate and key of `name`."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate, private = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        certificate.write_bytes(
            self._build(subject, key.public_key(), ca=False).public_bytes(serialization.Encoding.PEM)
        )
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate, private


def run(*command: str | Path) -> str:
    """The output of a command that must succeed within 10 s."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=10)
    if done.returncode:
        raise AssertionError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout


@contextmanager
def daemon(*command: str | Path, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of Open vSwitch that keeps its sockets in `directory` and is ended with the block."""
    process = subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {f"OVS_{kind}DIR": str(directory) for kind in ("RUN", "DB", "LOG")},
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(what: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until `what` is true (for processes, which cannot be awaited)."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            raise AssertionError(f"did not happen within {seconds} s: {what}")
        time.sleep(0.02)


class Database:
    """An ovsdb-server; `execute` runs one transaction of RFC 7047 operations."""

    def __init__(self, directory: Path, name: str) -> None:
        self.socket = directory / f"{name}.sock"
        self.name = name

    def execute(self, *operations: dict[str, object]) -> list[dict[str, object]]:
        """Run operations; every one of them must succeed."""
        text = run("ovsdb-client", "transact", f"unix:{self.socket}", json.dumps([self.name, *operations]))
        results: list[dict[str, object]] = json.loads(text)
        broken = [result for result in results if result and "error" in result]
        if broken:
            raise AssertionError(f"{broken} for {operations}")
        return results


@contextmanager
def database(directory: Path, name: str, schema: Path, *options: str) -> Iterator[Database]:
    """A private ovsdb-server with one database."""
    file, served = directory / f"{name}.db", Database(directory, name)
    if not file.exists():
        run("ovsdb-tool", "create", file, schema)
    control = directory / f"{name}.ctl"
    with daemon(
        "ovsdb-server", file, f"--remote=punix:{served.socket}", f"--unixctl={control}",
        f"--log-file={directory / name}.log", "-vconsole:off", *options, directory=directory,
    ):  # fmt: skip
        wait_for(served.socket.exists)
        yield served


class Vswitch:
    """A private Open vSwitch with one bridge."""

    def __init__(self, directory: Path, bridge: str) -> None:
        self.directory = directory
        self.bridge = bridge
        self.socket = directory / "Open_vSwitch.sock"

    def vsctl(self, *arguments: str) -> str:
        """ovs-vsctl."""
        return run("ovs-vsctl", f"--db=unix:{self.socket}", "--timeout=8", *arguments).strip()

    def ofctl(self, command: str, *arguments: str) -> str:
        """ovs-ofctl over the management socket of the bridge."""
        target = f"unix:{self.directory / self.bridge}.mgmt"
        return run("ovs-ofctl", "-OOpenFlow15", command, target, *arguments)

    def flows(self) -> list[str]:
        """The flows, one a line."""
        return [line.strip() for line in self.ofctl("dump-flows").splitlines() if "cookie=" in line]

    def appctl(self, *arguments: str) -> str:
        """ovs-appctl on ovs-vswitchd."""
        return run("ovs-appctl", "-t", self.directory / "vswitchd.ctl", *arguments)


@contextmanager
def vswitch(directory: Path, bridge: str, datapath_id: int) -> Iterator[Vswitch]:
    """A private Open vSwitch whose one bridge speaks OpenFlow 1.5 and waits for a controller (`fail_mode=secure`)."""
    directory.mkdir(exist_ok=True)
    switch = Vswitch(directory, bridge)
    with (
        database(directory, "Open_vSwitch", VSWITCH_SCHEMA, "--private-key=db:Open_vSwitch,SSL,private_key"),
        daemon(
            "ovs-vswitchd", f"unix:{switch.socket}", f"--unixctl={directory / 'vswitchd.ctl'}",
            f"--log-file={directory / 'vswitchd.log'}", f"--pidfile={directory / 'vswitchd.pid'}", "-vconsole:off",
            directory=directory,
        ),
    ):  # fmt: skip
        switch.vsctl("--no-wait", "init")
        switch.vsctl(
            "add-br", bridge, "--", "set", "bridge", bridge, "datapath_type=netdev", "protocols=OpenFlow15",
            "fail_mode=secure", f"other_config:datapath-id={datapath_id:016x}", "other_config:disable-in-band=true",
        )  # fmt: skip
        yield switch
        switch.vsctl("del-br", bridge)
