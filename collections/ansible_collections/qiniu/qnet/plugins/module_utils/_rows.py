# Copyright (c) qnet authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Records ↔ rows of the intent database (schemas/qnet.ovsschema).

Works on the row objects that :mod:`_ovsdb` hands in; knows tables and columns, not connections.
"""

from __future__ import annotations

import typing as t

from ansible_collections.qiniu.qnet.plugins.module_utils import _model, _parse, _plan

# Table → columns that are read and written.
COLUMNS: dict[str, tuple[str, ...]] = {
    "QNet_Global": ("generation", "options"),
    "Network": ("name", "vni", "pod_subnets", "service_subnets", "mtu"),
    "Guest": ("network", "home", "vni", "addresses"),
    "Host": ("name", "vteps", "datapath_id", "datapath_kind", "controller_set", "state"),
    "Security_Group": ("name", "tenant", "number", "egress", "broadcast"),
    "Service": ("name", "group", "network", "health_check", "drain_seconds", "l7"),
    "Service_IP": ("name", "service", "network", "address", "affinity", "affinity_seconds", "algorithm"),
    "Pod": ("name", "service", "network", "mac", "port_name", "weight", "state", "containers", "drain_until"),
    "Pod_Address": ("pod", "network", "address"),
    "Export": ("service", "to_group", "ports", "expires", "direct"),
    "L7_Listener": ("name", "balancer", "protocol", "port", "settings"),
    "L7_Route": ("name", "listener", "services", "settings"),
}

# What the records of pods are made of, besides their own rows.
BEHIND_PODS = frozenset({"QNet_Global", "Network", "Security_Group", "Service"})

TABLE_OF = {
    "network": "Network",
    "guest": "Guest",
    "host": "Host",
    "security_group": "Security_Group",
    "service": "Service",
    "service_ip": "Service_IP",
    "pod": "Pod",
    "export": "Export",
    "l7_listener": "L7_Listener",
    "l7_route": "L7_Route",
}


class ValueNotAllowed(Exception):
    """A column of the database does not take a value that this collection allows."""


class RowUnreadable(Exception):
    """A row has a value that this collection never writes."""


class Rows:
    """The rows behind one reading of the database, found by the keys of their records."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, t.Any]] = {kind: {} for kind in TABLE_OF}
        self._addresses: dict[str, dict[str, t.Any]] = {}
        self._records: dict[t.Any, t.Any] = {}

    def read(self, table: t.Callable[[str], t.Iterable[t.Any]]) -> _model.State:
        """All records; ``table`` gives the rows of a table by its name. Raises RowUnreadable."""
        state = _model.State()
        by_pod: dict[t.Any, dict[str, t.Any]] = {}
        for row in table("Pod_Address"):
            by_pod.setdefault(row.pod.uuid, {})[row.address] = row
        for kind, name in TABLE_OF.items():
            for row in table(name):
                try:
                    record = self._pod(row, by_pod) if kind == "pod" else getattr(self, f"_{kind}")(row)
                except ValueError as error:
                    raise RowUnreadable(f"row {row.uuid} of table {name}: {error}") from error
                state.add(kind, record)
                self._records[row.uuid] = record
                self._rows[kind][record.key] = row
                if kind == "pod":
                    self._addresses[record.key] = by_pod.get(row.uuid, {})
        return state

    def names(self) -> dict[str, str]:
        """Row id → what people call the object."""
        found = {}
        for kind, rows in self._rows.items():
            for key, row in rows.items():
                found[str(row.uuid)] = f"({_model.TITLES[kind]} '{key}')"
        for key, rows in self._addresses.items():
            for address, row in rows.items():
                found[str(row.uuid)] = f"(address {address} of pod '{key}')"
        return found

    # Rows → records. Rows that others refer to come first in TABLE_OF, so their records are known.

    @staticmethod
    def _network(row: t.Any) -> _model.Network:
        return _model.Network(
            row.name,
            row.vni,
            _parse.canonical_set("network", "pod_subnets", row.pod_subnets),
            _parse.canonical_set("network", "service_subnets", row.service_subnets),
            _optional(row.mtu),
        )

    def _guest(self, row: t.Any) -> _model.Guest:
        addresses = _parse.canonical_set("guest", "addresses", row.addresses)
        return _model.Guest(self._key(row.network), self._key(row.home), row.vni, addresses)

    @staticmethod
    def _host(row: t.Any) -> _model.Host:
        return _model.Host(
            row.name,
            _parse.canonical_set("host", "vteps", row.vteps),
            row.datapath_id,
            row.datapath_kind,
            row.controller_set,
            row.state == "draining",
        )

    @staticmethod
    def _security_group(row: t.Any) -> _model.SecurityGroup:
        rules = _parse.egress_lines(row.egress)
        return _model.SecurityGroup(row.name, row.tenant, row.number, rules, row.broadcast)

    def _service(self, row: t.Any) -> _model.Service:
        check = tuple(sorted(row.health_check.items()))
        return _model.Service(
            self._key(row.group), row.name, self._key(row.network), check, _optional(row.drain_seconds), row.l7 or "{}"
        )

    def _service_ip(self, row: t.Any) -> _model.ServiceIP:
        service = self._records[row.service.uuid]
        return _model.ServiceIP(
            service.group,
            service.name,
            row.name,
            self._key(row.network),
            row.address,
            row.affinity,
            row.algorithm,
            _optional(row.affinity_seconds),
        )

    def _pod(self, row: t.Any, by_pod: t.Mapping[t.Any, t.Mapping[str, t.Any]]) -> _model.Pod:
        service = self._records[row.service.uuid]
        return _model.Pod(
            service.group,
            service.name,
            row.name,
            self._key(row.network),
            row.mac,
            _parse.canonical_set("pod", "addresses", by_pod.get(row.uuid, {})),
            row.port_name,
            row.weight,
            row.state,
            tuple(sorted(row.containers)),
            _optional(row.drain_until),
        )

    def _export(self, row: t.Any) -> _model.Export:
        return _model.Export(
            self._key(row.service),
            self._key(row.to_group),
            _parse.canonical_set("export", "ports", row.ports),
            row.direct,
            _optional(row.expires),
        )

    def _l7_listener(self, row: t.Any) -> _model.L7Listener:
        return _model.L7Listener(row.name, self._key(row.balancer), row.protocol, row.port, row.settings)

    def _l7_route(self, row: t.Any) -> _model.L7Route:
        return _model.L7Route(self._key(row.listener), row.name, row.settings)

    def _key(self, row: t.Any) -> str:
        key: str = self._records[row.uuid].key
        return key

    # Records → rows.

    def write(self, changes: t.Iterable[_plan.Change], insert: t.Callable[[str], t.Any]) -> None:
        """Put changes into the open transaction; ``insert`` makes a new row of a table."""
        for change in changes:
            if change.after is None:
                if change.kind == "pod":
                    for row in self._addresses[change.key].values():
                        row.delete()
                self._rows[change.kind][change.key].delete()
                continue
            columns = self._columns(change.kind, change.after)
            if change.before is None:
                row = self._rows[change.kind][change.key] = insert(TABLE_OF[change.kind])
                _set(row, columns)
            else:
                row = self._rows[change.kind][change.key]
                before = self._columns(change.kind, change.before)
                _set(row, {name: value for name, value in columns.items() if value != before[name]})
            if change.kind == "pod":
                self._write_addresses(change, row, insert)

    def _write_addresses(self, change: _plan.Change, pod_row: t.Any, insert: t.Callable[[str], t.Any]) -> None:
        had = set(change.before.addresses) if change.before is not None else set()
        wanted = set(change.after.addresses)
        for address in had - wanted:
            self._addresses[change.key][address].delete()
        network = self._rows["network"][change.after.network]
        for address in wanted - had:
            _set(insert("Pod_Address"), {"pod": pod_row, "network": network, "address": address})

    def _columns(self, kind: str, record: t.Any) -> dict[str, t.Any]:
        """Column → value of a record; references are rows, so the objects referred to must be written first."""
        if kind == "host":
            return {
                "name": record.name,
                "vteps": list(record.vteps),
                "datapath_id": record.datapath_id,
                "datapath_kind": record.datapath_kind,
                "controller_set": record.controller_set,
                "state": "draining" if record.draining else "active",
            }
        columns: dict[str, t.Any] = {}
        for name in COLUMNS[TABLE_OF[kind]]:
            if name == "service":
                key = record.service if kind == "export" else record.service_key
                columns[name] = self._rows["service"].get(key)
            elif name == "balancer":
                columns[name] = self._rows["service"].get(record.balancer)
            elif name == "services":
                columns[name] = [self._rows["service"].get(service) for service in record.services]
            elif name == "listener":
                columns[name] = self._rows["l7_listener"].get(record.listener)
            elif name == "network":
                columns[name] = self._rows["network"].get(record.network)
            elif name == "home":
                columns[name] = self._rows["network"].get(record.home)
            elif name in ("group", "to_group"):
                columns[name] = self._rows["security_group"].get(record.group if name == "group" else record.to)
            elif name == "health_check":
                columns[name] = dict(record.health_check)
            else:
                value = getattr(record, name)
                optional = name in ("mtu", "expires", "drain_seconds", "drain_until", "affinity_seconds")
                columns[name] = ([] if value is None else [value]) if optional else _plain(value)
        return columns


def _plain(value: t.Any) -> t.Any:
    return list(value) if isinstance(value, tuple) else value


def _optional(values: t.Sequence[int]) -> int | None:
    return values[0] if values else None


def _set(row: t.Any, columns: t.Mapping[str, t.Any]) -> None:
    for name, value in columns.items():
        setattr(row, name, value)
        # The library drops a value that its column does not allow and only logs that; then nothing may be written.
        if name not in row._changes:
            raise ValueNotAllowed(f"its schema does not allow {value!r} in column {name}")
