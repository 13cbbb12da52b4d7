# SPDX-License-Identifier: Apache-2.0
"""OVN across the hosts of a bench: two more hosts beside ours, on the same underlay, with the same datapath.

One logical switch `red` with all pods, a router as their gateway, load balancers on the switch: the shape that its
container networks use. Every pod is in port group `a`; what comes from elsewhere is refused, with tracked connections.
"""

from __future__ import annotations

GATEWAY, GATEWAY_MAC, LENGTH = "10.6.0.1", "0a:00:00:00:00:01", 16
FIRST_HOST = 101
