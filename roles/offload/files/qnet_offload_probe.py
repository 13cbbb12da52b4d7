#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Prove that tunnels between two hosts carry what is sent: one host serves, the other one asks. Standard library only.

Both make a VXLAN device of the kernel with a number and a UDP port of its own, in a network namespace of its own, so
pods notice nothing but the load. The asking side prints one JSON object: {"passed": bool, "failures": [text, ...],
"streams": [Gbit/s, ...], "gigabits_per_second": n, "cpu_seconds_per_gigabyte": n}.
The last two are of the first stream.

Usage: qnet-offload-probe {serve|ask} --local ADDRESS --remote ADDRESS --number N --mtu BYTES
       [--seconds N] [--software-checksums] [--hasty]
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import functools
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator

UDP_PORT = 14789  # of the outer packets
# As the tunnels of Open vSwitch have it; with checksums outside as well, cards cut segments in another way.
OUTER_CHECKSUMS = ("noudpcsum", "udp6zerocsumtx", "udp6zerocsumrx")
ECHO, SINK, STATISTICS = 5301, 5302, 5303
ETHERNET_EXPERIMENT, ETHERNET_VLAN, ETH_P_ALL = 0x88B5, 0x8100, 3
PATIENCE_SECONDS = 3.0  # without progress for so long a stream counts as stalled
CHUNK = bytes(range(256)) * 1024
CLONE_NEWNET, IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, UDP_SEGMENT = 0x40000000, 10, 23, 103
COUNTERS = (("Tcp", "InCsumErrors"), ("Udp", "InCsumErrors"))


def run(*argv: str, check: bool = True) -> None:
    """Run a command; its error ends the program."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if check and done.returncode:
        sys.exit(f"qnet-offload-probe: `{' '.join(argv)}` failed: {done.stderr.strip()}")


@contextlib.contextmanager
def tunnel(options: argparse.Namespace) -> Iterator[str]:
    """This process in a namespace with one end of the tunnel, `tunnel`, as long as the block runs; gives its name."""
    first = options.verb == "serve"
    device, namespace = f"qnp{options.number}", f"qnet-probe-{options.verb}-{options.number}"
    run("ip", "netns", "delete", namespace, check=False)
    run("ip", "link", "delete", device, check=False)
    run("ip", "netns", "add", namespace)
    try:
        ends = ("local", options.local, "remote", options.remote, "dstport", str(UDP_PORT), *OUTER_CHECKSUMS)
        run("ip", "link", "add", device, "type", "vxlan", "id", str(0xFF0000 + options.number), *ends)
        run("ip", "link", "set", device, "netns", namespace)
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/run/netns/{namespace}", encoding="ascii") as handle:
            if libc.setns(handle.fileno(), CLONE_NEWNET):
                sys.exit(f"qnet-offload-probe: cannot enter {namespace}: {os.strerror(ctypes.get_errno())}")
        run("ip", "link", "set", "lo", "up")
        if first or options.software_checksums:  # what answers come with is for the other host's own trial
            run("ethtool", "-K", device, "tx-checksum-ip-generic", "off")
        run("ip", "link", "set", device, "name", "tunnel", "mtu", str(options.mtu), "up")
        for address in addresses(first):
            nodad = ("nodad",) if ":" in address else ()
            run("ip", "address", "add", address, "dev", "tunnel", *nodad)
        yield "tunnel"
    finally:
        run("ip", "link", "delete", "tunnel", check=False)  # the namespace goes later, when its last socket has
        run("ip", "netns", "delete", namespace, check=False)


def addresses(first: bool) -> tuple[str, str]:
    """IPv4 and IPv6 of one end inside the tunnel; nobody else sees them."""
    last = 1 if first else 2
    return f"198.18.0.{last}/24", f"fd00:198:18::{last}/64"


def wrong_checksums() -> int:
    """Packets of this namespace that came with a wrong checksum."""
    total = 0
    with open("/proc/thread-self/net/snmp", encoding="ascii") as table:
        lines = [line.split() for line in table]
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        row = dict(zip(names, values, strict=True))
        total += sum(int(row.get(name, 0)) for kind, name in COUNTERS if names[0] == f"{kind}:")
    with open("/proc/thread-self/net/snmp6", encoding="ascii") as table:
        rows = dict(line.split() for line in table)
    return total + int(rows.get("Udp6InCsumErrors", 0))


def cpu_seconds() -> float:
    """CPU time of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


# -- the serving side ------------------------------------------------------------------------------------------------


