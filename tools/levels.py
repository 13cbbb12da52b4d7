#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run levels of tests one after the other, all of them whatever fails, and sum up what they counted.

Usage: tools/levels.py LEVEL...

A level is the make target test-LEVEL. It ends with the closing line of pytest, or with one line `N passed, N failed`
of its own. A level that fails without counting a failure, or that counts no test at all, counts as one failure.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

LOGS = Path(".cache/logs")
CLOSING = re.compile(r"^(?:=+ )?\d+ [a-z]+(?:, \d+ [a-z]+)*(?: in [\d.]+s(?: \([\d:]+\))?)?(?: =+)?$")
COUNT = re.compile(r"(\d+) (passed|failed|skipped|errors?)\b")


def counts(text: str) -> dict[str, int]:
    """Add up every closing line in the output of a level; errors of pytest (in fixtures) are failures."""
    total = {"passed": 0, "failed": 0, "skipped": 0}
    for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines():
        if CLOSING.match(line):
            for number, kind in COUNT.findall(line):
                total["failed" if kind.startswith("error") else kind] += int(number)
    return total


def main(levels: list[str]) -> int:
    """Run the levels, print the sum, return the exit status."""
    total = {"passed": 0, "failed": 0, "skipped": 0}
    for level in levels:
        log = LOGS / f"test-{level}.log"
        status = subprocess.call([Path(__file__).with_name("step.py"), log, f"test-{level}", "make", f"test-{level}"])
        found = counts(log.read_text(errors="replace"))
        if not found["failed"] and (status or not found["passed"]):
            found["failed"] = 1
        print(f"      {found['passed']} of {found['passed'] + found['failed']} passed, {found['skipped']} skipped")
        for kind, number in found.items():
            total[kind] += number
    print(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    return 1 if total["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
