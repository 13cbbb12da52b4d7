# SPDX-License-Identifier: Apache-2.0
"""A simulated fleet: packets as bytes, Open vSwitch as far as qnet uses it, and hosts joined by VXLAN."""
