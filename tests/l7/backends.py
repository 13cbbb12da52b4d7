# SPDX-License-Identifier: Apache-2.0
"""Real servers that play the pods: each says who it is and what it was asked."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from aiohttp import WSMsgType, web
from tests.l7.place import Loopback

POD = web.AppKey("pod", str)
LOG = web.AppKey("log", Counter[str])


async def _echo(request: web.Request) -> web.StreamResponse:
    """What was asked, as JSON."""
    request.app[LOG][request.path] += 1
    body = await request.read()
    headers = {name.lower(): value for name, value in request.headers.items()}
    return web.json_response(
        {
            "pod": request.app[POD],
            "method": request.method,
            "path": request.path_qs,
            "headers": headers,
            "body": body.decode(errors="replace")[:200],
            "length": len(body),
            "version": f"{request.version.major}.{request.version.minor}",
            "connection": id(request.transport),
        },
        headers={"X-Pod": request.app[POD], "X-Secret": "of the backend"},
    )


async def _status(request: web.Request) -> web.StreamResponse:
    request.app[LOG][request.path] += 1
    return web.Response(status=int(request.match_info["status"]), text=f"{request.app[POD]} says so\n")


async def _big(request: web.Request) -> web.StreamResponse:
    size = int(request.match_info["size"])
    return web.Response(body=(b"0123456789abcdef" * (size // 16 + 1))[:size], content_type="text/css")


async def _cookie(request: web.Request) -> web.StreamResponse:
    answer = web.Response(text="ok")
    answer.set_cookie("session", "1", domain="backend.internal", path="/inner")
    return answer


async def _location(request: web.Request) -> web.StreamResponse:
    return web.Response(status=302, headers={"Location": "http://backend.internal/inner/page"})


async def _slow(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(float(request.match_info["seconds"]))
    return await _echo(request)


async def _stream(request: web.Request) -> web.StreamResponse:
    """Two pieces; the second one only after the client has said, on /go, that it got the first."""
    answer = web.StreamResponse()
    request.app[GO].clear()
    await answer.prepare(request)
    await answer.write(b"first\n")
    await asyncio.wait_for(request.app[GO].wait(), 10)
    await answer.write(b"second\n")
    return answer


async def _go(request: web.Request) -> web.StreamResponse:
    request.app[GO].set()
    return web.Response(text="ok")


async def _authorise(request: web.Request) -> web.StreamResponse:
    request.app[LOG][request.headers.get("X-Original-URI", "")] += 1
    if request.headers.get("Authorization") == "Bearer good":
        return web.Response(headers={"X-User": "ann"})
    return web.Response(status=401)


async def _websocket(request: web.Request) -> web.StreamResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        if message.type == WSMsgType.TEXT:
            await socket.send_str(f"{request.app[POD]} {message.data}")
    return socket


GO = web.AppKey("go", asyncio.Event)


def application(pod: str, go: asyncio.Event) -> web.Application:
    """The server of one pod. `go` is of all: over a Service IP any of them may be asked."""
    app = web.Application(client_max_size=1 << 30)
    app[POD], app[LOG], app[GO] = pod, Counter(), go
    app.router.add_get("/status/{status}", _status)
    app.router.add_get("/big/{size}", _big)
    app.router.add_get("/cookie", _cookie)
    app.router.add_get("/location", _location)
    app.router.add_get("/slow/{seconds}", _slow)
    app.router.add_get("/stream", _stream)
    app.router.add_get("/go", _go)
    app.router.add_get("/authorise", _authorise)
    app.router.add_get("/ws", _websocket)
    app.router.add_route("*", "/{path:.*}", _echo)
    return app


class Backends:
    """Servers on the addresses of pods, in a thread of their own."""

    def __init__(self, place: Loopback) -> None:
        self.place = place
        self._loop = asyncio.new_event_loop()
        self._go = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._running: dict[tuple[str, int], Callable[[], Coroutine[Any, Any, None]]] = {}
        self._logs: dict[tuple[str, int], Counter[str]] = {}

    def start(self, pod: str, address: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        """Serve HTTP as a pod, or as each that is behind a Service IP."""
        for one in self.place.behind(address):
            self._start(pod, one, port, tls)

    def asked(self, address: str, port: int, path: str) -> int:
        """How often the server at an address (or those behind a Service IP) was asked for a path."""
        return sum(self._logs[one, port][path] for one in self.place.behind(address))

    def _start(self, pod: str, address: str, port: int, tls: ssl.SSLContext | None) -> None:
        bound = self.place.listen(address, port)

        async def serve() -> None:
            app = application(pod, self._go)
            runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
            await runner.setup()
            await web.SockSite(runner, bound, ssl_context=tls).start()
            self._running[address, port] = runner.cleanup
            self._logs[address, port] = app[LOG]

        self._wait(serve())

    def start_tcp(self, pod: str, address: str, port: int) -> None:
        """Serve lines over TCP: answers with the name of the pod and the line, prefixed by a PROXY line if one came."""
        for one in self.place.behind(address):
            self._start_tcp(pod, one, port)

    def _start_tcp(self, pod: str, address: str, port: int) -> None:
        bound = self.place.listen(address, port)

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while line := await reader.readline():
                writer.write(f"{pod} ".encode() + line)
                await writer.drain()
            writer.close()

        async def serve() -> None:
            server = await asyncio.start_server(talk, sock=bound)

            async def stop() -> None:
                server.close()

            self._running[address, port] = stop

        self._wait(serve())

    def start_udp(self, pod: str, address: str, port: int) -> None:
        """Answer datagrams."""
        for one in self.place.behind(address):
            self._start_udp(pod, one, port)

    def _start_udp(self, pod: str, address: str, port: int) -> None:
        bound = self.place.listen(address, port, socket.SOCK_DGRAM)

        class Talk(asyncio.DatagramProtocol):
            def connection_made(self, transport: Any) -> None:
                self.transport = transport

            def datagram_received(self, data: bytes, client: Any) -> None:
                self.transport.sendto(f"{pod} ".encode() + data, client)

        async def serve() -> None:
            transport, _ = await self._loop.create_datagram_endpoint(Talk, sock=bound)

            async def stop() -> None:
                transport.close()

            self._running[address, -port] = stop  # beside a server over TCP on the same port

        self._wait(serve())

    def stop(self, address: str, port: int) -> None:
        """The pod's process ends (or those behind a Service IP): connections are reset, new ones refused."""
        for one in self.place.behind(address):
            self._wait(self._running.pop((one, port))())

    def close(self) -> None:
        """End all of them."""
        for place in list(self._running):
            self._wait(self._running.pop(place)())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _wait(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)


def said(body: bytes | str) -> dict[str, Any]:
    """What _echo answered."""
    found: dict[str, Any] = json.loads(body)
    return found
