# SPDX-License-Identifier: Apache-2.0
"""The policy oracle: random tenants, random changes, and packets sent to find out who reaches whom."""
