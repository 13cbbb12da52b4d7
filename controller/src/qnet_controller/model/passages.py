# SPDX-License-Identifier: Apache-2.0
"""Ways between networks: spaces in which a packet has an address of one network as its source and of another as its
target.

A network with a guest has two of them: callers of the guest's network talk to pods of the home network, and those
answer. To whatever deals with addresses a space is a network by its VNI; what its *targets* are is said here, and its
senders are the targets of the other one.
"""

from __future__ import annotations

from dataclasses import dataclass

from .objects import Address, Guest, Network


@dataclass(frozen=True, slots=True)
class Passage:
    """The way from the network `guest` to services of the network `home`: one of the owners of an address at home."""

    guest: str
    home: str
    calls: Network
    answers: Network
    addresses: tuple[Address, ...]

    def address(self, like: Address) -> Address | None:
        """Where callers are seen, of the same family as another address."""
        return next((address for address in self.addresses if len(address) == len(like)), None)


def passage(guest: Guest) -> Passage:
    """The passage that a guest of a network has."""
    calls = Network(f"{guest.network}>{guest.home}", guest.vni, (), ())
    answers = Network(f"{guest.network}<{guest.home}", guest.vni + 1, (), ())
    return Passage(guest.network, guest.home, calls, answers, guest.addresses)


class Passages:
    """All passages, by the names of their ends and of their spaces."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Passage] = {}
        self._by_space: dict[str, Passage] = {}

    def copy(self) -> Passages:
        """The same passages, which come and go on their own."""
        twin = Passages()
        twin._known, twin._by_space = dict(self._known), dict(self._by_space)
        return twin

    def add(self, found: Passage) -> None:
        """There is this passage now."""
        self._known[found.guest, found.home] = found
        for space in (found.calls, found.answers):
            self._by_space[space.name] = found

    def drop(self, found: Passage) -> None:
        """It is gone."""
        self._known.pop((found.guest, found.home), None)
        for space in (found.calls, found.answers):
            self._by_space.pop(space.name, None)

    def between(self, guest: str, home: str) -> Passage | None:
        """The passage from one network to another, if there is one."""
        return self._known.get((guest, home))

    def of_space(self, name: str) -> Passage | None:
        """The passage that a space belongs to; None for a network of its own."""
        return self._by_space.get(name)

    def into(self, home: str) -> list[Passage]:
        """The passages to services of a network."""
        return [found for found in self._known.values() if found.home == home]

    def reverse(self, space: Network) -> Network:
        """The space in which the targets of another one send; a network is its own."""
        found = self._by_space.get(space.name)
        if found is None:
            return space
        return found.answers if space.name == found.calls.name else found.calls

    def spaces(self, network: str) -> list[Network]:
        """The spaces besides the network itself whose targets are the pods of a network."""
        called = [found.calls for found in self._known.values() if found.home == network]
        return called + [found.answers for found in self._known.values() if found.guest == network]
