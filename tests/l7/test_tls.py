# SPDX-License-Identifier: Apache-2.0
"""TLS with clients and with backends, with real handshakes."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest
from tests.l7.certificates import Authority
from tests.l7.conftest import Scene
from tests.l7.covers import covers


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def certificate(scene: Scene, authority: Authority, *names: str) -> dict[str, object]:
    """An entry of `certificates`; its files are beside the inventory."""
    scene.files[f"{names[0]}.pem"], scene.files[f"{names[0]}.key"] = authority.issue(*names)
    return {"certificate": f"{names[0]}.pem", "key": f"{names[0]}.key", "names": list(names)}


def handshake(scene: Scene, name: str | None, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
    """A TLS connection that asks for a name."""
    if context is None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(socket.create_connection((scene.server, scene.listen), 10), server_hostname=name)


def shown_name(scene: Scene, name: str | None) -> str:
    """The common name of the certificate that a client is shown."""
    from cryptography import x509

    with handshake(scene, name) as client:
        raw = client.getpeercert(binary_form=True)
    assert raw is not None
    return str(x509.load_der_x509_certificate(raw).subject.rfc4514_string()).removeprefix("CN=")


@covers("listener.certificates", "listener.protocol")
def test_a_client_gets_the_certificate_of_the_name_it_asks_for(scene: Scene, authority: Authority) -> None:
    names = (["first.example.org"], ["*.example.net", "example.net"], ["a.example.net"])
    certificates = [certificate(scene, authority, *these) for these in names]
    scene.configure(
        scene.route(), scene.route("deep", hosts=["b.example.net"]),
        listener={"protocol": "https", "certificates": certificates},
    )  # fmt: skip
    wanted = {
        "a.example.net": "a.example.net",
        "b.example.net": "*.example.net",
        "c.example.net": "*.example.net",
        "example.net": "*.example.net",
        "elsewhere.org": "first.example.org",
        None: "first.example.org",
    }
    assert {name: shown_name(scene, name) for name in wanted} == wanted
    answer = scene.get("/a", host="a.example.net", scheme="https")
    assert answer.said["headers"]["x-forwarded-proto"] == "https"


@covers(
    "listener.tls.protocols",
    "listener.tls.ciphers",
    "listener.tls.prefer_server_ciphers",
    "listener.tls.session_seconds",
    "listener.tls.session_tickets",
)
def test_versions_and_ciphers(scene: Scene, authority: Authority) -> None:
    tls = {
        "protocols": ["TLSv1.2"],
        "ciphers": "ECDHE-ECDSA-AES256-GCM-SHA384",
        "prefer_server_ciphers": True,
        "session_seconds": 600,
        "session_tickets": False,
    }
    certificates = [certificate(scene, authority, "www.example.org")]
    scene.configure(scene.route(), listener={"protocol": "https", "certificates": certificates, "tls": tls})
    with handshake(scene, "www.example.org") as client:
        assert client.version() == "TLSv1.2"
        assert (client.cipher() or ("",))[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"
        assert client.session is not None
        assert not client.session.has_ticket
    newer = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    newer.check_hostname, newer.verify_mode, newer.minimum_version = False, ssl.CERT_NONE, ssl.TLSVersion.TLSv1_3
    with pytest.raises(ssl.SSLError):
        handshake(scene, "www.example.org", newer)


@covers("listener.tls.client_ca", "listener.tls.client_verify", "listener.tls.client_verify_depth")
def test_clients_show_a_certificate(scene: Scene, authority: Authority, tmp_path: Path) -> None:
    scene.files["clients.pem"] = authority.certificate
    certificates = [certificate(scene, authority, "www.example.org")]
    own, key = authority.issue("client.example.org")
    (tmp_path / "own.pem").write_text(own + key)
    shown = ("--cert", str(tmp_path / "own.pem"))
    for verify, without in (("required", 400), ("optional", 200)):
        tls = {"client_ca": "clients.pem", "client_verify": verify, "client_verify_depth": 1}
        headers = {"request_set": {"X-Client": "$ssl_client_s_dn", "X-Verified": "$ssl_client_verify"}}
        scene.configure(
            scene.route(headers=headers), listener={"protocol": "https", "certificates": certificates, "tls": tls}
        )
        assert scene.get(scheme="https").status == without
        seen = scene.get("/", *shown, scheme="https").said["headers"]
        assert (seen["x-client"], seen["x-verified"]) == ("CN=client.example.org", "SUCCESS")


@covers(
    "route.backend_protocol",
    "route.backend_tls.verify",
    "route.backend_tls.ca",
    "route.backend_tls.name",
    "route.backend_tls.certificate",
    "route.backend_tls.key",
)
def test_backends_are_asked_over_tls_and_have_to_prove_who_they_are(
    scene: Scene, authority: Authority, tmp_path: Path
) -> None:
    inner, inner_key = authority.issue("inner.example.org")
    (tmp_path / "inner.pem").write_text(inner + inner_key)
    (tmp_path / "ca.pem").write_text(authority.certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "inner.pem")
    context.load_verify_locations(tmp_path / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    scene.backends.stop(scene.service_ip(), scene.port)
    scene.backends.start("image-tls", scene.service_ip(), scene.port, tls=context)
    scene.files["ca.pem"] = authority.certificate
    scene.files["own.pem"], scene.files["own.key"] = authority.issue("balancer.example.org")
    tls = {"verify": True, "ca": "ca.pem", "name": "inner.example.org", "certificate": "own.pem", "key": "own.key"}
    scene.configure(scene.route(backend_protocol="https", backend_tls=tls))
    assert scene.get().pod == "image-tls"
    scene.configure(scene.route(backend_protocol="https", backend_tls={**tls, "name": "other.example.org"}))
    assert scene.get().status == 502
