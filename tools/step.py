#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run a long command with one line for a person: what runs, for how long, how it ended.

Usage: tools/step.py LOG LABEL COMMAND [ARGUMENT...]

The command's output goes to LOG; when it fails, the end of LOG is shown. Exits with the command's own status.
On a terminal the line counts the seconds; elsewhere (CI, a pipe) it is written again once a minute.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

TAIL_LINES = 40


def run(log: Path, label: str, command: list[str]) -> int:
    """Run `command` with its output in `log` and return its exit status."""
    terminal = sys.stdout.isatty()
    every = 1 if terminal else 60
    end = "\r" if terminal else "\n"
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with log.open("wb") as output:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        while True:
            try:
                status = child.wait(timeout=every)
                break
            except subprocess.TimeoutExpired:
                print(f"  ... {label}  {time.monotonic() - start:.0f} s", end=end, flush=True)
            except KeyboardInterrupt:  # the terminal sent it to the child as well: let it clean up after itself
                status = child.wait() or 130
                break
    mark = "ok " if status == 0 else "FAILED"
    print(f"  {mark} {label}  {time.monotonic() - start:.0f} s" + " " * 4, flush=True)
    if status:
        lines = log.read_text(errors="replace").splitlines()
        print(f"      the last lines of {log} (exit status {status}):", *lines[-TAIL_LINES:], sep="\n      | ")
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    sys.exit(run(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
