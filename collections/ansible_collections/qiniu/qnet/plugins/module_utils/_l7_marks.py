# Copyright (c) qnet authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Marks in a rendered configuration: from a line that nginx complains about back to the item of the inventory."""

from __future__ import annotations

import re

MARK = "# from "

RUN = "@run@"
"""Stands for the directory of sockets and the pid, which differs between a trial and the real thing."""

RELEASE = "@release@"
"""Stands for the digest of all files, by which a reload is seen to have happened."""


# As it is printed, or as it is logged when the log is the standard error output.
_COMPLAINT = re.compile(
    r"(?:nginx: \[(?:emerg|alert|crit|error)\]|[\d/]+ [\d:]+ \[(?:emerg|alert|crit|error)\] \d+#\d+:) "
    r"(.*?)(?: in \S+:(\d+))?$"
)


def source_of(configuration: str, line: int) -> str | None:
    """The path in the last mark at or above a line of a configuration."""
    for text in reversed(configuration.splitlines()[:line]):
        if text.strip().startswith(MARK):
            return text.strip().removeprefix(MARK)
    return None


def _line_of_variable(configuration: str, complaint: str) -> int:
    """The line of a variable that does not exist, which nginx names without a place; 0 when it is something else."""
    match = re.fullmatch(r'unknown "(\w+)" variable', complaint)
    if match is None:
        return 0
    used = re.compile(rf"\$(?:{match[1]}\b|\{{{match[1]}\}})")
    return next((number for number, text in enumerate(configuration.splitlines(), 1) if used.search(text)), 0)


def _line_of_file(configuration: str, complaint: str) -> int:
    """The last line that names a file which nginx cannot load, which it says without a place; 0 when there is none."""
    match = re.match(r'(?:cannot load certificate(?: key)?|\w+\(\)) "([^"]+)"', complaint)
    if match is None:
        return 0
    lines = enumerate(configuration.splitlines(), 1)
    named = [number for number, text in lines if "/" in text and match[1].endswith(text.split()[-1].strip('";'))]
    return named[-1] if named else 0


def explain(configuration: str, complaint: str) -> str:
    """What nginx says, each line that names a place with the path of the item it comes from."""
    told = []
    for text in complaint.splitlines():
        match = _COMPLAINT.match(text)
        if match is None:
            continue
        said = match[1]
        line = int(match[2] or _line_of_variable(configuration, said) or _line_of_file(configuration, said))
        source = source_of(configuration, line)
        told.append(f"{source}: nginx refuses it: {match[1]}" if source else f"nginx: {match[1]}")
    return "\n".join(told) or complaint.strip()