class Tagged:
    """Counts frames with a VLAN tag, which the receiving kernel may already have taken off."""

    def __init__(self, device: str) -> None:
        self.seen = 0
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._socket.bind((device, 0))

    def count(self) -> None:
        """Count until the tunnel goes."""
        with contextlib.suppress(OSError):
            while True:
                frame, where = self._socket.recvfrom(65535)
                kind = int.from_bytes(frame[12:14], "big")
                if where[2] != 4 and kind in (ETHERNET_EXPERIMENT, ETHERNET_VLAN):
                    self.seen += frame.endswith(b"qnet-tagged")


def echo() -> None:
    """Send every datagram back."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
        server.bind(("::", ECHO))
        while True:
            data, peer = server.recvfrom(65535)
            with contextlib.suppress(OSError):
                server.sendto(data, peer)


def swallow(connection: socket.socket) -> None:
    """Read a stream to its end, and answer with what came."""
    before, total, digest, longest, last = cpu_seconds(), 0, 0, 0.0, time.monotonic()
    connection.settimeout(30)
    with connection, contextlib.suppress(OSError):
        while data := connection.recv(1 << 18):
            now = time.monotonic()
            longest, last = max(longest, now - last), now
            total, digest = total + len(data), zlib.crc32(data, digest)
        answer = {"bytes": total, "crc": digest, "longest": longest, "cpu": cpu_seconds() - before}
        connection.sendall(json.dumps(answer).encode())


def serve(device: str) -> None:
    """Serve until told to end."""
    tagged = Tagged(device)

    def statistics(connection: socket.socket) -> None:
        with connection:
            connection.sendall(json.dumps({"wrong": wrong_checksums(), "tagged": tagged.seen}).encode())

    def accept(port: int, talk: object) -> None:
        assert callable(talk)
        with socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) as server:
            while True:
                connection, _ = server.accept()
                threading.Thread(target=talk, args=(connection,), daemon=True).start()

    for work in (tagged.count, echo, lambda: accept(SINK, swallow), lambda: accept(STATISTICS, statistics)):
        threading.Thread(target=work, daemon=True).start()
    print("ready", flush=True)
    signal.pause()


# -- the asking side -------------------------------------------------------------------------------------------------


def statistics_of(address: str, seconds: float = 5.0) -> dict[str, int]:
    """What the serving side has counted."""
    with socket.create_connection((address, STATISTICS), seconds) as connection:
        found: dict[str, int] = json.loads(connection.makefile().read())
    return found


def wait_for(address: str, seconds: float) -> bool:
    """Wait until the serving side answers."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        with contextlib.suppress(OSError, ValueError):
            statistics_of(address, left)
            return True
        time.sleep(min(left, 0.3))
    return False


def kind_of(address: str) -> str:
    """The name of the kind of address."""
    return "IPv6" if ":" in address else "IPv4"


def stream(address: str, seconds: float) -> tuple[list[str], dict[str, float]]:
    """Send for a time; what went wrong, and what it cost."""
    kind = kind_of(address)
    sent, digest, longest, before, began = 0, 0, 0.0, cpu_seconds(), time.monotonic()
    try:
        with socket.create_connection((address, SINK), PATIENCE_SECONDS) as connection:
            connection.settimeout(PATIENCE_SECONDS)
            while time.monotonic() - began < seconds:
                step = time.monotonic()
                connection.sendall(CHUNK)
                longest = max(longest, time.monotonic() - step)
                sent, digest = sent + len(CHUNK), zlib.crc32(CHUNK, digest)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(seconds + PATIENCE_SECONDS)
            there = json.loads(connection.makefile().read())
    except (OSError, ValueError) as error:
        moved = f"after {sent} bytes" if sent else "before anything arrived"
        return [f"a TCP stream over {kind} stalled {moved}: {error or type(error).__name__}"], {}
    took = time.monotonic() - began
    faults = []
    if (there["bytes"], there["crc"]) != (sent, digest):
        faults.append(f"a TCP stream over {kind} arrived changed: {there['bytes']} of {sent} bytes")
    if max(longest, there["longest"]) > PATIENCE_SECONDS:
        faults.append(f"a TCP stream over {kind} stood still for {max(longest, there['longest']):.1f} s")
    cpu = cpu_seconds() - before + there["cpu"]
    return faults, {"gigabits_per_second": sent * 8 / took / 1e9, "cpu_seconds_per_gigabyte": cpu / (sent / 1e9)}


