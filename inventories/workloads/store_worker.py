# SPDX-License-Identifier: Apache-2.0
"""A user's store: keeps short texts in memory, asked by lines over TCP and by datagrams over UDP, on any ports.

PUT key value, GET key, WHO (the pod that answers and the client it sees). TCP_PORTS and UDP_PORTS name the ports.
"""

from __future__ import annotations

import os
import socketserver
import threading

POD = os.environ.get("QNET_POD", "unknown")
MOST_KEYS = 1000
LONGEST_LINE = 1400

_store: dict[str, str] = {}
_lock = threading.Lock()


def answer(line: str, client: str) -> str:
    """The answer to one line."""
    command, _, rest = line.strip().partition(" ")
    key, _, value = rest.partition(" ")
    if command == "WHO":
        return f"{POD} {client}"
    if command == "GET":
        return _store.get(key, "?")
    if command != "PUT" or not key:
        return "PUT key value, GET key or WHO"
    with _lock:
        if key not in _store and len(_store) >= MOST_KEYS:
            return "full"
        _store[key] = value
    return "ok"


class Lines(socketserver.StreamRequestHandler):
    """One TCP connection: an answer for each line."""

    timeout = 20

    def handle(self) -> None:
        """Answer until the client goes."""
        while line := self.rfile.readline(LONGEST_LINE):
            self.wfile.write(answer(line.decode(errors="replace"), self.client_address[0]).encode() + b"\n")


class Datagrams(socketserver.BaseRequestHandler):
    """One UDP datagram: one answer."""

    def handle(self) -> None:
        """Answer the datagram."""
        data, socket = self.request
        text = answer(data[:LONGEST_LINE].decode(errors="replace"), self.client_address[0])
        socket.sendto(text.encode() + b"\n", self.client_address)


class TCPServer(socketserver.ThreadingTCPServer):
    """A TCP server that can start again at once."""

    allow_reuse_address = True
    daemon_threads = True


def main() -> None:
    """Answer on all ports, for ever."""
    servers: list[socketserver.BaseServer] = []
    for port in os.environ.get("TCP_PORTS", "").split():
        servers.append(TCPServer(("", int(port)), Lines))
    for port in os.environ.get("UDP_PORTS", "").split():
        servers.append(socketserver.ThreadingUDPServer(("", int(port)), Datagrams))
    threads = [threading.Thread(target=server.serve_forever) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
