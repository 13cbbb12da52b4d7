# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the controller tests."""

from contract.fixtures import clean_switch, fleet_authority, private_network, private_vswitch

__all__ = ["clean_switch", "fleet_authority", "private_network", "private_vswitch"]
