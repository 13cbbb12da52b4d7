# SPDX-License-Identifier: Apache-2.0
"""HTTP/2, gRPC, WebSocket, TCP and UDP, with public clients."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest
from tests.l7.balancer import Refused
from tests.l7.certificates import Authority
from tests.l7.conftest import Scene
from tests.l7.covers import covers
from tests.l7.test_tls import certificate, handshake, shown_name
from websockets.asyncio.client import connect


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@covers("listener.http2", "listener.client_connections.streams")
def test_http2_over_tls_under_h2load(scene: Scene, authority: Authority) -> None:
    certificates = [certificate(scene, authority, "www.example.org")]
    listener = {"protocol": "https", "certificates": certificates, "client_connections": {"streams": 16}}
    scene.configure(scene.route(), listener=listener)
    assert scene.get(scheme="https").version == "HTTP/2"
    url = f"https://{scene.server}:{scene.listen}/"
    load = subprocess.run(
        ["h2load", "-n", "200", "-c", "2", "-m", "8", url], capture_output=True, text=True, check=True
    )
    assert "Application protocol: h2" in load.stdout
    assert re.search(r"requests: 200 total, .* 200 succeeded, 0 failed", load.stdout)
    scene.configure(scene.route(), listener={**listener, "http2": False})
    assert scene.get(scheme="https").version == "HTTP/1.1"


@contextmanager
def grpc_backend(scene: Scene, address: str) -> Iterator[None]:
    """A gRPC server without generated code: /echo.Echo/{Say,Count,Fail}, bytes in and out."""

    def say(request: bytes, context: grpc.ServicerContext) -> bytes:
        told = dict(context.invocation_metadata())
        return b"said " + request + b" " + str(told.get("x-added", "")).encode()

    def count(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield from (str(number).encode() for number in range(int(request)))

    def fail(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now")
        raise AssertionError("abort returned")

    handlers = {
        "Say": grpc.unary_unary_rpc_method_handler(say),
        "Count": grpc.unary_stream_rpc_method_handler(count),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
    }
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo.Echo", handlers),))
    with scene.place.inside(address):
        server.add_insecure_port(f"{address}:{scene.port}")
    server.start()
    try:
        yield
    finally:
        server.stop(None).wait(5)


@covers("route.backend_protocol", "listener.http2", "route.headers.request_set", "route.balance.method")
@pytest.mark.parametrize("method", ["service_ip", "round_robin"])
def test_grpc_calls_streams_and_errors(scene: Scene, method: str) -> None:
    where = scene.service_ip() if method == "service_ip" else scene.address("fop/image", 1)
    scene.backends.stop(where, scene.port)
    scene.pods("fop/image", 1, start=False)
    (pod,) = scene.place.behind(where)
    route = scene.route(
        path="/echo.Echo/", backend_protocol="grpc", balance={"method": method},
        headers={"request_set": {"X-Added": "by the balancer"}},
    )  # fmt: skip
    scene.configure(route, listener={"http2": True})
    with grpc_backend(scene, pod), grpc.insecure_channel(f"{scene.server}:{scene.listen}") as channel:
        say = channel.unary_unary("/echo.Echo/Say")
        assert say(b"hello", timeout=10) == b"said hello by the balancer"
        assert list(channel.unary_stream("/echo.Echo/Count")(b"50", timeout=10)) == [b"%d" % n for n in range(50)]
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/echo.Echo/Fail")(b"", timeout=10)
        assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION


@covers("route.websocket", "route.balance.method")
def test_websockets_survive_changes_of_pods_and_of_routes(scene: Scene) -> None:
    route = scene.route(backends=[scene.backend("fop/agents")], balance={"method": "round_robin"})

    async def talk() -> None:
        url = f"ws://{scene.server}:{scene.listen}/ws"
        sockets = await asyncio.gather(*(connect(url, proxy=None) for _ in range(30)))
        first = [await _answer(one, "before") for one in sockets]
        assert Counter(first) == {f"agents-{number} before": 10 for number in (1, 2, 3)}
        # Another pod, another route: the first without, the second with a reload.
        # (A pod that is no longer declared loses its connections: that is the network's doing.)
        await asyncio.to_thread(scene.pods, "fop/agents", 3, start=False, draining=["agents-3"])
        await asyncio.to_thread(
            scene.configure, {**route, "timeouts": {"read_seconds": 30}}, scene.route("b", path="/b")
        )
        after = [await _answer(one, "after") for one in sockets]
        assert after == [text.replace("before", "after") for text in first]
        for one in sockets:
            await one.close()

    scene.configure(route)
    asyncio.run(talk())


async def _answer(socket_: object, text: str) -> str:
    await socket_.send(text)  # type: ignore[attr-defined]
    return str(await asyncio.wait_for(socket_.recv(), 10))  # type: ignore[attr-defined]


@covers("listener.protocol")
def test_connections_that_outlive_the_shutdown_time_are_closed(scene: Scene) -> None:
    async def talk() -> None:
        async with connect(f"ws://{scene.server}:{scene.listen}/ws", proxy=None) as one:
            assert (await _answer(one, "x")).split()[0] in scene.over_network()
            await asyncio.to_thread(
                scene.configure, scene.route(path="/"), scene.route("b", path="/b"), shutdown_seconds=1
            )
            await asyncio.wait_for(one.wait_closed(), 20)

    scene.configure(scene.route(), shutdown_seconds=1)
    asyncio.run(talk())


# TCP and UDP


def stream(scene: Scene, protocol: str, *routes: Mapping[str, object], **listener: object) -> None:
    """Have one listener over TCP or UDP."""
    mine = [{"listener": "raw", "name": f"r{number}", **route} for number, route in enumerate(routes)]
    told = scene.listener(name="raw", protocol=protocol, **listener)
    scene.balancer.configure([told], mine, scene.files)


def line(scene: Scene, text: str, number: int = 1) -> str:
    """One line over TCP, and the answer; empty when the connection is closed."""
    with socket.create_connection((scene.server, scene.listen), 10, source_address=(scene.client(number), 0)) as client:
        client.sendall(text.encode() + b"\n")
        try:
            return client.recv(1000).decode().strip()
        except ConnectionResetError:
            return ""


@covers("listener.protocol", "route.session.idle_seconds", "route.access", "route.bandwidth.upload_bytes_per_second")
def test_tcp(scene: Scene) -> None:
    address = scene.service_ip()
    scene.backends.stop(address, scene.port)
    scene.backends.start_tcp("image", address, scene.port)
    route = {
        "backends": [scene.backend()],
        "session": {"idle_seconds": 1},
        "access": [{"deny": scene.client(9)}],
        "timeouts": {"connect_seconds": 2},
        "bandwidth": {"bytes_per_second": "1m", "upload_bytes_per_second": "1m"},
    }
    stream(scene, "tcp", route)
    assert line(scene, "hello") == "image hello"
    assert line(scene, "hello", 9) == ""
    with socket.create_connection((scene.server, scene.listen), 10) as client:
        client.settimeout(10)
        assert client.recv(10) == b"", "it was silent for too long, and is closed"
    (entry, *_) = scene.balancer.log(name="sessions")
    assert (entry["listener"], entry["route"], entry["service"]) == ("raw", "raw/r0", "fop/image")


@covers("route.send_proxy_protocol", "listener.proxy_protocol", "listener.real_client.trusted")
def test_tcp_with_the_proxy_protocol_on_both_sides(scene: Scene) -> None:
    address = scene.service_ip()
    scene.backends.stop(address, scene.port)
    scene.backends.start_tcp("image", address, scene.port)
    route = {"backends": [scene.backend()], "send_proxy_protocol": True}
    stream(scene, "tcp", route, proxy_protocol=True, real_client={"trusted": [scene.client(1)]})
    with socket.create_connection((scene.server, scene.listen), 10) as client:
        client.sendall(b"PROXY TCP4 198.51.100.7 192.0.2.1 4711 80\r\nhello\n")
        answer = b""
        while b"hello" not in answer:
            answer += client.recv(1000)
    assert b"image PROXY TCP4 198.51.100.7 " in answer


@covers("route.hosts", "listener.protocol")
def test_tcp_is_routed_by_the_name_in_the_tls_hello(scene: Scene, authority: Authority, tmp_path: object) -> None:
    named = {"backends": [scene.backend("fop/image")], "hosts": ["*.example.org"]}
    other = {"backends": [scene.backend("fop/agents")]}
    told: list[bytes] = []
    # The backends are no TLS servers: it is enough to see to which of them the hello was handed.
    for service in ("image", "agents"):
        scene.pods(f"fop/{service}", 1, start=False)
        address = scene.service_ip(f"fop/{service}")
        scene.backends.stop(address, scene.port)
        listening = scene.place.listen(scene.place.behind(address)[0], scene.port)
        listening.setblocking(True)
        listening.listen()
        threading.Thread(target=_tell, args=(listening, service, told), daemon=True).start()
    stream(scene, "tcp", named, other)
    for name in ("a.example.org", "example.net"):
        command = ["curl", "-sk", "--noproxy", "*", "--max-time", "5", "--resolve"]
        command += [f"{name}:{scene.listen}:{scene.server}", f"https://{name}:{scene.listen}/"]
        subprocess.run(command, capture_output=True, check=False)
    assert told == [b"image", b"agents"]


def _tell(listening: socket.socket, service: str, told: list[bytes]) -> None:
    client, _ = listening.accept()
    assert client.recv(1) == b"\x16"  # a TLS handshake
    told.append(service.encode())
    client.close()
    listening.close()


@covers("listener.certificates", "listener.protocol")
def test_tls_is_ended_for_plain_tcp_backends(scene: Scene, authority: Authority) -> None:
    address = scene.service_ip()
    scene.backends.stop(address, scene.port)
    scene.backends.start_tcp("image", address, scene.port)
    mine = certificate(scene, authority, "www.example.org")
    stream(scene, "tcp", {"backends": [scene.backend()]}, certificates=[mine])
    with handshake(scene, "www.example.org") as client:
        client.sendall(b"hello\n")
        assert client.recv(100) == b"image hello\n"


@covers("listener.certificates", "listener.protocol")
def test_tcp_clients_get_the_certificate_of_the_name_they_ask_for(scene: Scene, authority: Authority) -> None:
    address = scene.service_ip()
    scene.backends.stop(address, scene.port)
    scene.backends.start_tcp("image", address, scene.port)
    names = (["first.example.org"], ["*.example.net", "example.net"], ["a.example.net"])
    certificates = [certificate(scene, authority, *these) for these in names]
    stream(scene, "tcp", {"backends": [scene.backend()]}, certificates=certificates)
    wanted = {
        "a.example.net": "a.example.net",
        "c.example.net": "*.example.net",
        "example.net": "*.example.net",
        "elsewhere.org": "first.example.org",
        None: "first.example.org",
    }
    assert {name: shown_name(scene, name) for name in wanted} == wanted
    with handshake(scene, "a.example.net") as client:
        client.sendall(b"hello\n")
        assert client.recv(100) == b"image hello\n"
    scene.files["a.example.net.pem"] = "no certificate"
    with pytest.raises(Refused, match=r"qnet_l7_listeners\[0\]\.certificates\[2\]: nginx refuses it"):
        stream(scene, "tcp", {"backends": [scene.backend()]}, certificates=certificates)


@covers("listener.protocol", "route.session.udp_answers", "route.session.udp_requests")
def test_udp(scene: Scene) -> None:
    address = scene.service_ip()
    scene.backends.start_udp("image", address, scene.port)
    stream(scene, "udp", {"backends": [scene.backend()], "session": {"udp_answers": 1, "udp_requests": 1}})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        client.connect((scene.server, scene.listen))
        for text in (b"one", b"two"):
            client.send(text)
            assert client.recv(100) == b"image " + text


@covers("route.connection_limit.most", "route.backends", "route.split_by")
def test_tcp_is_split_and_limited(scene: Scene) -> None:
    for service in ("image", "agents"):
        address = scene.service_ip(f"fop/{service}")
        scene.backends.stop(address, scene.port)
        scene.backends.start_tcp(service, address, scene.port)
    both = [scene.backend("fop/image"), scene.backend("fop/agents")]
    stream(scene, "tcp", {"backends": both, "split_by": "$remote_addr", "connection_limit": {"most": 1}})
    by_source = {number: line(scene, "x", number) for number in range(1, 30)}
    assert set(by_source.values()) == {"image x", "agents x"}
    with socket.create_connection((scene.server, scene.listen), 10) as first:
        first.sendall(b"x\n")
        assert first.recv(100)
        assert line(scene, "x") == ""
