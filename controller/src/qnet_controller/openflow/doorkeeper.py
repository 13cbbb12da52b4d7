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
    """So many per second after a burst (a token bucket); times are seconds of any clock that does not go back."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate, self._burst = rate, burst
        self._left, self._at = burst, now

    def take(self, now: float) -> bool:
        """Whether one more is within the share."""
        if now > self._at:
            self._left = min(self._burst, self._left + (now - self._at) * self._rate)
            self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


def _host(address: str) -> str:
    return address.rpartition(":")[0]
