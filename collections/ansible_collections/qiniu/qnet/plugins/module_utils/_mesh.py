# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: qnet contributors
"""Measure the way from this host to others as tunnels use it: echoes, the largest packet, and the UDP port of VXLAN."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import socket
import statistics
import struct
import time
import typing as t

PORT = 4789
HEARD = pathlib.Path("/run/qnet-mesh.json")
TUNNEL_DEVICE = "vxlan_sys_4789"
ETHERNET_EXPERIMENT, ETH_P_ALL, PACKET_OUTGOING = 0x88B5, 0x0003, 4
MARK = b"qnet-mesh:"
RESERVED_VNI = 0xFFFFFE  # no network may have it, so the frame ends at the admission table
FIRST_ATTEMPTS, FIRST_SECONDS = 3, 2.0
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PROBE = 10, 23, 3  # PMTUDISC_PROBE: set DF, and do not trust what was learnt


@dataclasses.dataclass
class Way:
    """What was measured towards one host. Times are in milliseconds, `loss` is a share of 1, `mtu` that of the path."""

    peer: str
    address: str
    route: str = ""  # the interface, or the error
    sent: int = 0
    answered: int = 0
    latency_milliseconds: float | None = None
    mtu: int | None = None

    @property
    def loss(self) -> float:
        """Share of echoes that did not come back."""
        return 1 - self.answered / self.sent if self.sent else 1.0


def route_to(run: t.Callable[[list[str]], tuple[int, str, str]], address: str, local: str) -> str:
    """The interface that leads to an address, or why there is none."""
    status, out, err = run(["ip", "-json", "route", "get", address, "from", local])
    if status:
        return f"no route: {err.strip()}"
    return str(json.loads(out)[0].get("dev", ""))


class Echo:
    """Echo requests to one address from one of ours."""

    def __init__(self, address: str, local: str) -> None:
        self.six = ":" in address
        family, protocol = (
            (socket.AF_INET6, socket.IPPROTO_ICMPV6) if self.six else (socket.AF_INET, socket.IPPROTO_ICMP)
        )
        self._socket = socket.socket(family, socket.SOCK_RAW, protocol)
        self._socket.bind((local, 0))
        self._socket.connect((address, 0))
        level, option = (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER) if self.six else (socket.IPPROTO_IP, IP_MTU_DISCOVER)
        self._socket.setsockopt(level, option, PROBE)
        self._identifier = int.from_bytes(os.urandom(2), "big")
        self._sequence = 0
        self.headers = 48 if self.six else 28

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def ask(self, size: int, timeout: float) -> float | None:
        """Send a packet of `size` bytes with its IP header; the time to its answer in ms, None without one."""
        self._sequence = (self._sequence + 1) & 0xFFFF
        kind, reply = (128, 129) if self.six else (8, 0)
        header = struct.pack("!BBHHH", kind, 0, 0, self._identifier, self._sequence)
        packet = header + bytes(max(0, size - self.headers))
        if not self.six:
            packet = packet[:2] + struct.pack("!H", checksum(packet)) + packet[4:]
        began = time.monotonic()
        with contextlib.suppress(OSError):
            self._socket.send(packet)
            while (left := began + timeout - time.monotonic()) > 0:
                self._socket.settimeout(left)
                answer = self._socket.recv(65535)
                answer = answer if self.six else answer[(answer[0] & 15) * 4 :]
                if answer[0] == reply and answer[4:8] == header[4:8]:
                    return (time.monotonic() - began) * 1000
        return None


def checksum(data: bytes) -> int:
    """Internet checksum, RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def path_mtu(echo: Echo, largest: int, timeout: float) -> int | None:
    """The largest packet that is answered, up to `largest`; None when not even a small one is."""

    def passes(size: int) -> bool:
        return any(echo.ask(size, timeout) is not None for dummy in range(2))

    if passes(largest):
        return largest
    low, high = 576, largest
    if not passes(low):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if passes(middle) else (low, middle)
    return low


def measure(way: Way, local: str, mtu: int, count: int, timeout: float) -> None:
    """Fill in what echoes tell."""
    echo = Echo(way.address, local)
    try:
        # The first packet may wait for a neighbour to be found, or for a busy switch; that is no loss yet.
        any(echo.ask(64, FIRST_SECONDS) is not None for dummy in range(FIRST_ATTEMPTS))
        times = []
        for dummy in range(count):
            way.sent += 1
            taken = echo.ask(64, timeout)
            if taken is not None:
                times.append(taken)
                time.sleep(0.02)
        way.answered = len(times)
        if times:
            way.latency_milliseconds = round(statistics.median(times), 3)
            way.mtu = path_mtu(echo, mtu, timeout)
    finally:
        echo.close()


def frame(name: str) -> bytes:
    """A VXLAN packet that says who has sent it and means nothing to a switch."""
    ethernet = b"\xff" * 6 + b"\x02" + bytes(5) + struct.pack("!H", ETHERNET_EXPERIMENT)
    return struct.pack("!BBHI", 8, 0, 0, RESERVED_VNI << 8) + ethernet + MARK + name.encode() + b"\n" + bytes(40)


def call(name: str, address: str, local: str, times: int = 5) -> None:
    """Send some VXLAN packets to a host."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.bind((local, 0))
        for dummy in range(times):
            with contextlib.suppress(OSError):
                sender.sendto(frame(name), (address, PORT))
            time.sleep(0.1)


def listening_device(interface: str) -> str:
    """Where a VXLAN packet is seen that Open vSwitch gets: behind the kernel's tunnel, or where user space takes it."""
    return TUNNEL_DEVICE if os.path.exists(f"/sys/class/net/{TUNNEL_DEVICE}") else interface


def listen(device: str, seconds: float, heard: pathlib.Path = HEARD) -> None:
    """Write down in the background who calls, for a time. One at a time: an earlier one is ended."""
    stop(heard)
    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    sniffer.bind((device, 0))
    if os.fork():
        sniffer.close()
        return
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(nothing, number)
        _collect(sniffer, seconds, heard)
    finally:
        os._exit(0)


def _collect(sniffer: socket.socket, seconds: float, heard: pathlib.Path) -> None:
    names: set[str] = set()
    end = time.monotonic() + seconds
    _write(heard, names)
    while (left := end - time.monotonic()) > 0:
        sniffer.settimeout(left)
        with contextlib.suppress(TimeoutError):
            data, where = sniffer.recvfrom(2048)
            at = data.find(MARK)
            if at < 0 or where[2] == PACKET_OUTGOING:
                continue
            name = data[at + len(MARK) :].partition(b"\n")[0].decode(errors="replace")
            if name not in names:
                names.add(name)
                _write(heard, names)


def _write(heard: pathlib.Path, names: set[str]) -> None:
    partial = heard.with_suffix(".new")
    partial.write_text(json.dumps({"process": os.getpid(), "names": sorted(names)}), encoding="utf-8")
    partial.replace(heard)


def stop(heard: pathlib.Path = HEARD) -> list[str]:
    """End listening; who was heard."""
    try:
        found = json.loads(heard.read_text(encoding="utf-8"))
        heard.unlink()
    except (OSError, ValueError):
        return []
    command = pathlib.Path(f"/proc/{found['process']}/cmdline")
    with contextlib.suppress(OSError):
        if b"python" in command.read_bytes():
            os.kill(found["process"], signal.SIGKILL)
    return [str(name) for name in found["names"]]
