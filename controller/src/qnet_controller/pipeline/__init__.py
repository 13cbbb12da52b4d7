# SPDX-License-Identifier: Apache-2.0
"""Verdicts as OpenFlow: tables, fields, cookies, and the flows that a switch should hold."""
