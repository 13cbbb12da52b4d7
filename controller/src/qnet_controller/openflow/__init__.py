# SPDX-License-Identifier: Apache-2.0
"""OpenFlow 1.5 on the wire: session, guard, encoder; the only importer of Ryu's codec."""
