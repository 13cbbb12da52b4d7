# SPDX-License-Identifier: Apache-2.0
"""The intent database as a stream of model objects; the only importer of the ovs library."""
