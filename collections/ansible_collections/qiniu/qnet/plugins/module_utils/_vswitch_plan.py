# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: qnet contributors
"""What the switches of a host should be, computed from what they are and what was asked. Pure: no input, no output.

A *tree* is the state of Open vSwitch on one host as plain data::

    {"other_config": {..}, "external_ids": {..},
     "ssl": None | {"private_key": .., "certificate": .., "ca_certificate": ..},
     "bridges": {NAME: {
         "datapath_type": "system" | "netdev", "fail_mode": "" | "standalone" | "secure", "protocols": [..],
         "other_config": {..}, "external_ids": {..},
         "controllers": {TARGET: {"max_backoff_milliseconds": .., "inactivity_probe_milliseconds": ..,
                                  "connection_mode": ..}},
         "ports": {NAME: {"type": .., "options": {..}, "other_config": {..}, "external_ids": {..}, "mtu": ..}}}}}

An absent number or mode is None. ``plan(have, ask)`` gives the wanted tree; when it equals ``have``, all is done.
"""

from __future__ import annotations

import copy
import re
import typing as t

Tree = dict[str, t.Any]

BOND = "bond"
DATAPATH_ID_KEY = "datapath-id"
CONTROLLER_SETTINGS = ("max_backoff_milliseconds", "inactivity_probe_milliseconds", "connection_mode")
PORT_SETTINGS = ("type", "options", "other_config", "external_ids", "mtu")

_NAME = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.:-]{0,14}")
_DATAPATH_ID = re.compile(r"[0-9a-f]{16}")
_TARGET = re.compile(r"(ssl|tcp|unix|pssl|ptcp|punix):\S+")