def datagrams(address: str, mtu: int) -> list[str]:
    """Datagrams of every size that matters come back: small, just as large as fits, in fragments."""
    six = ":" in address
    headers, faults = (48 if six else 28), []
    with socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(1.0)
        client.connect((address, ECHO))
        level, option = (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER) if six else (socket.IPPROTO_IP, IP_MTU_DISCOVER)
        for name, size, fragments in (("small", 64, 2), ("full-size", mtu - headers, 2), ("fragmented", 3000, 0)):
            client.setsockopt(level, option, fragments)
            if not any(answered(client, os.urandom(size)) for _ in range(3)):
                faults.append(f"a {name} datagram of {size} bytes over {kind_of(address)} did not come back")
        client.setsockopt(level, option, 2)
        try:
            client.send(bytes(mtu - headers + 1))
            faults.append(f"a datagram larger than the MTU of {mtu} was not refused")
        except OSError:
            pass
    return faults


def answered(client: socket.socket, data: bytes) -> bool:
    """Whether a datagram comes back as it was."""
    try:
        client.send(data)
        return client.recv(65535) == data
    except OSError:
        return False


def pieces(address: str, mtu: int) -> list[str]:
    """What is handed over at once, and cut into datagrams by kernel or card (as QUIC has it), comes back in pieces."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    size, missing = min(1000, mtu - 48), {b""}
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(1.0)
        client.connect((address, ECHO))
        for _ in range(3):
            data = os.urandom(10 * size + 300)
            missing = {data[start : start + size] for start in range(0, len(data), size)}
            try:
                client.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
                client.send(data)
                while missing:
                    missing.discard(client.recv(65535))
            except TimeoutError:
                continue
            except OSError as error:
                if error.errno in (errno.EIO, errno.ENOPROTOOPT):
                    return []  # before Linux 6.11 nothing is cut whose checksum the kernel completes
                return [f"datagrams that are cut from one over {kind_of(address)} were refused: {error}"]
            break
    if not missing:
        return []
    return [f"{len(missing)} of 11 datagrams that were cut from one over {kind_of(address)} did not come back"]


def tagged(device: str, address: str) -> list[str]:
    """Frames with a VLAN tag arrive."""
    before = statistics_of(address)["tagged"]
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as client:
        client.bind((device, 0))
        own = client.getsockname()[4]  # /sys shows the interfaces of the namespace that this process began in
        header = b"\xff" * 6 + own + struct.pack("!HHH", ETHERNET_VLAN, 42, ETHERNET_EXPERIMENT)
        for _ in range(5):
            client.send(header + bytes(60) + b"qnet-tagged")
    end = time.monotonic() + 2
    while time.monotonic() < end:
        if statistics_of(address)["tagged"] > before:
            return []
        time.sleep(0.1)
    return ["frames with a VLAN tag do not arrive"]


def ask(device: str, options: argparse.Namespace) -> dict[str, object]:
    """Try everything, or up to the first fault; the result as printed."""
    there = [address.partition("/")[0] for address in addresses(first=True)]
    if not wait_for(there[0], PATIENCE_SECONDS if options.hasty else 10):
        return {"passed": False, "failures": ["no answer through the tunnel at all: see the mesh report"]}
    faults: list[str] = []
    cost: dict[str, float] = {}
    rates: list[float] = []

    def streams(address: str) -> list[str]:
        found, measured = stream(address, options.seconds)
        cost.update(measured if not cost else {})
        rates.extend(round(rate, 3) for name, rate in measured.items() if name == "gigabits_per_second")
        return found

    def counted() -> list[str]:
        wrong = statistics_of(there[0])["wrong"] - before[0], wrong_checksums() - before[1]
        sides = zip(wrong, ("the other host", "this host"), strict=True)
        return [f"{count} packets reached {side} with a wrong checksum" for count, side in sides if count]

    before = statistics_of(there[0])["wrong"], wrong_checksums()
    trials: list[Callable[[], list[str]]] = []
    for address in there:
        trials += [functools.partial(streams, address)]
        trials += [functools.partial(trial, address, options.mtu) for trial in (datagrams, pieces)]
    for trial in (*trials, functools.partial(tagged, device, there[0]), counted):
        try:
            faults += trial()
        except (OSError, ValueError) as error:
            faults.append(f"no answer through the tunnel any more: {error or type(error).__name__}")
        if faults and options.hasty:
            break
    rounded = {key: round(value, 3) for key, value in cost.items()}
    return {"passed": not faults, "failures": faults, "streams": rates, **rounded}


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("verb", choices=["serve", "ask"])
    parser.add_argument("--local", required=True)
    parser.add_argument("--remote", required=True)
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--mtu", type=int, required=True)
    parser.add_argument("--software-checksums", action="store_true", help="leave no checksum to the card")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--hasty", action="store_true", help="end at the first fault: pods have it as well")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tunnel(options) as device:
        if options.verb == "serve":
            serve(device)
        else:
            print(json.dumps(ask(device, options)))


if __name__ == "__main__":
    main()
