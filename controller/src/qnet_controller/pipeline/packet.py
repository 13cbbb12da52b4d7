# SPDX-License-Identifier: Apache-2.0
"""As much of a packet as a decision needs, read without trusting a byte of it."""

from __future__ import annotations

from typing import NamedTuple

from .fields import ETH_TYPE_IPV4

_ETHERNET_BYTES = 14
_IPV4_BYTES = 20


class Addresses(NamedTuple):
    """Source and destination address, packed."""

    source: bytes
    target: bytes


def ip_addresses(data: bytes) -> Addresses | None:
    """The IP addresses of an Ethernet frame, or None when it carries no whole IPv4 header."""
    if len(data) < _ETHERNET_BYTES + _IPV4_BYTES:
        return None
    if int.from_bytes(data[12:14], "big") != ETH_TYPE_IPV4 or data[_ETHERNET_BYTES] >> 4 != 4:
        return None
    return Addresses(data[26:30], data[30:34])
