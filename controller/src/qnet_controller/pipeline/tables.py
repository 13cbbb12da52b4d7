# SPDX-License-Identifier: Apache-2.0
"""The flow tables of `br-int`, in the order packets pass them."""

from __future__ import annotations

from enum import IntEnum


class Table(IntEnum):
    """A flow table; its number is its position. docs/design/pipeline.md has a section for each."""

    ADMISSION = 0
    NEIGHBOUR = 1
    ADVERTISE = 2
    PLAN = 3
    PORTS = 4
    TRACK = 5
    SERVICE = 6
    STATE = 7
    LOCATION = 8
    EGRESS = 9
    DELIVERY = 10
    ASK = 11
    BROADCAST = 12

    # Tables are in every key of every flow; the hash of an enumeration runs in Python, that of its value does not.
    __hash__ = int.__hash__

    @property
    def title(self) -> str:
        """The name used in documents, metrics and traces."""
        return self.name.lower()
