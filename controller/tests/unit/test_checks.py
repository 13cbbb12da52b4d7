# SPDX-License-Identifier: Apache-2.0
"""Health checks packet by packet: what a pod may answer, and what follows from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnet_controller.model import objects as o
from qnet_controller.pipeline.checks import Exchange, Target, mark_of, target_of
from simulator import packets as p

POD, GATEWAY = 0x0A0A0005, 0x0A0A0001
MARK, SEQUENCE, THEIRS = 40000, 0xFFFFFFFF, 7000
TARGET = Target(b"\2\0\0\0\0\5", POD.to_bytes(4, "big"), GATEWAY.to_bytes(4, "big"))
OURS = (SEQUENCE + 1) & 0xFFFFFFFF


def exchange(kind: str) -> tuple[Exchange, p.Packet]:
    """A check that has begun, and its first packet."""
    check = o.HealthCheck(kind, 0 if kind == "icmp" else 8080, "/well")
    begun = Exchange(check, TARGET, MARK, SEQUENCE)
    return begun, p.decode(begun.begin())


def segment(flags: int, payload: bytes = b"", number: int = THEIRS, acknowledged: int = OURS) -> bytes:
    """A frame of the pod; what the simulator's packets leave out is written in."""
    frame = bytearray(p.tcp(POD, 8080, GATEWAY, MARK, flags, payload).encode())
    frame[38:46] = number.to_bytes(4, "big") + acknowledged.to_bytes(4, "big")
    return bytes(frame)


def test_a_check_comes_from_the_gateway_and_its_virtual_mac() -> None:
    for kind in ("tcp", "http", "icmp"):
        _, packet = exchange(kind)
        assert (packet.source, packet.target, packet.eth_src) == (GATEWAY, POD, 0x0A0000000001)
        assert packet.eth_dst == int.from_bytes(TARGET.mac, "big")


def test_an_accepted_connection_is_reset_at_once() -> None:
    begun, first = exchange("tcp")
    assert (first.tcp_flags, first.src_port, first.dst_port) == (p.SYN, MARK, 8080)
    (answer,) = map(p.decode, begun.take(segment(p.SYN | p.ACK)))
    assert answer.tcp_flags & 4
    assert begun.result
    assert begun.result.well


@pytest.mark.parametrize("kind", ["tcp", "http"])
def test_a_refused_connection_fails_at_once(kind: str) -> None:
    begun, _ = exchange(kind)
    assert not list(begun.take(segment(4 | p.ACK, number=0)))
    assert begun.result
    assert (begun.result.well, begun.result.text) == (False, "refuses connections")


def test_what_acknowledges_something_else_is_no_answer() -> None:
    begun, _ = exchange("tcp")
    assert not list(begun.take(segment(p.SYN | p.ACK, acknowledged=OURS + 1)))
    assert begun.result is None


@pytest.mark.parametrize(
    ("said", "well", "text"),
    [
        (b"HTTP/1.1 200 OK\r\n", True, "answers with HTTP status 200"),
        (b"HTTP/1.0 302 Found\r\n", True, "answers with HTTP status 302"),
        (b"HTTP/1.1 503 Busy\r\n", False, "answers with HTTP status 503"),
        (b"SSH-2.0-OpenSSH_9", False, "does not answer in HTTP"),
    ],
)
def test_http_is_judged_by_its_status_line(said: bytes, well: bool, text: str) -> None:
    begun, _ = exchange("http")
    (request,) = map(p.decode, begun.take(segment(p.SYN | p.ACK)))
    assert request.payload.startswith(b"GET /well HTTP/1.1\r\nHost: 10.10.0.5\r\n")
    assert not list(begun.take(segment(p.ACK, number=THEIRS + 1)))
    # In two pieces, the second one also too early: only what is in order counts.
    assert not list(begun.take(segment(p.ACK, said[5:], number=THEIRS + 6)))
    assert not list(begun.take(segment(p.ACK, said[:5], number=THEIRS + 1)))
    (end,) = map(p.decode, begun.take(segment(p.ACK, said[5:], number=THEIRS + 6)))
    assert end.tcp_flags & 4
    assert begun.result
    assert (begun.result.well, begun.result.text) == (well, text)


def test_an_end_without_an_answer_fails() -> None:
    begun, _ = exchange("http")
    list(begun.take(segment(p.SYN | p.ACK)))
    list(begun.take(segment(p.ACK | 1, number=THEIRS + 1)))
    assert begun.result
    assert begun.result.text == "ends the connection without an answer"


def test_a_ping_is_answered_with_its_own_number() -> None:
    begun, first = exchange("icmp")
    assert (first.icmp_type, first.icmp_id) == (8, MARK)
    wrong = p.reply_to(p.echo(GATEWAY, POD, MARK + 1)).encode()
    assert not list(begun.take(wrong))
    assert begun.result is None
    frame = bytearray(p.reply_to(p.echo(GATEWAY, POD, MARK)).encode())
    frame[40:42] = (SEQUENCE & 0xFFFF).to_bytes(2, "big")
    assert mark_of(bytes(frame)) == MARK
    assert not list(begun.take(bytes(frame)))
    assert begun.result
    assert begun.result.well


@given(st.binary(max_size=120), st.sampled_from(["tcp", "http", "icmp"]), st.booleans())
def test_no_packet_breaks_a_check(noise: bytes, kind: str, framed: bool) -> None:
    begun, _ = exchange(kind)
    data = segment(p.ACK)[: 14 + 20] + noise if framed else noise
    list(begun.take(data))
    mark_of(data)
    assert begun.result is None or not begun.result.well


def test_a_pod_is_checked_from_the_gateway_of_its_subnet() -> None:
    network = o.Network("n", 1, (o.Subnet(bytes([10, 10, 0, 0]), 16), o.Subnet(bytes([10, 20, 0, 0]), 16)), ())
    pod = o.Pod("s-1", "g/s", "n", b"\2\0\0\0\0\5", "p", (bytes([10, 20, 3, 4]),))
    assert target_of(pod, network) == Target(pod.mac, pod.addresses[0], bytes([10, 20, 0, 1]))
