# SPDX-License-Identifier: Apache-2.0
"""The policy: a pure function from (model, question, time) to a verdict."""
