# SPDX-License-Identifier: Apache-2.0
"""The configuration file (TOML) as frozen dataclasses; every error is found at once, with path, value, rule, hint."""

from __future__ import annotations

import ipaddress
import re
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from .model.objects import DEFAULT_SET
from .pipeline.demands import Settings

DEFAULT_PEER_PORT = 6654
DEFAULT_API_PORT = 6656  # the API for other controllers, over mutual TLS
DEFAULT_PROBE_MILLISECONDS = 1000
DEFAULT_SILENCE_MILLISECONDS = 5000
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address to listen on."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Pki:
    """Files of the fleet's CA and of this host."""

    ca: Path
    certificate: Path
    private_key: Path


@dataclass(frozen=True, slots=True)
class Peer:
    """A controller of the fleet, this one included; `controller_set` names the hosts whose switches it may master."""

    name: str
    address: str
    port: int = DEFAULT_PEER_PORT
    controller_set: str = DEFAULT_SET
    api_port: int = DEFAULT_API_PORT


@dataclass(frozen=True, slots=True)
class Config:
    """Everything the controller is told at its start."""

    name: str
    openflow_listen: Endpoint
    database_remotes: tuple[str, ...]
    pki: Pki
    controllers: tuple[Peer, ...]
    api_listen: Endpoint
    decisions: Settings
    probe_seconds: float = DEFAULT_PROBE_MILLISECONDS / 1000
    silence_seconds: float = DEFAULT_SILENCE_MILLISECONDS / 1000

    @property
    def controller_set(self) -> str:
        """The set that this controller belongs to."""
        return next((peer.controller_set for peer in self.controllers if peer.name == self.name), DEFAULT_SET)

    def members(self, controller_set: str) -> frozenset[str]:
        """The names of the controllers of a set."""
        return frozenset(peer.name for peer in self.controllers if peer.controller_set == controller_set)


@dataclass(frozen=True, slots=True)
class Fault:
    """One error in a configuration."""

    path: str
    value: object
    rule: str
    hint: str

    def __str__(self) -> str:
        return f"{self.path}: {self.value!r}: {self.rule}; {self.hint}"


class ConfigError(Exception):
    """A configuration that cannot be used; `faults` has every error."""

    def __init__(self, source: str, faults: list[Fault]) -> None:
        super().__init__("\n".join(f"{source}: {fault}" for fault in faults))
        self.faults = faults


_MISSING = object()
_PKI = ("ca", "certificate", "private_key")
_PACKETS = (1, 10_000_000)
_DECISIONS = {
    "idle_timeout_seconds": (1, 65535, "seconds"),
    "drop_timeout_seconds": (1, 65535, "seconds"),
    "pod_rate": (*_PACKETS, "packets per second"),
    "pod_burst": (*_PACKETS, "packets"),
    "tunnel_rate": (*_PACKETS, "packets per second"),
    "tunnel_burst": (*_PACKETS, "packets"),
    "broadcast_rate": (*_PACKETS, "packets per second"),
    "broadcast_burst": (*_PACKETS, "packets"),
    "pod_demands": (64, 1_000_000, "demands"),
}
_SECTIONS = ("name", "openflow", "database", "pki", "controllers", "api", "decisions", "liveness")


