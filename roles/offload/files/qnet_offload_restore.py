#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Switch the offloads of this host as they were pinned; at boot, and each time Open vSwitch has been started.

Usage: qnet-offload-restore [FILE]
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import time

PINNED = "/etc/qnet/offload.json"
WAIT_SECONDS = 30


def wait_for(device: str) -> bool:
    """Wait until a device is there; the one of the tunnel comes with Open vSwitch."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not pathlib.Path(f"/sys/class/net/{device}").exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def main() -> int:
    """Entry point."""
    path = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else PINNED)
    faults = []
    for device, features in json.loads(path.read_text(encoding="utf-8"))["devices"].items():
        if not wait_for(device):
            faults.append(f"there is no {device} after {WAIT_SECONDS} s")
            continue
        words = [word for feature, on in features.items() for word in (feature, "on" if on else "off")]
        done = subprocess.run(["ethtool", "-K", device, *words], capture_output=True, text=True, check=False)
        if words and done.returncode:
            faults.append(f"ethtool -K {device} {' '.join(words)}: {done.stderr.strip()}")
    for fault in faults:
        print(f"qnet-offload-restore: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
