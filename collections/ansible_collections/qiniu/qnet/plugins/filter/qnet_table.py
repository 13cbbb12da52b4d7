# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible filter: rows as lines of aligned columns."""

from __future__ import annotations

import typing as t

DOCUMENTATION = r"""
name: qnet_table
short_description: Rows as lines of aligned columns
version_added: 0.1.0
description:
  - Makes a list of rows readable for people.
author:
  - qnet contributors (@qnet)
positional: _input
options:
  _input:
    description: The rows; the first one has the titles.
    type: list
    elements: list
    required: true
"""

EXAMPLES = r"""
- name: Show a table
  ansible.builtin.debug:
    msg: "{{ [['host', 'level'], ['h1', 'none']] | qiniu.qnet.qnet_table }}"
"""

RETURN = r"""
_value:
  description: One line for each row.
  type: list
  elements: str
"""


def qnet_table(rows: t.Sequence[t.Sequence[object]]) -> list[str]:
    """The rows as lines; the last column is as long as it likes."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in texts) for column in range(len(texts[0]))] if texts else []
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in texts]


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Filters by name."""
        return {"qnet_table": qnet_table}