class Refused(Exception):
    """What was asked cannot be done; ``faults`` has one line for each reason."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def check(ask: Tree) -> list[str]:
    """Every fault of the options that can be seen without looking at the host, one line each."""
    faults: list[str] = []
    bridges: dict[str, str] = {}
    ports: dict[str, str] = {}
    for index, bridge in enumerate(ask.get("bridges") or []):
        path = f"bridges[{index}]"
        faults += _check_name(f"{path}.name", bridge["name"])
        faults += _check_once(f"{path}.name", bridge["name"], bridges)
        faults += _check_bridge(path, bridge)
        for number, port in enumerate(bridge.get("ports") or []):
            where = f"{path}.ports[{number}]"
            faults += _check_name(f"{where}.name", port["name"])
            faults += _check_once(f"{where}.name", port["name"], ports)
            if (port.get("mtu") or 0) < 0:
                faults.append(f"{where}.mtu: {port['mtu']} is negative; 0 lets Open vSwitch choose")
            if port["name"] == bridge["name"] and port.get("state") == "absent":
                faults.append(
                    f"{where}.state: 'absent' for the bridge's own port {port['name']!r}: a bridge always has it; "
                    "remove the bridge itself with state=absent"
                )
    faults += [
        f"{ports[name]}: {name!r} is also the name of a bridge ({bridges[name]}): only that bridge can have this port"
        for name in sorted(set(ports) & set(bridges))
        if not ports[name].startswith(bridges[name].removesuffix("name"))
    ]
    return faults


def plan(have: Tree, ask: Tree) -> Tree:
    """The whole tree as it should be.

    Args:
        have: the tree as it is; not modified.
        ask: options of the module ``qnet_vswitch``. An omitted one (None) leaves things alone, an empty one clears.

    Raises:
        Refused: what was asked cannot be done on this host.
    """
    faults = check(ask)
    if faults:
        raise Refused(faults)
    want = copy.deepcopy(have)
    for column in ("other_config", "external_ids"):
        _merge_keys(want[column], ask.get(column))
    if ask.get("ssl") is not None:
        want["ssl"] = dict(ask["ssl"]) if any(ask["ssl"].values()) else None
    for index, bridge in enumerate(ask.get("bridges") or []):
        if bridge.get("state") == "absent":
            want["bridges"].pop(bridge["name"], None)
        else:
            faults += _plan_bridge(want, bridge, f"bridges[{index}]")
    if faults:
        raise Refused(faults)
    return want


def visible(tree: Tree, ask: Tree) -> Tree:
    """The part of a tree that the options speak of, for diffs and return values."""
    shown: Tree = {}
    for column in ("other_config", "external_ids"):
        if ask.get(column) is not None:
            shown[column] = {key: tree[column][key] for key in sorted(ask[column]) if key in tree[column]}
    if ask.get("ssl") is not None:
        shown["ssl"] = tree["ssl"]
    if ask.get("bridges") is not None:
        shown["bridges"] = {}
    for asked in ask.get("bridges") or []:
        bridge = tree["bridges"].get(asked["name"])
        if bridge is not None:
            named = {port["name"] for port in asked.get("ports") or []}
            ports = bridge["ports"]
            keep = ports if asked.get("state") == "absent" else {name: ports[name] for name in named & set(ports)}
            shown["bridges"][asked["name"]] = {**bridge, "ports": dict(sorted(keep.items()))}
    return shown


def new_bridge(name: str) -> Tree:
    """A bridge as Open vSwitch makes it: with its own internal port."""
    return {
        "datapath_type": "system",
        "fail_mode": "",
        "protocols": [],
        "other_config": {},
        "external_ids": {},
        "controllers": {},
        "ports": {name: new_port("internal")},
    }


def new_port(kind: str = "system") -> Tree:
    """A port with one interface of that type and no settings."""
    return {"type": kind, "options": {}, "other_config": {}, "external_ids": {}, "mtu": None}


def _check_name(path: str, name: str) -> list[str]:
    if _NAME.fullmatch(name):
        return []
    return [
        f"{path}: {name!r} cannot be the name of a network interface: 1 to 15 characters of A-Z a-z 0-9 _ . : -, "
        "not beginning with - or :"
    ]


def _check_once(path: str, name: str, seen: dict[str, str]) -> list[str]:
    first = seen.setdefault(name, path)
    return [] if first == path else [f"{path}: {name!r} is already at {first}: give each name once"]


def _check_bridge(path: str, bridge: Tree) -> list[str]:
    faults = []
    datapath_id = bridge.get("datapath_id")
    if datapath_id and not _DATAPATH_ID.fullmatch(datapath_id.lower()):
        faults.append(f"{path}.datapath_id: {datapath_id!r} is not 16 hexadecimal digits")
    if datapath_id is not None and DATAPATH_ID_KEY in (bridge.get("other_config") or {}):
        faults.append(f"{path}.other_config.{DATAPATH_ID_KEY}: given with datapath_id too: keep datapath_id only")
    targets: dict[str, str] = {}
    for index, controller in enumerate(bridge.get("controllers") or []):
        where = f"{path}.controllers[{index}]"
        faults += _check_once(f"{where}.target", controller["target"], targets)
        if not _TARGET.fullmatch(controller["target"]):
            faults.append(
                f"{where}.target: {controller['target']!r} is no OpenFlow address: "
                "write METHOD:WHERE with a method of ovs-vsctl(8), such as ssl:192.0.2.1:6653"
            )
        backoff = controller.get("max_backoff_milliseconds")
        if backoff is not None and backoff < 1000:
            faults.append(f"{where}.max_backoff_milliseconds: {backoff} is less than 1000, the least that OVS takes")
        probe = controller.get("inactivity_probe_milliseconds")
        if probe is not None and probe < 0:
            faults.append(f"{where}.inactivity_probe_milliseconds: {probe} is negative; 0 switches probing off")
    return faults


def _merge_keys(mapping: dict[str, str], ask: dict[str, t.Any] | None) -> None:
    for key, value in (ask or {}).items():
        if value is None:
            mapping.pop(key, None)
        else:
            mapping[key] = text(value)


def text(value: t.Any) -> str:
    """A value of an OVSDB string map as text; YAML booleans become ``true`` and ``false``, as OVS spells them."""
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _mapping(ask: dict[str, t.Any]) -> dict[str, str]:
    return {key: text(value) for key, value in ask.items() if value is not None}


def _plan_bridge(want: Tree, ask: Tree, path: str) -> list[str]:
    bridge = want["bridges"].setdefault(ask["name"], new_bridge(ask["name"]))
    if ask.get("datapath_type") is not None:
        bridge["datapath_type"] = ask["datapath_type"]
    if ask.get("fail_mode") is not None:
        bridge["fail_mode"] = ask["fail_mode"]
    if ask.get("protocols") is not None:
        bridge["protocols"] = sorted(set(ask["protocols"]))
    if ask.get("external_ids") is not None:
        bridge["external_ids"] = _mapping(ask["external_ids"])
    _plan_bridge_config(bridge, ask)
    if ask.get("controllers") is not None:
        bridge["controllers"] = {
            item["target"]: _plan_controller(bridge["controllers"].get(item["target"], {}), item)
            for item in ask["controllers"]
        }
    faults: list[str] = []
    for index, port in enumerate(ask.get("ports") or []):
        faults += _plan_port(want, ask["name"], port, f"{path}.ports[{index}]")
    return faults


def _plan_bridge_config(bridge: Tree, ask: Tree) -> None:
    if ask.get("other_config") is not None:
        kept = {key: value for key, value in bridge["other_config"].items() if key == DATAPATH_ID_KEY}
        bridge["other_config"] = {**kept, **_mapping(ask["other_config"])}
    if ask.get("datapath_id"):
        bridge["other_config"][DATAPATH_ID_KEY] = ask["datapath_id"].lower()
    elif ask.get("datapath_id") is not None:
        bridge["other_config"].pop(DATAPATH_ID_KEY, None)


def _plan_controller(have: Tree, ask: Tree) -> Tree:
    return {key: have.get(key) if ask.get(key) is None else ask[key] for key in CONTROLLER_SETTINGS}


def _plan_port(want: Tree, bridge_name: str, ask: Tree, path: str) -> list[str]:
    ports = want["bridges"][bridge_name]["ports"]
    name = ask["name"]
    owner = next((other for other, bridge in want["bridges"].items() if name in bridge["ports"]), None)
    if ask.get("state") == "absent":
        ports.pop(name, None)
        return []
    if owner is not None and owner != bridge_name:
        if owner == name:
            return [f"{path}.name: {name!r} is the name of a bridge on this host: only that bridge can have this port"]
        # A name exists once per host: a port listed here while it sits elsewhere moves, with its settings.
        ports[name] = want["bridges"][owner]["ports"].pop(name)
    port = ports.setdefault(name, new_port())
    if port["type"] == BOND:
        return [f"{path}.name: {name!r} is a bond of several interfaces on this host: manage it with other tools"]
    for key in ("options", "other_config", "external_ids"):
        if ask.get(key) is not None:
            port[key] = _mapping(ask[key])
    if ask.get("type") is not None:
        port["type"] = ask["type"] or "system"
    if ask.get("mtu") is not None:
        port["mtu"] = ask["mtu"] or None
    return []
