# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The control node's half of qnet_certificate: the CA, and whether a host's certificate is still good."""

from __future__ import annotations

import datetime
import fcntl
import ipaddress
import os
import pathlib
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

MODULE = "qiniu.qnet.qnet_certificate"
CA_NAME = "qnet CA"
CA_VALIDITY = datetime.timedelta(days=3650)
CLOCK_SKEW = datetime.timedelta(hours=1)  # a host whose clock is a little behind must accept what was just signed
USAGES = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]


def now() -> datetime.datetime:
    """The present, in UTC."""
    return datetime.datetime.now(tz=datetime.UTC)


def common_name(text: str) -> x509.Name:
    """A subject of nothing but a common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def general_name(text: str) -> x509.GeneralName:
    """An address as an IP name, anything else as a DNS name."""
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def alternative_names(name: str, addresses: list[str]) -> x509.SubjectAlternativeName:
    """The names a certificate is valid for, each once, in order."""
    return x509.SubjectAlternativeName([general_name(text) for text in dict.fromkeys([name, *addresses])])


def expiry(certificate: x509.Certificate) -> datetime.datetime:
    """When a certificate expires."""
    return certificate.not_valid_after_utc


def issued(certificate: x509.Certificate) -> datetime.datetime:
    """When this CA issued a certificate."""
    return certificate.not_valid_before_utc + CLOCK_SKEW


def moment(text: str) -> datetime.datetime:
    """A moment that is over, from ISO 8601; without an offset it is UTC. Raises AnsibleActionFail."""
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise AnsibleActionFail(
            f"renew_issued_before: '{text}' is no moment; write it as ISO 8601, such as 2026-11-28T15:00:00Z"
        ) from error
    found = found if found.tzinfo else found.replace(tzinfo=datetime.UTC)
    if found > now():
        raise AnsibleActionFail(
            f"renew_issued_before: {text} has not come yet, so every run would renew the certificate; name a moment "
            "that is over"
        )
    return found


def key_usage(*, authority: bool) -> x509.KeyUsage:
    """Signing certificates for a CA, signing handshakes for a host."""
    return x509.KeyUsage(
        digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def builder(
    subject: x509.Name, issuer: x509.Name, public_key: Any, validity: datetime.timedelta
) -> x509.CertificateBuilder:
    """What every certificate of this CA has in common."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - CLOCK_SKEW)
        .not_valid_after(now() + validity)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def pem(certificate: x509.Certificate) -> str:
    """A certificate as text."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


class Authority:
    """The CA: a key and a certificate in a directory of the control node."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self.key = key
        self.certificate = certificate

    @classmethod
    def load(cls, directory: pathlib.Path) -> Authority | None:
        """The CA of a directory, or None when there is none. Raises AnsibleActionFail when half of it is missing."""
        key, certificate = directory / "ca.key", directory / "ca.pem"
        if not key.exists() and not certificate.exists():
            return None
        try:
            private = serialization.load_pem_private_key(key.read_bytes(), password=None)
            if not isinstance(private, ec.EllipticCurvePrivateKey):
                raise ValueError("ca.key is no key of an elliptic curve")
            return cls(private, x509.load_pem_x509_certificate(certificate.read_bytes()))
        except (OSError, ValueError) as error:
            raise AnsibleActionFail(
                f"ca_directory: the CA in {directory} cannot be used: {error}; restore ca.key and ca.pem from a "
                "backup, or move both away to start a new CA (every host then gets a new certificate)"
            ) from error

    @classmethod
    def ensure(cls, directory: pathlib.Path) -> Authority:
        """Load the CA, or make it; hosts are handled in parallel, so the first one makes it for all."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (directory / ".lock").open("w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return cls.load(directory) or cls.create(directory)

    @classmethod
    def create(cls, directory: pathlib.Path) -> Authority:
        """Make a new CA. The key is in place before the certificate that everybody trusts."""
        key, name = ec.generate_private_key(ec.SECP256R1()), common_name(CA_NAME)
        certificate = (
            builder(name, name, key.public_key(), CA_VALIDITY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(key_usage(authority=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        for name_of_file, content, mode in (("ca.key", secret, 0o600), ("ca.pem", pem(certificate).encode(), 0o644)):
            partial = directory / f".{name_of_file}.new"
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
                file.write(content)
            partial.replace(directory / name_of_file)
        return cls(key, certificate)

    def sign(self, request: x509.CertificateSigningRequest, name: str, addresses: list[str], days: int) -> str:
        """A host certificate as PEM. From the request comes only the public key."""
        if not request.is_signature_valid:
            raise AnsibleActionFail(f"{name}: the signing request is not signed by its own key; run the play again")
        issuer = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        certificate = (
            builder(common_name(name), self.certificate.subject, request.public_key(), datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(USAGES), critical=False)
            .add_extension(alternative_names(name, addresses), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return pem(certificate)

    def fault(
        self,
        certificate: x509.Certificate,
        request: x509.CertificateSigningRequest,
        name: str,
        addresses: list[str],
        days: int,
    ) -> str:
        """Why a host certificate has to be replaced, or an empty string."""
        try:
            certificate.verify_directly_issued_by(self.certificate)
        except (ValueError, TypeError, InvalidSignature):
            return "it is not signed by the CA"
        if certificate.public_key() != request.public_key():
            return "it belongs to another key"
        if certificate.subject != common_name(name):
            return "its common name differs"
        wanted: dict[Any, x509.ExtensionType] = {
            x509.ExtendedKeyUsage: x509.ExtendedKeyUsage(USAGES),
            x509.SubjectAlternativeName: alternative_names(name, addresses),
        }
        for kind, value in wanted.items():
            try:
                if certificate.extensions.get_extension_for_class(kind).value != value:
                    return f"its {kind.oid._name} differs"
            except x509.ExtensionNotFound:
                return f"it has no {kind.oid._name}"
        if expiry(certificate) - now() < datetime.timedelta(days=days):
            return "it is about to expire"
        return ""


def parse(text: str) -> x509.Certificate | None:
    """A certificate from PEM; None when the text is none."""
    try:
        return x509.load_pem_x509_certificate(text.encode())
    except ValueError:
        return None


def describe(text: str) -> str:
    """What a person wants to know of a certificate."""
    certificate = parse(text)
    if certificate is None:
        return ""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return (
        f"subject: {certificate.subject.rfc4514_string()}\nnames: {', '.join(str(name.value) for name in names)}\n"
        f"expires: {expiry(certificate).isoformat()}\nserial: {certificate.serial_number:x}\n"
    )


class ActionModule(ActionBase):
    """Ask the host for its request and certificate, sign a new one here if needed, and put it there."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the result of the module, with `changed`, `expires` and a diff of the certificate."""
        super().run(tmp, task_vars)
        dummy, arguments = self.validate_argument_spec(
            argument_spec={
                "name": {"type": "str", "required": True},
                "addresses": {"type": "list", "elements": "str", "default": []},
                "ca_directory": {"type": "path", "required": True},
                "directory": {"type": "path", "default": "/etc/qnet/pki"},
                "group": {"type": "str", "default": "qnet"},
                "validity_days": {"type": "int", "default": 365},
                "renew_before_days": {"type": "int", "default": 60},
                "renew_issued_before": {"type": "str"},
            }
        )
        check_mode = self._task.check_mode
        if arguments["validity_days"] <= arguments["renew_before_days"]:
            raise AnsibleActionFail(
                f"validity_days: {arguments['validity_days']} must be more than renew_before_days "
                f"({arguments['renew_before_days']}), or every run would renew the certificate"
            )
        since = moment(arguments["renew_issued_before"]) if arguments["renew_issued_before"] else None
        directory = pathlib.Path(arguments["ca_directory"])
        authority = Authority.load(directory) if check_mode else Authority.ensure(directory)
        have = self.on_host(arguments, authority, None, task_vars)
        if have.get("failed"):
            return have
        fault = self.fault(authority, have, arguments, since)
        if not fault:
            return self.result(have, have["certificate"], have["certificate"])
        if check_mode or authority is None:
            return self.result({**have, "changed": True}, have["certificate"], "", fault)
        request = x509.load_pem_x509_csr(have["request"].encode())
        signed = authority.sign(request, arguments["name"], arguments["addresses"], arguments["validity_days"])
        done = self.on_host(arguments, authority, signed, task_vars)
        if done.get("failed"):
            return done
        return self.result({**done, "changed": True}, have["certificate"], signed, fault)

    def on_host(
        self,
        arguments: dict[str, Any],
        authority: Authority | None,
        certificate: str | None,
        task_vars: dict[str, Any] | None,
    ) -> dict[str, Any]:
        """Run the module on the host."""
        texts = {"ca_certificate": pem(authority.certificate) if authority else None, "certificate": certificate}
        return self._execute_module(module_name=MODULE, module_args={**arguments, **texts}, task_vars=task_vars)

    @staticmethod
    def fault(
        authority: Authority | None, have: dict[str, Any], arguments: dict[str, Any], since: datetime.datetime | None
    ) -> str:
        """Why the host needs a new certificate, or an empty string."""
        certificate = parse(have["certificate"])
        if authority is None:
            return "there is no CA yet"
        if certificate is None or not have["request"]:
            return "there is none yet"
        if since is not None and issued(certificate) < since:
            return f"it was issued before {since.isoformat()}"
        request = x509.load_pem_x509_csr(have["request"].encode())
        return authority.fault(
            certificate, request, arguments["name"], arguments["addresses"], arguments["renew_before_days"]
        )

    @staticmethod
    def result(result: dict[str, Any], before: str, after: str, fault: str = "") -> dict[str, Any]:
        """The result for the person: expiry, and a diff that says why."""
        certificate = parse(after)
        result["expires"] = expiry(certificate).isoformat() if certificate else ""
        if fault:
            wanted = describe(after) or f"a new certificate: {fault}\n"
            result["diff"] = {
                "before": describe(before),
                "after": wanted,
                "before_header": "host.pem",
                "after_header": "host.pem",
            }
        return result
