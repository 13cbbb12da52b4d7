# SPDX-License-Identifier: Apache-2.0
"""One process: switches, locations, roles and the model, joined on one event loop."""
