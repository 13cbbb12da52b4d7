#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Check what no linter knows about the tracked files; prints one line per finding, `path:line: what`.

- no name of a package registry or mirror and no path of one machine: both come from the machine's own configuration
- an SPDX line at the top of every source file: GPL-3.0-or-later for Ansible plugins, Apache-2.0 elsewhere
- no Python file of 500 lines or more
- the collection imports nothing of the controller
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# The brackets keep the patterns from finding themselves.
FOREIGN = re.compile(
    r"py[p]i\.org|python[h]osted|deb\.[d]ebian|security\.[d]ebian|npm[j]s|docker\.[i]o|quay\.[i]o|ghcr\.[i]o"
    r"|galaxy\.[a]nsible|archive\.[u]buntu|(?<![\w.$}])/work[/]|/opt/(?:wheels|py[p]i)|/tmp/ex[p]\b|\.librar[y]/"
)
SOURCE_SUFFIXES = {".py", ".sh", ".toml"}
LICENCE = "Apache-2.0"
LICENCE_OF_PLUGINS = "GPL-3.0-or-later"  # they import Ansible
COLLECTION = "collections/ansible_collections/qiniu/qnet/"

MAX_LINES = 500


def is_source(path: Path, first_line: str) -> bool:
    """Tell whether a file is source code that carries a licence line."""
    return path.suffix in SOURCE_SUFFIXES or first_line.startswith("#!")


def findings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, what is wrong) for one tracked file."""
    try:
        lines = path.read_text().splitlines()
    except (UnicodeDecodeError, FileNotFoundError):  # an image, or deleted and not committed yet
        return
    for number, line in enumerate(lines, 1):
        if found := FOREIGN.search(line):
            yield number, f"names {found[0]!r}: take it from the machine's configuration instead"
    if lines and is_source(path, lines[0]):
        licence = LICENCE_OF_PLUGINS if str(path).startswith(COLLECTION) or "library" in path.parts else LICENCE
        if not any(f"SPDX-License-Identifier: {licence}" in line for line in lines[:5]):
            yield 1, f"has no line 'SPDX-License-Identifier: {licence}' at its top"
    if path.suffix == ".py" and len(lines) >= MAX_LINES:
        yield len(lines), f"is {len(lines)} lines long: split it, the limit is {MAX_LINES}"
    if str(path).startswith(COLLECTION):
        for number, line in enumerate(lines, 1):
            if re.match(r"\s*(?:from|import) qnet_controller\b", line):
                yield number, "imports the controller: ask its API instead"


def main() -> int:
    """Check every tracked file and return the exit status."""
    tracked = subprocess.run(["git", "ls-files", "-z"], check=True, capture_output=True, text=True).stdout
    found = [(path, *finding) for path in map(Path, filter(None, tracked.split("\0"))) for finding in findings(path)]
    for path, number, what in found:
        print(f"{path}:{number}: {what}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
