# SPDX-License-Identifier: Apache-2.0
"""What the fleet withstands, measured on the lab: `make drills` (all, long) and tests/e2e/test_drills.py (short)."""
