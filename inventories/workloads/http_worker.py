# SPDX-License-Identifier: Apache-2.0
"""What all HTTP workers share: a small server that says which pod answered, and a client that keeps that trail.

Every response carries X-Qnet-Pod (the pod that answered), X-Qnet-Client (the address it saw) and X-Qnet-Trail (the pods
that had a part in it, from the caller's side to the last one).
"""

from __future__ import annotations

import os
import socketserver
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

POD = os.environ.get("QNET_POD", "unknown")
LARGEST_BODY = 32 * 1024 * 1024
TIMEOUT_SECONDS = 20


@dataclass(frozen=True)
class Request:
    """A request: its path without the query, the last value of each query key, the body and the client's address."""

    path: str
    query: Mapping[str, str]
    body: bytes
    client: str


@dataclass(frozen=True)
class Response:
    """A response. `trail`: the pods that were asked for it, in order."""

    body: bytes
    media_type: str = "text/plain; charset=utf-8"
    status: int = 200
    trail: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


class Refused(Exception):
    """The request cannot be answered; `status` is the HTTP status and the text the reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


Handle = Callable[[Request], Response]


def ask(url: str, body: bytes | None = None) -> Response:
    """Fetch `url` on a connection of its own, so that every request is balanced. Refused with 502 when it fails."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, data=body), timeout=TIMEOUT_SECONDS) as answer:
            trail = tuple(answer.headers.get("X-Qnet-Trail", "").split())
            kept = {name: value for name, value in answer.headers.items() if name == "X-Qnet-Cache"}
            return Response(answer.read(LARGEST_BODY), answer.headers.get_content_type(), 200, trail, kept)
    except urllib.error.HTTPError as error:
        raise Refused(error.code, error.read(2000).decode(errors="replace")) from error
    except OSError as error:
        raise Refused(502, f"{POD}: {url.split('?')[0]} does not answer: {error}\n") from error


def number(request: Request, key: str, default: int, low: int, high: int) -> int:
    """The query value `key` as a whole number from `low` to `high`. Refused with 400 otherwise."""
    text = request.query.get(key, str(default))
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise Refused(400, f"{key}={text}: must be a number from {low} to {high}\n")
    return int(text)


def serve(handle: Handle) -> None:
    """Answer requests on the port that the environment variable PORT names, for ever."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = TIMEOUT_SECONDS

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            try:
                response = handle(self._request())
            except Refused as refused:
                response = Response(str(refused).encode(), status=refused.status)
            self.send_response(response.status)
            self.send_header("Content-Type", response.media_type)
            self.send_header("Content-Length", str(len(response.body)))
            self.send_header("X-Qnet-Pod", POD)
            self.send_header("X-Qnet-Client", self.client_address[0])
            self.send_header("X-Qnet-Trail", " ".join((POD, *response.trail)))
            for name, value in response.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(response.body)

        def _request(self) -> Request:
            length = self.headers.get("Content-Length", "0")
            if not length.isdigit() or int(length) > LARGEST_BODY:
                self.close_connection = True
                raise Refused(413, f"the body has more than {LARGEST_BODY} bytes, or no valid length\n")
            url = urllib.parse.urlsplit(self.path)
            query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
            return Request(url.path, query, self.rfile.read(int(length)), self.client_address[0])

    class Server(ThreadingHTTPServer):
        request_queue_size = 128
        daemon_threads = True

        def server_bind(self) -> None:
            # HTTPServer asks the DNS for its own name here, which no pod can do.
            socketserver.TCPServer.server_bind(self)

    port = int(os.environ["PORT"])
    print(f"{POD}: listening on port {port}", flush=True)
    Server(("", port), Handler).serve_forever()