class _Reader:
    """Takes values out of the parsed file and collects what is wrong with them."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.faults: list[Fault] = []

    def fault(self, path: str, value: object, rule: str, hint: str) -> None:
        self.faults.append(Fault(path, None if value is _MISSING else value, rule, hint))

    def known(self, path: str, table: dict[str, Any], names: tuple[str, ...]) -> None:
        for name in table.keys() - set(names):
            full = f"{path}.{name}" if path else name
            self.fault(full, table[name], "is not an option", f"options here are {', '.join(names)}")

    def section(self, name: str, names: tuple[str, ...], *, required: bool = True) -> dict[str, Any]:
        table = self.data.get(name, {} if not required else _MISSING)
        if not isinstance(table, dict):
            self.fault(name, table, "must be a section", f"write [{name}] and below it {', '.join(names)}")
            return {}
        self.known(name, table, names)
        return table

    def text(self, path: str, value: object, hint: str) -> str:
        if not isinstance(value, str) or not value:
            self.fault(path, value, "must be a text that is not empty", hint)
            return ""
        return value

    def endpoint(self, path: str, value: object, hint: str) -> Endpoint:
        text = self.text(path, value, hint)
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        try:
            ipaddress.ip_address(host)
            number = int(port)
        except ValueError:
            number = 0
        if text and not 1 <= number <= 65535:
            self.fault(path, value, "must be ADDRESS:PORT with an IP address and a port from 1 to 65535", hint)
        return Endpoint(host, number)

    def file(self, path: str, value: object, hint: str) -> Path:
        text = self.text(path, value, hint)
        if text and not Path(text).is_absolute():
            self.fault(path, value, "must be an absolute path", hint)
        return Path(text)

    def port(self, path: str, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65535:
            self.fault(path, value, "must be a port from 1 to 65535", "leave it out for the default")
            return 1
        return value

    def whole(self, path: str, value: object, least: int, most: int, unit: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            rule = f"must be a whole number of {unit} from {least} to {most}"
            self.fault(path, value, rule, "leave it out for the default")
            return least
        return value


def parse(data: dict[str, Any], source: str) -> Config:
    """A configuration from a parsed file.

    Raises:
        ConfigError: with every fault found.
    """
    read = _Reader(data)
    read.known("", data, _SECTIONS)
    openflow = read.section("openflow", ("listen",))
    database = read.section("database", ("remotes",))
    pki = read.section("pki", _PKI)
    api = read.section("api", ("listen",))
    controllers = _controllers(read)
    name = read.text("name", data.get("name", _MISSING), "the name of this host in [[controllers]]")
    if name and controllers and name not in {peer.name for peer in controllers}:
        read.fault("name", name, "must be one of [[controllers]]", f"known: {', '.join(p.name for p in controllers)}")
    config = Config(
        name,
        read.endpoint("openflow.listen", openflow.get("listen", _MISSING), 'for example "0.0.0.0:6653"'),
        _remotes(read, database.get("remotes", _MISSING)),
        Pki(*(read.file(f"pki.{key}", pki.get(key, _MISSING), "a PEM file") for key in _PKI)),
        controllers,
        read.endpoint("api.listen", api.get("listen", _MISSING), 'for example "127.0.0.1:9680"'),
        _decisions(read),
        *_liveness(read),
    )
    if read.data.get("api") and config.api_listen.host and not _is_loopback(config.api_listen.host):
        read.fault("api.listen", str(config.api_listen), "must be a loopback address", "the API has no authentication")
    if read.faults:
        raise ConfigError(source, read.faults)
    return config


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True  # reported already


def _remotes(read: _Reader, value: object) -> tuple[str, ...]:
    hint = 'for example ["unix:/run/qnet-database/qnet.sock"] or ["ssl:192.0.2.1:6641"]'
    if not isinstance(value, list) or not value:
        read.fault("database.remotes", value, "must be a list that is not empty", hint)
        return ()
    for index, remote in enumerate(value):
        if not isinstance(remote, str) or not re.fullmatch(r"unix:/[^,]+|ssl:[^,]+:\d+", remote):
            read.fault(f"database.remotes[{index}]", remote, "must be unix:PATH or ssl:ADDRESS:PORT", hint)
    return tuple(remote for remote in value if isinstance(remote, str))


def _controllers(read: _Reader) -> tuple[Peer, ...]:
    hint = "write one [[controllers]] with name and address for each controller, this one included"
    listed = read.data.get("controllers", _MISSING)
    if not isinstance(listed, list) or not listed:
        read.fault("controllers", listed, "must have at least one entry", hint)
        return ()
    peers: list[Peer] = []
    for index, item in enumerate(listed):
        path = f"controllers[{index}]"
        if not isinstance(item, dict):
            read.fault(path, item, "must be a section", hint)
            continue
        read.known(path, item, ("name", "address", "port", "set", "api_port"))
        name = read.text(f"{path}.name", item.get("name", _MISSING), hint)
        if name and not _NAME.fullmatch(name):
            read.fault(f"{path}.name", name, "must be a DNS label", "lower-case letters, digits and hyphens")
        if name in {peer.name for peer in peers}:
            read.fault(f"{path}.name", name, "occurs twice", "each controller has a name of its own")
        address = read.text(f"{path}.address", item.get("address", _MISSING), hint)
        port = read.port(f"{path}.port", item.get("port", DEFAULT_PEER_PORT))
        controller_set = read.text(f"{path}.set", item.get("set", DEFAULT_SET), "the name of a set of controllers")
        api_port = read.port(f"{path}.api_port", item.get("api_port", DEFAULT_API_PORT))
        peers.append(Peer(name, address, port, controller_set, api_port))
    return tuple(peers)


def _decisions(read: _Reader) -> Settings:
    table = read.section("decisions", (*_DECISIONS, "warm_start"), required=False)
    warm_start = table.get("warm_start", True)
    if not isinstance(warm_start, bool):
        read.fault("decisions.warm_start", warm_start, "must be true or false", "leave it out for the default")
    defaults = {field.name: field.default for field in fields(Settings)}
    values = {
        key: read.whole(f"decisions.{key}", table.get(key, defaults[key]), *bounds)
        for key, bounds in _DECISIONS.items()
    }
    return Settings(**values, warm_start=bool(warm_start))


def _liveness(read: _Reader) -> tuple[float, float]:
    """After how many seconds of silence another one shall serve a switch, and after how many it counts as lost."""
    defaults = {"probe_milliseconds": DEFAULT_PROBE_MILLISECONDS, "silence_milliseconds": DEFAULT_SILENCE_MILLISECONDS}
    table = read.section("liveness", tuple(defaults), required=False)
    probe, silence = (
        read.whole(f"liveness.{name}", table.get(name, default), 100, 60000, "milliseconds") / 1000
        for name, default in defaults.items()
    )
    return probe, silence


def load(path: Path) -> Config:
    """Read a configuration file.

    Raises:
        ConfigError: the file cannot be read, is no TOML, or has faults.
    """
    try:
        data = tomllib.loads(path.read_text())
    except OSError as error:
        fault = Fault("file", str(path), f"cannot be read: {error.strerror}", "check the path")
        raise ConfigError(str(path), [fault]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        fault = Fault("file", str(path), f"is not TOML: {error}", "see the line named")
        raise ConfigError(str(path), [fault]) from None
    return parse(data, str(path))
