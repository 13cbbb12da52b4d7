# SPDX-License-Identifier: Apache-2.0
"""The session against raw peers: whatever one of them does, it alone is dropped."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import Awaitable, Callable

import pytest

from contract.peers import HELLO, QUICK, Owner, Peer, Scene, message, scene
from contract.real import Authority
from qnet_controller.openflow.events import Limits, SessionClosed


def play(authority: Authority, test: Callable[[Scene], Awaitable[None]], limits: Limits = QUICK) -> None:
    """Run a test in a scene with one good switch, and see that this one has noticed nothing."""

    async def run() -> None:
        async with scene(authority, limits) as on:
            good = await on.switch(datapath_id=0x600D)
            keepalive = asyncio.create_task(_answer_echoes(good))
            await test(on)
            await asyncio.wait_for(_echo(good), 5)
            keepalive.cancel()
            assert not on.owner.sessions[0].closing

    asyncio.run(run())


async def _answer_echoes(peer: Peer) -> None:
    while True:
        request = await peer.read(2, seconds=60)
        peer.send(message(3, request[8:], int.from_bytes(request[4:8], "big")))


async def _echo(peer: Peer) -> None:
    """The session of this peer still answers (the reply is left unread; the write must not fail)."""
    peer.send(message(2, b"still there?", 77))
    await peer.writer.drain()
    await asyncio.sleep(0.05)
    assert not peer.reader.at_eof()


BAD_LENGTHS = {
    "hello element of length 0": message(0, bytes.fromhex("0001000000000000")),
    "hello element of length 3": message(0, bytes.fromhex("0001000300000000")),
    "hello element longer than the message": message(0, bytes.fromhex("0001001000000040")),
    "hello element cut short": message(0, bytes.fromhex("0001")),
    "hello bitmap of 6 bytes": message(0, bytes.fromhex("0001000600000000")),
    "header length 0": message(0, length=0),
    "header length 7": message(0, length=7),
    "message of 64 KiB before the handshake": message(0, bytes(60000)),
    "not HELLO": message(2),
    "version 0": message(0, version=0),
    "OpenFlow 1.3": message(0, version=4),
    "no 1.5 in the bitmap": message(0, bytes.fromhex("0001000800000010")),
    "text": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("data", BAD_LENGTHS.values(), ids=BAD_LENGTHS.keys())
def test_a_bad_hello_drops_that_peer_only(authority: Authority, data: bytes) -> None:
    async def test(on: Scene) -> None:
        peer = await on.peer()
        peer.send(data)
        await peer.dropped(1.0)
        await on.owner.wait("violated")

    play(authority, test)


def _port(length: int = 40, properties: bytes = b"") -> bytes:
    return struct.pack("!IH2x6s2x16sII", 5, length, b"\x02\0\0\0\0\5", b"veth5", 0, 4) + properties


BAD_MESSAGES = {
    "unknown type": message(99),
    "a message only controllers send": message(14, bytes(64)),
    "features reply of 16 bytes": message(6, bytes(8)),
    "features reply nobody asked for": message(6, bytes(24), 4242),
    "barrier reply nobody asked for": message(21, xid=4242),
    "role reply of 16 bytes": message(25, bytes(8)),
    "packet-in without match": message(10, bytes(16)),
    "packet-in match longer than the message": message(10, bytes(16) + struct.pack("!HH", 1, 4000) + bytes(12)),
    "packet-in match of length 0": message(10, bytes(16) + struct.pack("!HH", 1, 0) + bytes(12)),
    "packet-in OXM longer than its match": message(
        10, bytes(16) + struct.pack("!HHI", 1, 8, 0x80000004 | 0xFF) + bytes(10)
    ),
    "packet-in in_port of 2 bytes": message(
        10, bytes(16) + struct.pack("!HHIH", 1, 10, 0x80000002, 1) + bytes(6) + bytes(2)
    ),
    "flow-removed cut in its match": message(11, bytes(16) + struct.pack("!HH", 1, 64) + bytes(12)),
    "flow-removed without statistics": message(11, bytes(16) + struct.pack("!HH", 1, 4) + bytes(4)),
    "port status with port length 0": message(12, bytes(8) + _port(0)),
    "port status with port length 4000": message(12, bytes(8) + _port(4000)),
    "port property of length 0": message(12, bytes(8) + _port(48, bytes(8))),
    "port property of length 2": message(12, bytes(8) + _port(48, struct.pack("!HH4x", 7, 2))),
    "ethernet property of 8 bytes": message(12, bytes(8) + _port(48, struct.pack("!HH4x", 0, 8))),
    "port property out of its port": message(12, bytes(8) + _port(48, struct.pack("!HH4x", 7, 400))),
    "OXM ids cut short": message(12, bytes(8) + _port(48, struct.pack("!HHHH", 2, 8, 0xFFFF, 0))),
    "role status property of length 0": message(30, bytes(16) + bytes(8)),
    "multipart nobody asked for": message(19, struct.pack("!HH4x", 13, 0) + _port(), 4242),
    "multipart of unknown type": message(19, struct.pack("!HH4x", 4, 0)),
    "flow of length 0": message(19, struct.pack("!HH4x", 1, 0) + bytes(48)),
    "flow with a match out of it": message(
        19, struct.pack("!HH4x", 1, 0) + struct.pack("!H22x", 48) + struct.pack("!HH", 1, 200) + bytes(20)
    ),
    "flow with an instruction of length 0": message(
        19,
        struct.pack("!HH4x", 1, 0) + struct.pack("!H22x", 48) + struct.pack("!HH4xHH4x", 1, 4, 0, 4) + bytes(8),
    ),
    "flow with an action of length 0": message(
        19,
        struct.pack("!HH4x", 1, 0)
        + struct.pack("!H22x", 56)
        + struct.pack("!HH4xHH4x", 1, 4, 0, 4)
        + struct.pack("!HH4x", 4, 16)
        + bytes(8),
    ),
    "group of length 8": message(19, struct.pack("!HH4x", 6, 0) + struct.pack("!H38x", 8)),
    "meter band of length 0": message(19, struct.pack("!HH4x", 10, 0) + struct.pack("!HHI", 24, 0, 1) + bytes(16)),
    "experimenter error cut short": message(1, struct.pack("!HH", 0xFFFF, 1)),
    "error of 8 bytes": message(1),
    "bundle reply nobody asked for": message(33, bytes(8), 4242),
    "bundle property of length 0": message(33, bytes(16), 4242),
    "a second HELLO": HELLO,
    "another version": message(2, version=4),
    "header length 4": message(2, length=4),
}


@pytest.mark.parametrize("data", BAD_MESSAGES.values(), ids=BAD_MESSAGES.keys())
def test_a_bad_message_drops_that_peer_only(authority: Authority, data: bytes) -> None:
    async def test(on: Scene) -> None:
        peer = await on.switch(2)
        peer.send(data)
        await peer.dropped(1.0)
        await on.owner.wait("violated")
        assert on.owner.count("packet_in") == on.owner.count("port_status") == 0

    play(authority, test)


def test_a_message_in_single_bytes_is_one_message(authority: Authority) -> None:
    async def test(on: Scene) -> None:
        peer = await on.switch(2)
        for byte in message(12, struct.pack("!B7x", 0) + _port()):
            peer.send(bytes([byte]))
            await peer.writer.drain()
        port, gone = await on.owner.wait("port_status")
        assert (port.number, port.name, port.live, gone) == (5, "veth5", True, False)

    play(authority, test)


def test_many_messages_in_one_piece_are_all_handled(authority: Authority) -> None:
    async def test(on: Scene) -> None:
        peer = await on.switch(2)
        peer.send(message(12, struct.pack("!B7x", 1) + _port()) * 500)
        await on.owner.wait("port_status", 500)
        assert on.owner.last("port_status")[1]

    play(authority, test)


def test_half_a_message_then_close_loses_that_peer(authority: Authority) -> None:
    async def test(on: Scene) -> None:
        peer = await on.switch(2)
        peer.send(message(12, bytes(8) + _port())[:30])
        await peer.writer.drain()
        peer.writer.close()
        assert "closed" in await on.owner.wait("lost")
        assert on.owner.count("port_status") == 0

    play(authority, test)


def test_half_a_message_then_silence_is_dropped(authority: Authority) -> None:
    async def test(on: Scene) -> None:
        peer = await on.switch(2)
        peer.send(message(10, bytes(2000))[:100])
        assert "silent" in await on.owner.wait("lost", seconds=3)

    play(authority, test)


def test_a_reset_is_noticed_at_once(authority: Authority) -> None:
    async def test(on: Scene) -> None:
        peer = await on.switch(2)
        peer.reset()
        await on.owner.wait("lost", seconds=0.5)

    play(authority, test)


def test_silence_is_probed_and_dropped(authority: Authority) -> None:
    async def test(on: Scene) -> None:
        peer = await on.switch(2)
        await peer.read(2)
        assert "silent" in await on.owner.wait("lost", seconds=3)

    play(authority, test)


def test_an_unfinished_handshake_is_dropped(authority: Authority) -> None:
    async def test(on: Scene) -> None:
        peer = await on.peer()
        peer.send(HELLO)
        keepalive = asyncio.create_task(_answer_echoes(peer))
        assert "handshake" in await on.owner.wait("violated", seconds=3)
        keepalive.cancel()

    play(authority, test)


def test_an_exception_in_a_handler_is_survived(authority: Authority) -> None:
    async def test(on: Scene) -> None:
        peer = await on.switch(2)
        on.owner.fail = "port_status"
        for _ in range(3):
            peer.send(message(12, bytes(8) + _port()))
        await on.owner.wait("port_status", 3)
        assert on.owner.count("handler_failed") == 3
        peer.send(message(2, b"payload", 9))
        assert (await peer.read(3))[8:] == b"payload"

    play(authority, test)


def test_echo_requests_are_answered_with_their_payload(authority: Authority) -> None:
    async def test(on: Scene) -> None:
        peer = await on.switch(2)
        peer.send(message(2, b"abc", 0xDEADBEEF))
        assert await peer.read(3) == message(3, b"abc", 0xDEADBEEF)

    play(authority, test)


def test_an_awaited_reply_fails_when_the_switch_goes(authority: Authority) -> None:
    async def test(on: Scene) -> None:
        peer = await on.switch(2)
        waiting = asyncio.create_task(on.owner.sessions[-1].barrier())
        await peer.read(20)
        peer.writer.close()
        with pytest.raises(SessionClosed):
            await waiting

    play(authority, test)


def test_a_switch_that_does_not_read_is_dropped(authority: Authority) -> None:
    async def test(on: Scene) -> None:
        peer = await on.switch(2)
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        session = on.owner.sessions[-1]
        async with asyncio.timeout(4):
            while not session.closing:
                peer.send(message(2, bytes(60000)))
                await asyncio.sleep(0)
        assert "read" in session.closing
        await on.owner.wait("lost")

    play(authority, test, Limits(handshake=5, echo_interval=5, silence=20, max_queued=1 << 20, high_water=1 << 16))


def test_a_storm_of_reconnects_is_served(authority: Authority) -> None:
    async def test(on: Scene) -> None:
        async def one(number: int) -> None:
            for turn in range(2):
                peer = await on.switch(number)
                if turn == 0:
                    peer.reset()

        await asyncio.wait_for(asyncio.gather(*(one(100 + number) for number in range(50))), 20)
        await on.owner.wait("lost", 50)
        assert on.owner.count("identified") == 101
        assert on.owner.count("violated") == 0

    play(authority, test, Limits())


@pytest.mark.parametrize("kind", ["none", "foreign"])
def test_a_peer_without_a_certificate_of_the_fleet_never_gets_in(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory, kind: str
) -> None:
    async def test(on: Scene) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if kind == "foreign":
            context.load_cert_chain(*Authority(tmp_path_factory.mktemp("foreign")).issue("h1"))
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", on.port, ssl=context)
            writer.write(HELLO)
            # TLS 1.3: the server's refusal may come after the client believes it is connected.
            assert await asyncio.wait_for(reader.read(), 3) == b""
        except (ssl.SSLError, ConnectionError):
            pass  # what the peer sees of its refusal depends on the moment
        address, reason = await on.owner.wait("turned_away")
        assert address.startswith("127.0.0.1:")
        assert "certificate" in reason.lower()
        assert on.owner.count("identified") == 1

    play(authority, test)


def test_owner_protocol_is_complete() -> None:
    from qnet_controller.openflow.events import Events

    owner: Events = Owner.__new__(Owner)
    assert owner
