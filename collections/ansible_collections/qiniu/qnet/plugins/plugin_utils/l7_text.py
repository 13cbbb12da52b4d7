# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing nginx configuration: quoting, blocks, and a mark before what comes from each item of the inventory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from ansible_collections.qiniu.qnet.plugins.module_utils._l7_marks import MARK

_PLAIN = re.compile(r"[A-Za-z0-9_./:=$@^*+,%!?|-][A-Za-z0-9_./:=$@~^*+,%!?|-]*\Z")


def quoted(value: object) -> str:
    """A value as one parameter of a directive."""
    text = {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
    if _PLAIN.match(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


class Conf:
    """A configuration file while it is being written."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._depth = 0
        self._mark = ""

    def mark(self, path: str) -> None:
        """What follows comes from the item of the inventory at `path`."""
        if path != self._mark:
            self._mark = path
            self._put(MARK + path)

    def add(self, name: str, *values: object) -> None:
        """One directive."""
        self._put(" ".join([name, *map(quoted, values)]) + ";")

    def flags(self, name: str, *values: str) -> None:
        """One directive whose parameters are words of nginx, not of the user."""
        self._put(" ".join([name, *values]) + ";")

    @contextmanager
    def block(self, name: str, *values: object) -> Iterator[None]:
        """The lines written inside are in a block."""
        self._put(" ".join([name, *map(quoted, values), "{"]))
        self._depth += 1
        yield
        self._depth -= 1
        self._put("}")

    def lua(self, name: str, code: str) -> None:
        """A block of Lua on one line."""
        self._put(f"{name} {{ {code} }}")

    def raw(self, text: str) -> None:
        """Lines that were checked and are taken over as they are."""
        for line in text.splitlines():
            self._put(line.strip())

    def text(self) -> str:
        """The whole file."""
        return "\n".join(self.lines) + "\n"

    def _put(self, line: str) -> None:
        self.lines.append("    " * self._depth + line)
