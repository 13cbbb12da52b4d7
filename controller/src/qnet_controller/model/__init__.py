# SPDX-License-Identifier: Apache-2.0
"""What should be and where it is: the objects of the intent database and the locations of pods."""
