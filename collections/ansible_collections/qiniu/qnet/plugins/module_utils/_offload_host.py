# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: qnet contributors
"""What a host says of its network card, and switching its offloads. All commands go through a function given in."""

from __future__ import annotations

import json
import os
import pathlib
import typing as t

from ansible_collections.qiniu.qnet.plugins.module_utils import _offload

# A command and its arguments -> exit status, output, errors; as AnsibleModule.run_command.
Run = t.Callable[[list[str]], tuple[int, str, str]]

TUNNEL_DEVICE = "vxlan_sys_4789"  # the kernel's device behind the tunnel port of Open vSwitch
PINNED = pathlib.Path("/etc/qnet/offload.json")


class HostError(Exception):
    """The host cannot be asked or set; the text says why."""


def _output(run: Run, *argv: str) -> str | None:
    status, out, _err = run(list(argv))
    return out if status == 0 else None


def _other_config(run: Run, key: str) -> str:
    words = ("--timeout=5", "--if-exists", "get", "Open_vSwitch", ".", f"other_config:{key}")
    return (_output(run, "ovs-vsctl", *words) or "").strip().strip('"')


def _bus(interface: str) -> str:
    """The devlink handle of an interface, or "" when it is not a PCI device."""
    device = os.path.realpath(f"/sys/class/net/{interface}/device")
    return f"pci/{os.path.basename(device)}" if "/pci" in device else ""


def read_card(run: Run, interface: str, datapath: str) -> _offload.Card:
    """What is known of an interface of this host.

    Raises:
        HostError: there is no such interface, or no ethtool.
    """
    if not os.path.exists(f"/sys/class/net/{interface}"):
        raise HostError(f"interface: there is no {interface} on this host")
    listed = _output(run, "ethtool", "-k", interface)
    if listed is None:
        raise HostError(f"ethtool cannot read the features of {interface}: install ethtool")
    driver, firmware = _offload.parse_driver(_output(run, "ethtool", "-i", interface) or "")
    handle = _bus(interface)
    shown = _output(run, "devlink", "-j", "dev", "eswitch", "show", handle) if handle else None
    version = _output(run, "ovs-vswitchd", "--version") or ""
    return _offload.Card(
        interface,
        driver,
        firmware,
        _offload.parse_features(listed),
        _offload.parse_eswitch(json.loads(shown)) if shown else "",
        kernel=os.uname().release,
        ovs=version.splitlines()[0].rpartition(" ")[2] if version else "",
        datapath=datapath,
        userspace_tso=_other_config(run, "userspace-tso-enable") == "true",
    )


def steps_for(run: Run, card: _offload.Card, level: str) -> dict[str, dict[str, bool]]:
    """Device -> the features to switch to have `level`; without those that are right."""
    steps = {card.interface: _offload.difference(card.features, _offload.wanted(card, level, _offload.ON_CARD))}
    if card.datapath == "system" and os.path.exists(f"/sys/class/net/{TUNNEL_DEVICE}"):
        features = _offload.parse_features(_output(run, "ethtool", "-k", TUNNEL_DEVICE) or "")
        tunnel = _offload.Card(TUNNEL_DEVICE, "vxlan", features=features)
        steps[TUNNEL_DEVICE] = _offload.difference(features, _offload.wanted(tunnel, level, _offload.ON_TUNNEL))
    return {device: change for device, change in steps.items() if change}


def switch(run: Run, steps: dict[str, dict[str, bool]]) -> None:
    """Switch features.

    Raises:
        HostError: the driver refuses.
    """
    for device, change in steps.items():
        words = [word for feature, on in change.items() for word in (feature, "on" if on else "off")]
        status, _out, err = run(["ethtool", "-K", device, *words])
        if status:
            raise HostError(f"ethtool -K {device} {' '.join(words)}: {err.strip()}")


def flow_steps(run: Run, level: str) -> dict[str, str]:
    """What to set in other_config of Open vSwitch for `level`; "" is to be removed."""
    have = _other_config(run, "hw-offload")
    want = "true" if level == "flow" else ""
    return {} if have == want or (have == "false" and not want) else {"hw-offload": want}


def set_flow(run: Run, steps: dict[str, str]) -> None:
    """Apply what `flow_steps` said; it takes effect when Open vSwitch is started again."""
    for key, value in steps.items():
        words = ["set", "Open_vSwitch", ".", f"other_config:{key}={value}"] if value else []
        words = words or ["remove", "Open_vSwitch", ".", "other_config", key]
        status, _out, err = run(["ovs-vsctl", "--timeout=5", *words])
        if status:
            raise HostError(f"ovs-vsctl {' '.join(words)}: {err.strip()}")


def read_pinned(path: pathlib.Path = PINNED) -> dict[str, t.Any]:
    """What was pinned on this host: interface, level, identity, results; empty when nothing was."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def pin(content: dict[str, t.Any], path: pathlib.Path = PINNED) -> None:
    """Write down what the boot unit sets again, in one go."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    temporary.chmod(0o644)
    temporary.replace(path)
