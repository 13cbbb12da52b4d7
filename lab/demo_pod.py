# SPDX-License-Identifier: Apache-2.0
"""What lab/demo runs inside the network namespace of a pod: python3 - ORDER, where ORDER is JSON. Answers with JSON.

{"get": [URL, …], "parallel": 4, "keep": true}: fetch. {"ask": [[PROTOCOL, ADDRESS, PORT], …]}: one TCP line or UDP
datagram each. {"listen": PORT, "name": POD, "seconds": 20}: answer on PORT, TCP and UDP, and say "listening" first.
"""

import base64
import concurrent.futures
import json
import socket
import socketserver
import sys
import threading
import time
import urllib.error
import urllib.request

TIMEOUT_SECONDS = 2.5


def get(url: str, keep: bool) -> dict[str, object]:
    """Fetch one URL on a connection of its own."""
    began = time.monotonic()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=20) as answer:
            body = answer.read()
            headers = {name.lower(): value for name, value in answer.headers.items()}
            result: dict[str, object] = {"status": answer.status, "bytes": len(body), "headers": headers}
            if keep:
                result["body"] = base64.b64encode(body).decode()
    except urllib.error.HTTPError as error:
        headers = {name.lower(): value for name, value in error.headers.items()}
        result = {"status": error.code, "error": str(error), "headers": headers}
    except OSError as error:
        result = {"status": 0, "error": str(error)}
    result["milliseconds"] = (time.monotonic() - began) * 1000
    return result


def family(address: str) -> socket.AddressFamily:
    """What kind of socket an address is for."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def ask(protocol: str, address: str, port: int) -> dict[str, object]:
    """Send one line and return the answer, or why there is none."""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    began = time.monotonic()
    with socket.socket(family(address), kind) as connection:
        connection.settimeout(TIMEOUT_SECONDS)
        try:
            connection.connect((address, port))
            connection.sendall(b"hello\n")
            result: dict[str, object] = {"answer": connection.recv(2000).decode().strip()}
        except OSError as error:
            result = {"error": str(error)}
    result["milliseconds"] = (time.monotonic() - began) * 1000
    return result


class Line(socketserver.BaseRequestHandler):
    """One connection or datagram: who answers, and whom it sees."""

    name = ""

    def handle(self) -> None:
        """Answer once."""
        text = f"{self.name} saw {self.client_address[0]}\n".encode()
        if isinstance(self.request, tuple):
            self.request[1].sendto(text, self.client_address)
        else:
            self.request.recv(100)
            self.request.sendall(text)


def serve(base: type[socketserver.BaseServer], address: str, port: int) -> None:
    """Answer in the background, on one address and its family alone."""

    class Server(base):  # type: ignore[misc, valid-type]
        address_family = family(address)
        allow_reuse_address = True

        def server_bind(self) -> None:
            if self.address_family == socket.AF_INET6:
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            super().server_bind()

    threading.Thread(target=Server((address, port), Line).serve_forever, daemon=True).start()


def listen(port: int, name: str, seconds: float) -> None:
    """Answer on `port` for a while, over IPv4 and IPv6, TCP and UDP."""
    Line.name = name
    for base in (socketserver.ThreadingTCPServer, socketserver.ThreadingUDPServer):
        for address in ("0.0.0.0", "::"):
            serve(base, address, port)
    print("listening", flush=True)
    end = time.monotonic() + seconds
    while time.monotonic() < end:  # what reads this goes away when lab/demo is done, and then so do we
        time.sleep(0.3)
        print(".", flush=True)


def main() -> None:
    """Carry out the order."""
    order = json.loads(sys.argv[1])
    if "listen" in order:
        listen(order["listen"], order["name"], order["seconds"])
        return
    with concurrent.futures.ThreadPoolExecutor(order.get("parallel", 1)) as pool:
        if "get" in order:
            results = list(pool.map(lambda url: get(url, order.get("keep", False)), order["get"]))
        else:
            results = list(pool.map(lambda target: ask(*target), order["ask"]))
    print(json.dumps(results))


main()
