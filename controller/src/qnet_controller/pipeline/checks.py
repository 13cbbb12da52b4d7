# SPDX-License-Identifier: Apache-2.0
"""Health checks as packets: what to send into a backend's port, and what its answers mean.

Pure: no I/O, no clock. The controller is the peer of these tiny exchanges under the gateway's address and the virtual
MAC, which the pod can always answer. TCP: SYN, and the connection is reset as soon as it is known to be accepted. HTTP:
the request travels with the acknowledgement, the status line is read from what comes back, then reset. Nothing is
sent twice: what is lost counts as a failure, which is what thresholds are for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..model.objects import Address, HealthCheck, Network, Pod
from .fields import (
    ETH_DST,
    ETH_SRC,
    ETH_TYPE,
    ETH_TYPE_IPV4,
    ICMPV4_TYPE,
    IN_PORT,
    IP_PROTO,
    IPV4_DST,
    IPV4_SRC,
    TCP_SRC,
    Bits,
    Field,
)
from .frame import VIRTUAL_MAC
from .messages import Feature, Flow, ToController, UseMeter, flow, match
from .tables import Table

ICMP, TCP = 1, 6
_ECHO_REQUEST, _ECHO_REPLY = 8, 0
_FIN, _SYN, _RST, _PSH, _ACK = 1, 2, 4, 8, 16
_WINDOW = 4096
_HTTP_WELL = range(200, 400)
_STATUS_LINE = len(b"HTTP/1.1 200")

_IP_HEADER = struct.Struct("!BBHHHBBH4s4s")
_TCP_HEADER = struct.Struct("!HHIIBBHHH")
_ECHO = struct.Struct("!BBHHH")


@dataclass(frozen=True, slots=True)
class Result:
    """How a check ended; `text` says it in words."""

    well: bool
    text: str


@dataclass(frozen=True, slots=True)
class Target:
    """A backend to be checked: its addresses, and the address that the check comes from."""

    mac: bytes
    address: Address
    gateway: Address


def target_of(pod: Pod, network: Network) -> Target | None:
    """Where to send checks of a pod; None when it has no address of a kind that can be checked."""
    for address in pod.addresses:
        for subnet in network.pod_subnets:
            if len(address) == 4 and address in subnet:
                gateway = int.from_bytes(subnet.address, "big") + 1
                return Target(pod.mac, address, gateway.to_bytes(4, "big"))
    return None


def answer_flow(pod: Pod, port: int, target: Target, check: HealthCheck) -> Flow:
    """Bring the pod's answers to the controller, before its own traffic is looked at; within the pod's meter."""
    terms: list[tuple[Field | Bits, int]] = [
        (IN_PORT, port), (ETH_SRC, int.from_bytes(pod.mac, "big")), (ETH_DST, VIRTUAL_MAC), (ETH_TYPE, ETH_TYPE_IPV4),
        (IPV4_SRC, int.from_bytes(target.address, "big")), (IPV4_DST, int.from_bytes(target.gateway, "big")),
    ]  # fmt: skip
    if check.kind == "icmp":
        terms += [(IP_PROTO, ICMP), (ICMPV4_TYPE, _ECHO_REPLY)]
    else:
        terms += [(IP_PROTO, TCP), (TCP_SRC, check.port)]
    then = (UseMeter(port), ToController())
    return flow(Table.ADMISSION, 205, match(*terms), then, Feature.HEALTH, f"pod {pod.key}")


@dataclass(slots=True)
class Exchange:
    """One check under way. `mark` tells it from others: its TCP port or ICMP identifier, and its sequence number."""

    check: HealthCheck
    target: Target
    mark: int
    sequence: int
    result: Result | None = None
    _expected: int | None = field(default=None, init=False)
    _received: bytes = field(default=b"", init=False)

    def begin(self) -> bytes:
        """The first packet."""
        if self.check.kind == "icmp":
            body = _ECHO.pack(_ECHO_REQUEST, 0, 0, self.mark, self.sequence & 0xFFFF)
            body = body[:2] + _checksum(body).to_bytes(2, "big") + body[4:]
            return self._frame(ICMP, body)
        return self._segment(self.sequence, 0, _SYN)

    def take(self, data: bytes) -> Iterator[bytes]:
        """Take a packet of the pod; yields what to send back. `result` is set when the check is over."""
        body = _payload(data)
        if body is None or self.result is not None:
            return
        if self.check.kind == "icmp":
            if len(body[1]) >= _ECHO.size and body[0] == ICMP:
                self._take_echo(body[1])
        elif body[0] == TCP and len(body[1]) >= _TCP_HEADER.size:
            yield from self._take_segment(body[1])

    def _take_echo(self, body: bytes) -> None:
        kind, _, _, identifier, number = _ECHO.unpack_from(body)
        if (kind, identifier, number) == (_ECHO_REPLY, self.mark, self.sequence & 0xFFFF):
            self.result = Result(True, "answers echo requests")

    def _take_segment(self, body: bytes) -> Iterator[bytes]:
        _, target_port, number, acknowledged, offset, flags, *_ = _TCP_HEADER.unpack_from(body)
        if target_port != self.mark:
            return
        ours = self.sequence + 1 & 0xFFFFFFFF
        if flags & _RST:
            self.result = Result(False, "refuses connections" if self._expected is None else "resets the connection")
        elif flags & _SYN and flags & _ACK and acknowledged == ours and self._expected is None:
            self._expected = number + 1 & 0xFFFFFFFF
            if self.check.kind == "tcp":
                self.result = Result(True, "accepts connections")
                yield self._segment(ours, self._expected, _RST | _ACK)
            else:
                yield self._segment(ours, self._expected, _PSH | _ACK, self._request())
        elif self._expected is not None:
            payload = body[(offset >> 4) * 4 :]
            if number == self._expected and payload:
                self._received += payload
                self._expected = number + len(payload) & 0xFFFFFFFF
            self.result = self._read_status(over=bool(flags & _FIN))
            if self.result is not None:
                yield self._segment(acknowledged, self._expected, _RST | _ACK)

    def _read_status(self, *, over: bool) -> Result | None:
        line = self._received[:_STATUS_LINE]
        if len(line) < _STATUS_LINE:
            return Result(False, "ends the connection without an answer") if over else None
        version, _, code = line.partition(b" ")
        if not version.startswith(b"HTTP/") or not code.isdigit():
            return Result(False, "does not answer in HTTP")
        return Result(int(code) in _HTTP_WELL, f"answers with HTTP status {int(code)}")

    def _request(self) -> bytes:
        host = ".".join(map(str, self.target.address))
        lines = (f"GET {self.check.path} HTTP/1.1", f"Host: {host}", "User-Agent: qnet-health", "Connection: close")
        return "\r\n".join((*lines, "", "")).encode()

    def _segment(self, number: int, acknowledged: int, flags: int, payload: bytes = b"") -> bytes:
        head = _TCP_HEADER.pack(self.mark, self.check.port, number, acknowledged, 5 << 4, flags, _WINDOW, 0, 0)
        pseudo = self.target.gateway + self.target.address + struct.pack("!BBH", 0, TCP, len(head) + len(payload))
        total = _checksum(pseudo + head + payload)
        return self._frame(TCP, head[:16] + total.to_bytes(2, "big") + head[18:] + payload)

    def _frame(self, protocol: int, body: bytes) -> bytes:
        target = self.target
        length = _IP_HEADER.size + len(body)
        parts = (0x45, 0, length, 0, 0x4000, 64, protocol)
        total = _checksum(_IP_HEADER.pack(*parts, 0, target.gateway, target.address))
        header = _IP_HEADER.pack(*parts, total, target.gateway, target.address)
        ethernet = target.mac + VIRTUAL_MAC.to_bytes(6, "big") + ETH_TYPE_IPV4.to_bytes(2, "big")
        return ethernet + header + body


def mark_of(data: bytes) -> int | None:
    """Which exchange a packet of a pod belongs to, as its `mark`."""
    body = _payload(data)
    if body is None:
        return None
    protocol, content = body
    at = {TCP: 2, ICMP: 4}.get(protocol)
    return None if at is None or len(content) < at + 2 else int.from_bytes(content[at : at + 2], "big")


def _payload(data: bytes) -> tuple[int, bytes] | None:
    """Protocol and content of an IPv4 packet in a frame, without the frame's padding."""
    if len(data) < 14 + _IP_HEADER.size or data[12:14] != b"\x08\x00" or data[14] >> 4 != 4:
        return None
    start = 14 + (data[14] & 0x0F) * 4
    return data[23], data[start : 14 + int.from_bytes(data[16:18], "big")]


def _checksum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
