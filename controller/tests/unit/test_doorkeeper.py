# SPDX-License-Identifier: Apache-2.0
"""Who may begin a TLS handshake."""

from __future__ import annotations

from qnet_controller.openflow.doorkeeper import ARREARS_SECONDS, PORT_SECONDS, TRICKLE_BURST, Doorkeeper, Share
from qnet_controller.openflow.events import Limits

LIMITS = Limits(max_handshakes=3, max_handshakes_per_address=2, penalty=1.0, longest_penalty=4.0)


def test_an_address_has_so_many_handshakes_at_a_time_and_others_have_theirs() -> None:
    keeper = Doorkeeper(LIMITS)
    assert not keeper.enter("192.0.2.1:1", 0.0)
    assert not keeper.enter("192.0.2.1:2", 0.0)
    assert "of this address" in keeper.enter("192.0.2.1:3", 0.0)
    assert not keeper.enter("192.0.2.2:1", 0.0)
    assert "3 handshakes" in keeper.enter("192.0.2.3:1", 0.0)
    keeper.leave("192.0.2.1:1")
    assert not keeper.enter("192.0.2.3:1", 0.0)


def test_who_broke_the_protocol_waits_and_longer_each_time() -> None:
    keeper = Doorkeeper(LIMITS)
    now, waits = 0.0, []
    for _ in range(4):
        keeper.blame("192.0.2.1:7", now)
        began = now
        while keeper.enter("192.0.2.1:8", now):
            now += 0.5
        keeper.leave("192.0.2.1:8")
        waits.append(now - began)
    assert waits == [1.0, 2.0, 4.0, 4.0]
    assert not keeper.enter("192.0.2.2:8", 0.0)


def test_old_offences_are_forgotten() -> None:
    keeper = Doorkeeper(LIMITS)
    keeper.blame("[2001:db8::1]:7", 0.0)
    keeper.blame("[2001:db8::1]:7", 100.0)
    assert keeper.enter("[2001:db8::1]:9", 100.5)
    assert not keeper.enter("[2001:db8::1]:9", 101.0)


def test_a_switch_in_arrears_is_heard_again_once_it_has_sent_less_for_a_while() -> None:
    share = Share(rate=100.0, burst=10.0, trickle=0.0, now=0.0)
    assert [share.take(0.0) for _ in range(12)] == [True] * 10 + [False] * 2
    for _ in range(1000):  # however much it was, what has to be waited for is bounded
        share.take(0.0)
    assert not share.take(ARREARS_SECONDS)
    assert share.take(3 * ARREARS_SECONDS)


def test_ports_of_a_switch_in_arrears_take_turns() -> None:
    share = Share(rate=1.0, burst=1.0, trickle=100.0, now=0.0)
    assert share.take(0.0)
    assert not share.trickles()
    assert not share.take(1.0) or not share.take(1.0)
    assert share.trickles()
    assert [share.take_trickle(port) for port in (b"a", b"a", b"b")] == [True, False, True]
    share.take(1.0 + PORT_SECONDS)
    assert share.take_trickle(b"a")


def test_the_trickle_is_bounded() -> None:
    share = Share(rate=1.0, burst=1.0, trickle=10.0, now=0.0)
    share.take(10.0)
    heard = 0
    while share.trickles():
        heard += share.take_trickle(bytes([heard]))
    assert heard == TRICKLE_BURST
