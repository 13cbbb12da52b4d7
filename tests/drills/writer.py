# SPDX-License-Identifier: Apache-2.0
"""Writes intent while a drill disturbs the database, and says what was acknowledged. Runs on a database host.

`write SECONDS PREFIX` inserts security groups `PREFIX-N`, one transaction after the other, over JSON-RPC (RFC 7047)
with nothing between the bytes and the drill; `count PREFIX` says which of them are there; `remove PREFIX` takes them
away again.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
from typing import Any

SOCKET = "/run/qnet-database/qnet.sock"
ANSWER_SECONDS = 3.0
FIRST_NUMBER = 30_000  # far from what the modules give out in a lab


class Connection:
    """One JSON-RPC connection to the local member."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(ANSWER_SECONDS)
        self._socket.connect(SOCKET)
        self._buffer = ""
        self._decoder = json.JSONDecoder()

    def transact(self, *operations: dict[str, Any]) -> list[dict[str, Any]]:
        """Run operations; raises OSError without an answer, ValueError when one of them is refused."""
        self._send({"method": "transact", "params": ["QNet", *operations], "id": 1})
        while (reply := self._receive()).get("id") != 1:
            if reply.get("method") == "echo":
                self._send({"result": reply["params"], "error": None, "id": reply["id"]})
        results = reply["result"]
        if reply["error"] or any(result and "error" in result for result in results):
            raise ValueError(f"{reply['error'] or results}")
        return list(results)

    def _send(self, message: dict[str, Any]) -> None:
        self._socket.sendall(json.dumps(message).encode())

    def _receive(self) -> dict[str, Any]:
        while True:
            with contextlib.suppress(ValueError):
                found, end = self._decoder.raw_decode(self._buffer.lstrip())
                self._buffer = self._buffer.lstrip()[end:]
                return dict(found)
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionError("the database has closed the connection")
            self._buffer += data.decode()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


def insert(prefix: str, number: int) -> list[dict[str, Any]]:
    """A group, and a newer generation of the intent."""
    row = {"name": f"{prefix}-{number}", "tenant": "drill", "number": FIRST_NUMBER + number % 30_000}
    return [
        {"op": "insert", "table": "Security_Group", "row": row},
        {"op": "mutate", "table": "QNet_Global", "where": [], "mutations": [["generation", "+=", 1]]},
        {"op": "commit", "durable": True},
    ]


def write(seconds: float, prefix: str) -> dict[str, object]:
    """Write until the time is over. What was refused or not answered is not acknowledged, and tried no second time."""
    acknowledged: list[str] = []
    times: list[float] = []
    failed, number, connection = 0, 0, None
    print("ready", flush=True)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        number += 1
        try:
            connection = connection or Connection()
            connection.transact(*insert(prefix, number))
            acknowledged.append(f"{prefix}-{number}")
            times.append(time.monotonic())
        except (OSError, ValueError):
            failed += 1
            if connection:
                connection.close()
            connection = None
        time.sleep(0.02)
    return {"acknowledged": acknowledged, "times": times, "failed": failed}


def there(prefix: str) -> list[str]:
    """The groups of `write` that the local member has."""
    operation = {"op": "select", "table": "Security_Group", "where": [], "columns": ["name"]}
    rows = Connection().transact(operation)[0]["rows"]
    return sorted(row["name"] for row in rows if row["name"].startswith(f"{prefix}-"))


def main(argv: list[str]) -> None:
    """Entry point."""
    if argv[0] == "write":
        print(json.dumps(write(float(argv[1]), argv[2])), flush=True)
    elif argv[0] == "count":
        print(json.dumps(there(argv[1])))
    else:
        names = there(argv[1])
        gone = [{"op": "delete", "table": "Security_Group", "where": [["name", "==", name]]} for name in names]
        Connection().transact(*gone)
        print(json.dumps(names))


if __name__ == "__main__":
    main(sys.argv[1:])
