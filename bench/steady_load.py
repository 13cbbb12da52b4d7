# SPDX-License-Identifier: Apache-2.0
"""Runs in a pod: opens TCP connections at a constant rate, whatever becomes of those before. Standard library only.

Arguments: address, port, connections per second, seconds, seconds until one counts as failed. Prints one JSON list of
[when it began (CLOCK_MONOTONIC), whether the server's greeting came in time].
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time


async def attempt(address: str, port: int, patience: float, results: list[tuple[float, bool]]) -> None:
    """One connection: opened, greeted, closed."""
    began, well = time.monotonic(), False
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(patience):
            reader, writer = await asyncio.open_connection(address, port)
            well = bool(await reader.readline())
            writer.close()
    results.append((began, well))


async def main(address: str, port: int, rate: float, seconds: float, patience: float) -> None:
    """Attempt at the rate, then print."""
    results: list[tuple[float, bool]] = []
    began = time.monotonic()
    async with asyncio.TaskGroup() as attempts:
        for number in range(int(rate * seconds)):
            await asyncio.sleep(began + number / rate - time.monotonic())
            attempts.create_task(attempt(address, port, patience, results))
    print(json.dumps(sorted(results)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), *map(float, sys.argv[3:6])))
