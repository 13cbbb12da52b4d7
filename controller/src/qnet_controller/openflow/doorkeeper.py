# SPDX-License-Identifier: Apache-2.0
"""Who may begin a TLS handshake: not too many at a time, and nobody who has just broken the protocol.

A handshake costs milliseconds of CPU before the peer has shown anything, so it is what a peer without a certificate can
spend of ours. Nothing is known of a connection at that point but its address.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from .events import Limits

_MOST_REMEMBERED = 4096
ARREARS_SECONDS = 0.25
"""For how long a switch stays in arrears at least once it sends nothing more."""
TRICKLE_BURST = 4.0
PORT_SECONDS = 0.05
"""How often one port of a switch in arrears is heard at most."""


@dataclass(slots=True)
class _Blame:
    """An address whose peer broke the protocol: until when it is turned away, and for how long the next time."""

    until: float
    seconds: float


class Doorkeeper:
    """Counts handshakes and remembers offenders, by IP address. Times are of the event loop's clock."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._handshakes: Counter[str] = Counter()
        self._blamed: dict[str, _Blame] = {}

    def enter(self, address: str, now: float) -> str:
        """Let a connection from ADDRESS:PORT begin its handshake; returns why not, or nothing."""
        host = _host(address)
        blame = self._blamed.get(host)
        if blame is not None and now < blame.until:
            return f"broke the protocol, not before {blame.until - now:.1f} s"
        if self._handshakes.total() >= self._limits.max_handshakes:
            return f"{self._limits.max_handshakes} handshakes are under way"
        if self._handshakes[host] >= self._limits.max_handshakes_per_address:
            return f"{self._limits.max_handshakes_per_address} handshakes of this address are under way"
        self._handshakes[host] += 1
        return ""

    def leave(self, address: str) -> None:
        """The handshake is over, well or not."""
        host = _host(address)
        self._handshakes[host] -= 1
        if self._handshakes[host] <= 0:
            del self._handshakes[host]

    def blame(self, address: str, now: float) -> None:
        """A peer at the address broke the protocol; each time within twice the last penalty doubles it."""
        host = _host(address)
        old = self._blamed.pop(host, None)
        seconds = self._limits.penalty
        if old is not None and now < old.until + 2 * old.seconds:
            seconds = min(2 * old.seconds, self._limits.longest_penalty)
        if len(self._blamed) >= _MOST_REMEMBERED:
            del self._blamed[next(iter(self._blamed))]
        self._blamed[host] = _Blame(now + seconds, seconds)


class Share:
    """How many packets one switch may ask about: so many per second after a burst.

    A switch that sends more is in arrears until it has sent less for a while. What it asks meanwhile is answered as far
    as a trickle goes, its ports in turn: others shall notice nothing, and of its own pods those that ask little are
    heard. Times are seconds of any clock that does not go back.
    """

    __slots__ = ("_at", "_burst", "_left", "_rate", "_served", "_trickle", "_trickle_left")

    def __init__(self, rate: float, burst: float, trickle: float, now: float) -> None:
        self._rate, self._burst, self._trickle = rate, burst, trickle
        self._left, self._at = burst, now
        self._trickle_left = 0.0
        self._served: dict[bytes, float] = {}

    def take(self, now: float) -> bool:
        """Whether one more is within the share; what is not counts all the same."""
        self._pass(now)
        self._left -= 1.0
        if self._left >= 0.0:
            return True
        self._left = max(self._left, -self._rate * ARREARS_SECONDS)
        return False

    def trickles(self) -> bool:
        """Whether one more that is above the share may be heard now, if its port has not been heard lately."""
        return self._trickle_left >= 1.0

    def take_trickle(self, port: bytes) -> bool:
        """Hear one more of this port."""
        if self._at - self._served.get(port, -PORT_SECONDS) < PORT_SECONDS:
            return False
        if len(self._served) >= _MOST_REMEMBERED:
            self._served.clear()
        self._served[port] = self._at
        self._trickle_left -= 1.0
        return True

    def _pass(self, now: float) -> None:
        if now > self._at:
            self._left = min(self._burst, self._left + (now - self._at) * self._rate)
            self._trickle_left = min(TRICKLE_BURST, self._trickle_left + (now - self._at) * self._trickle)
            self._at = now


def _host(address: str) -> str:
    return address.rpartition(":")[0]
