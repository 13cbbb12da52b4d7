# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter qiniu.qnet.qnet_l7_intent."""

from __future__ import annotations

DOCUMENTATION = r"""
name: qnet_l7_intent
short_description: L7 listeners or routes as qnet_tenant takes them
version_added: 0.1.0
author: qnet authors
description:
  - Puts all options that are no column of the intent database under C(settings).
options:
  _input:
    description: The value of C(qnet_l7_listeners) or C(qnet_l7_routes).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Apply listeners
  qiniu.qnet.qnet_tenant:
    l7_listeners: "{{ qnet_l7_listeners | qiniu.qnet.qnet_l7_intent }}"
"""

RETURN = r"""
_value:
  description: The listeners or routes, for the options C(l7_listeners) and C(l7_routes) of M(qiniu.qnet.qnet_tenant).
  type: list
  elements: dict
"""

from collections.abc import Callable, Mapping, Sequence  # noqa: E402
from typing import Any  # noqa: E402

from ansible_collections.qiniu.qnet.plugins.module_utils import _l7_schema  # noqa: E402

COLUMNS = frozenset((*_l7_schema.LISTENER_COLUMNS, *_l7_schema.ROUTE_COLUMNS))


def qnet_l7_intent(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Columns beside each other, all else under settings."""
    return [
        {
            **{name: value for name, value in item.items() if name in COLUMNS},
            "settings": {name: value for name, value in item.items() if name not in COLUMNS},
        }
        for item in items
    ]


class FilterModule:
    """The filter, for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"qnet_l7_intent": qnet_l7_intent}
