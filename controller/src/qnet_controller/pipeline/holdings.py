# SPDX-License-Identifier: Apache-2.0
"""Which flows are wanted on a switch and by whom, beside those that it has."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, TypeVar, cast

from .messages import Flow, FlowKey

_Owner = TypeVar("_Owner", bound=Hashable)


class Entry(Generic[_Owner]):
    """One flow entry of a switch: `owners` want it, the last one says how; `have` is what the switch was told.

    There are millions of them, nearly all with one owner, so `holders` has owners and what they want in turn.
    """

    __slots__ = ("have", "holders", "key")

    def __init__(self, key: FlowKey, *holders: _Owner | Flow) -> None:
        self.key = key
        self.holders = holders
        self.have: Flow | None = None

    @property
    def owners(self) -> tuple[_Owner, ...]:
        """Who wants it."""
        return cast(tuple[_Owner, ...], self.holders[::2])

    @property
    def wanted(self) -> Flow | None:
        """The flow that should be there."""
        return cast(Flow, self.holders[-1]) if self.holders else None


class Holdings(Generic[_Owner]):
    """All entries of one switch. The hash of a key costs more than all else here, so it is taken once per change."""

    def __init__(self) -> None:
        self._entries: dict[FlowKey, Entry[_Owner]] = {}

    def __iter__(self) -> Iterator[Entry[_Owner]]:
        return iter(list(self._entries.values()))

    def __contains__(self, key: FlowKey) -> bool:
        return key in self._entries

    def get(self, key: FlowKey) -> Entry[_Owner] | None:
        """The entry with a key, if it is wanted or there."""
        return self._entries.get(key)

    def entry(self, key: FlowKey) -> Entry[_Owner]:
        """The entry with a key, a new one if need be."""
        found = self._entries.get(key)
        if found is None:
            found = self._entries[key] = Entry(key)
        return found

    def want(self, owner: _Owner, flows: dict[FlowKey, Flow], changed: set[Entry[_Owner]]) -> None:
        """Let `owner` want these flows; the entries are added to `changed`."""
        entries = self._entries
        for key, flow in flows.items():
            made = Entry(key, owner, flow)
            found = entries.setdefault(key, made)
            if found is not made:
                found.holders += (owner, flow)
            changed.add(found)

    def release(self, owner: _Owner, keys: Iterable[FlowKey], changed: set[Entry[_Owner]]) -> None:
        """Let `owner` want these flows no more; the entries are added to `changed`."""
        for key in keys:
            found = self._entries.get(key)
            if found is not None:
                pairs = zip(found.owners, found.holders[1::2], strict=True)
                found.holders = tuple(item for pair in pairs if pair[0] != owner for item in pair)
                changed.add(found)

    def copy(self) -> Holdings[_Owner]:
        """The same entries, which go their own way from now on."""
        twin: Holdings[_Owner] = Holdings()
        for key, entry in self._entries.items():
            found = twin.entry(key)
            found.holders, found.have = entry.holders, entry.have
        return twin

    def drop(self, entry: Entry[_Owner]) -> None:
        """The entry is neither wanted nor there."""
        self._entries.pop(entry.key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()

    def installed(self) -> dict[FlowKey, Flow]:
        """What the switch has."""
        return {key: entry.have for key, entry in self._entries.items() if entry.have is not None}


def release(index: dict, key: object, owner: object) -> None:  # type: ignore[type-arg]
    """Take an owner out of the holders of `key`, and the key when it was the last one."""
    holders = index.get(key)
    if holders is not None:
        holders.pop(owner, None)
        if not holders:
            del index[key]
