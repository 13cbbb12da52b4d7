# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: qnet contributors
"""Open vSwitch of this host: read it as a tree, make it like another tree in one transaction, see whether it took it.

Trees are described in ``_vswitch_plan``.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.qiniu.qnet.plugins.module_utils._vswitch_db import (
    OVS_IMPORT_ERROR,
    Database,
    DatabaseUnavailable,
    assign,
)
from ansible_collections.qiniu.qnet.plugins.module_utils._vswitch_plan import (
    BOND,
    CONTROLLER_SETTINGS,
    Tree,
    new_bridge,
    new_port,
    plan,
    visible,
)

DEFAULT_DATABASE = "unix:/run/openvswitch/db.sock"
HOW_TO_INSTALL = (
    "install it with 'apt-get install openvswitch-switch python3-openvswitch' and start it with "
    "'systemctl start openvswitch-switch' (the role openvswitch does both)"
)
TABLES = {
    "Open_vSwitch": ["bridges", "ssl", "other_config", "external_ids", "next_cfg", "cur_cfg", "ovs_version"],
    "Bridge": [
        "name",
        "ports",
        "controller",
        "datapath_type",
        "datapath_id",
        "fail_mode",
        "protocols",
        "other_config",
        "external_ids",
    ],
    "Port": ["name", "interfaces"],
    "Interface": [
        "name",
        "type",
        "options",
        "other_config",
        "external_ids",
        "mtu_request",
        "ofport",
        "error",
        "link_state",
    ],
    "Controller": ["target", "max_backoff", "inactivity_probe", "connection_mode", "is_connected", "role"],
    "SSL": ["private_key", "certificate", "ca_cert"],
}
_CONTROLLER_COLUMNS = dict(
    zip(CONTROLLER_SETTINGS, ("max_backoff", "inactivity_probe", "connection_mode"), strict=True)
)
_SSL_COLUMNS = {"private_key": "private_key", "certificate": "certificate", "ca_certificate": "ca_cert"}


class NotApplied(Exception):
    """The database holds the wanted state, but ovs-vswitchd has not made it real."""


@dataclasses.dataclass
class Outcome:
    """What a call did, or would do."""

    changed: bool
    before: Tree
    after: Tree
    awaited: int = 0
    """The configuration number that ovs-vswitchd has to reach."""


def connect(remote: str = DEFAULT_DATABASE, timeout_seconds: float = 10.0) -> Database:
    """The local Open_vSwitch database.

    Raises:
        DatabaseUnavailable: there is no Open vSwitch here, or it is not running; the text says what to do.
    """
    if OVS_IMPORT_ERROR is not None:
        raise DatabaseUnavailable(f"this host has no Python library 'ovs' for the Python of Ansible: {HOW_TO_INSTALL}")
    try:
        return Database(remote, "Open_vSwitch", TABLES, timeout_seconds)
    except DatabaseUnavailable as error:
        raise DatabaseUnavailable(f"no Open vSwitch on this host ({error}): {HOW_TO_INSTALL}") from error


def read(database: Database) -> Tree:
    """The tree as it is in the database now."""
    tree: Tree = {"other_config": {}, "external_ids": {}, "ssl": None, "bridges": {}}
    for root in database.rows("Open_vSwitch"):
        tree["other_config"] = dict(root.other_config)
        tree["external_ids"] = dict(root.external_ids)
        ssl = first(root.ssl)
        if ssl is not None:
            tree["ssl"] = {key: getattr(ssl, column) for key, column in _SSL_COLUMNS.items()}
        tree["bridges"] = {row.name: _read_bridge(row) for row in root.bridges}
    return tree


def apply(database: Database, ask: Tree, check_mode: bool = False) -> Outcome:
    """Make the host's Open vSwitch as asked, in one transaction; in check mode the server does it and throws it away.

    Raises:
        Refused: it cannot be done; nothing was changed.
        DatabaseError: the server refused it; nothing was changed.
    """

    def build(transaction: t.Any) -> tuple[Tree, Tree]:
        have = read(database)
        want = plan(have, ask)
        if want != have:
            _Writer(database, transaction).write(have, want)
        return have, want

    (have, want), transaction = database.transact(build, dry_run=check_mode)
    if want == have:
        awaited = max((root.next_cfg for root in database.rows("Open_vSwitch")), default=0)
    else:
        awaited = 0 if check_mode else transaction.get_increment_new_value()
    return Outcome(want != have, visible(have, ask), visible(want, ask), awaited)


def wait_until_applied(database: Database, awaited: int, wait_seconds: float) -> None:
    """Wait until ovs-vswitchd has taken over the configuration with that number.

    Raises:
        NotApplied: it has not within the time.
    """

    def reached() -> bool:
        return all(root.cur_cfg >= awaited for root in database.rows("Open_vSwitch"))

    if not database.wait_for(reached, wait_seconds):
        raise NotApplied(
            f"ovs-vswitchd has not applied the configuration within {wait_seconds:g} s: "
            "see 'systemctl status ovs-vswitchd' and /var/log/openvswitch/ovs-vswitchd.log; "
            "the configuration is stored and will be applied when it runs"
        )


def errors_by_interface(database: Database) -> dict[str, str]:
    """Interface name to what ovs-vswitchd says is wrong with it, for all interfaces of the host that have an error."""
    return {row.name: first(row.error) for row in database.rows("Interface") if first(row.error)}


def bridges_without_datapath(database: Database) -> list[str]:
    """Names of the bridges that ovs-vswitchd could not bring up: they have no datapath id."""
    return sorted(row.name for row in database.rows("Bridge") if not first(row.datapath_id))


def status(database: Database) -> Tree:
    """What Open vSwitch itself reports: version, and by bridge its datapath id, controllers and port numbers."""
    roots = database.rows("Open_vSwitch")
    return {
        "ovs_version": first(roots[0].ovs_version) if roots else None,
        "bridges": {row.name: _read_status(row) for root in roots for row in root.bridges},
    }


def first(value: t.Any) -> t.Any:
    """The value of an optional column, None when it has none."""
    if isinstance(value, list):
        return value[0] if value else None
    return value


def _read_bridge(row: t.Any) -> Tree:
    bridge = new_bridge(row.name)
    bridge.update(
        datapath_type=row.datapath_type or "system",
        fail_mode=first(row.fail_mode) or "",
        protocols=sorted(row.protocols),
        other_config=dict(row.other_config),
        external_ids=dict(row.external_ids),
        controllers={
            item.target: {key: first(getattr(item, column)) for key, column in _CONTROLLER_COLUMNS.items()}
            for item in row.controller
        },
        ports={port.name: _read_port(port) for port in row.ports},
    )
    return bridge


def _read_port(row: t.Any) -> Tree:
    interface = row.interfaces[0]
    port = new_port(BOND if len(row.interfaces) > 1 else interface.type or "system")
    port.update(
        options=dict(interface.options),
        other_config=dict(interface.other_config),
        external_ids=dict(interface.external_ids),
        mtu=first(interface.mtu_request),
    )
    return port


def _read_status(row: t.Any) -> Tree:
    return {
        "datapath_id": first(row.datapath_id),
        "controllers": {
            item.target: {"is_connected": item.is_connected, "role": first(item.role)} for item in row.controller
        },
        "ports": {
            interface.name: {
                "ofport": first(interface.ofport),
                "link_state": first(interface.link_state),
                "error": first(interface.error),
            }
            for port in row.ports
            for interface in port.interfaces
        },
    }


class _Writer:
    """Writes the difference of two trees as rows of one transaction."""

    def __init__(self, database: Database, transaction: t.Any) -> None:
        self._tables = database.idl.tables
        self._transaction = transaction
        roots = database.rows("Open_vSwitch")
        self._root = roots[0] if roots else self._insert("Open_vSwitch")
        self._bridges = {row.name: row for row in database.rows("Bridge")}
        self._ports = {row.name: row for row in database.rows("Port")}

    def write(self, have: Tree, want: Tree) -> None:
        """Assign what differs; rows that nothing refers to any more are removed by the server."""
        for column in ("other_config", "external_ids"):
            if have[column] != want[column]:
                assign(self._root, column, want[column])
        if have["ssl"] != want["ssl"]:
            self._write_ssl(want["ssl"])
        # Ports first by name over all bridges: one that moved keeps its row.
        before = {name: port for bridge in have["bridges"].values() for name, port in bridge["ports"].items()}
        for name, bridge in want["bridges"].items():
            self._write_bridge(name, have["bridges"].get(name), bridge, before)
        if set(have["bridges"]) != set(want["bridges"]):
            assign(self._root, "bridges", [self._bridges[name] for name in want["bridges"]])
        self._root.increment("next_cfg")

    def _insert(self, table: str, **columns: t.Any) -> t.Any:
        row = self._transaction.insert(self._tables[table])
        for column, value in columns.items():
            assign(row, column, value)
        return row

    def _write_ssl(self, want: Tree | None) -> None:
        if want is None:
            assign(self._root, "ssl", [])
            return
        columns = {column: want[key] for key, column in _SSL_COLUMNS.items()}
        row = first(self._root.ssl) if self._root._data is not None else None
        if row is None:
            assign(self._root, "ssl", [self._insert("SSL", **columns)])
            return
        for column, value in columns.items():
            assign(row, column, value)

    def _write_bridge(self, name: str, have: Tree | None, want: Tree, before: dict[str, Tree]) -> None:
        if have is None:
            self._bridges[name] = self._insert("Bridge", name=name)
        row = self._bridges[name]
        old = have or {}
        if old.get("datapath_type") != want["datapath_type"]:
            assign(row, "datapath_type", "" if want["datapath_type"] == "system" else want["datapath_type"])
        if old.get("fail_mode") != want["fail_mode"]:
            assign(row, "fail_mode", [want["fail_mode"]] if want["fail_mode"] else [])
        for column in ("protocols", "other_config", "external_ids"):
            if old.get(column) != want[column]:
                assign(row, column, want[column])
        if old.get("controllers") != want["controllers"]:
            self._write_controllers(row, old.get("controllers", {}), want["controllers"])
        for port_name, port in want["ports"].items():
            self._write_port(port_name, before.get(port_name), port)
        if set(old.get("ports", {})) != set(want["ports"]):
            assign(row, "ports", [self._ports[port_name] for port_name in want["ports"]])

    def _write_controllers(self, bridge: t.Any, have: Tree, want: Tree) -> None:
        rows = {} if bridge._data is None else {row.target: row for row in bridge.controller}
        for target, settings in want.items():
            if target not in rows:
                rows[target] = self._insert("Controller", target=target)
            for key, column in _CONTROLLER_COLUMNS.items():
                if have.get(target, {}).get(key) != settings[key]:
                    assign(rows[target], column, [] if settings[key] is None else [settings[key]])
        if set(have) != set(want):
            assign(bridge, "controller", [rows[target] for target in want])

    def _write_port(self, name: str, have: Tree | None, want: Tree) -> None:
        if have == want:
            return
        if have is None:
            interface = self._insert("Interface", name=name)
            self._ports[name] = self._insert("Port", name=name, interfaces=[interface])
        else:
            interface = self._ports[name].interfaces[0]
        old = have or new_port()
        if old["type"] != want["type"]:
            assign(interface, "type", "" if want["type"] == "system" else want["type"])
        for column in ("options", "other_config", "external_ids"):
            if old[column] != want[column]:
                assign(interface, column, want[column])
        if old["mtu"] != want["mtu"]:
            assign(interface, "mtu_request", [] if want["mtu"] is None else [want["mtu"]])
