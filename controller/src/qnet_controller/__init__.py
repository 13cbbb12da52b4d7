# SPDX-License-Identifier: Apache-2.0
"""The reactive OpenFlow controller of qnet: intent and pod locations in, flows out."""
