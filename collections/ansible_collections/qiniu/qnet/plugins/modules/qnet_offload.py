#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: qnet contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: how much of the tunnel work the network card of a host does."""

from __future__ import annotations

DOCUMENTATION = r"""
module: qnet_offload
short_description: Choose, prove and pin the offload level of a host
version_added: 0.1.0
description:
  - Finds out what the network card of a host is, decides from a table how much of the work on tunnelled packets it may
    do, tries that with real packets to another host, and pins the highest level that passes.
  - With V(none) the kernel completes checksums and cuts segments before it adds the tunnel header. With V(stateless)
    the card does, or the kernel just before it. With V(flow) the card also forwards flows of Open vSwitch by itself.
  - What is pinned is written to C(/etc/qnet/offload.json), from which the unit C(qnet-offload) sets it again at boot.
  - A level is tried again when kernel, driver, firmware or Open vSwitch have changed since, and not otherwise.
author:
  - qnet contributors (@qnet)
requirements:
  - Root on the host
  - C(ethtool), and C(devlink) (C(iproute2) on Debian) for cards with an embedded switch
attributes:
  check_mode:
    support: partial
    description: Can run in check mode and return what it would without.
    details: Nothing is tried, so a level that would not pass is not noticed.
  diff_mode:
    support: full
    description: Shows the features before and after.
  idempotent:
    support: full
    description: Nothing is switched and nothing is tried when the pinned level is set and still proved.
options:
  interface:
    description: The interface of the underlay.
    type: str
    required: true
  level:
    description:
      - The level to have at most. V(auto) is the highest that is worth it; one at which every stream was clearly slower
        than at V(none), in two rounds, is not, and the level below is taken.
      - A level that is named is taken however slow it is.
      - A level that the table does not allow for the card is not set; RV(reasons) says why.
    type: str
    choices: [auto, none, stateless, flow]
    default: auto
  datapath:
    description: The datapath of Open vSwitch on the host, V(system) for the kernel's, V(netdev) for the one in user
      space.
    type: str
    choices: [system, netdev]
    default: system
  probe:
    description: How to try a level. Without it a level is set unproved, and tried when this is given later.
    type: dict
    suboptions:
      program:
        description: Path of C(qnet-offload-probe) on the host.
        type: path
        default: /usr/local/sbin/qnet-offload-probe
      local:
        description: The address of this host as a tunnel end point.
        type: str
        required: true
      remote:
        description: The address of the host that serves.
        type: str
        required: true
      number:
        description: What tells this pair of hosts from others.
        type: int
        required: true
      mtu:
        description: MTU of the overlay.
        type: int
        required: true
      seconds:
        description: How long one stream lasts.
        type: float
        default: 2.0
  again:
    description: Try even when nothing has changed.
    type: bool
    default: false
  pinned_file:
    description: Where the level is pinned.
    type: path
    default: /etc/qnet/offload.json
seealso:
  - module: qiniu.qnet.qnet_offload_info
"""

EXAMPLES = r"""
- name: Choose the offload level by the table alone
  qiniu.qnet.qnet_offload:
    interface: eth1

- name: Choose the highest level that passes
  qiniu.qnet.qnet_offload:
    interface: eth1
    probe: {local: 192.0.2.1, remote: 192.0.2.2, number: 1, mtu: 1450}
"""

RETURN = r"""
level:
  description: The level the host has now.
  returned: success
  type: str
  sample: stateless
found:
  description: The level the host had before.
  returned: success
  type: str
  sample: none
most:
  description: The highest level that the table allows for the card.
  returned: success
  type: str
  sample: flow
reasons:
  description: Why this level, and why no higher one.
  returned: success
  type: list
  elements: str
  sample: ["NVIDIA ConnectX-4 and newer"]
faults:
  description: What is set on the host that breaks the overlay whatever the card does.
  returned: success
  type: list
  elements: str
  sample: []
proved:
  description: Whether the level has been tried with packets, on this kernel, driver, firmware and Open vSwitch.
  returned: success
  type: bool
  sample: true
gain:
  description: Throughput at this level over that at level V(none), means of all streams, where both were tried now or
    when it was pinned.
  returned: success
  type: float
  sample: 2.4
probes:
  description: What was tried now, by level; C(seconds) is how long a level that failed was set.
  returned: success
  type: dict
  sample: {}
card:
  description: The card, its driver, firmware, and what works with it.
  returned: success
  type: dict
  sample: {driver: mlx5_core, firmware: 16.35.2000, interface: eth1, kernel: 6.1.0, ovs: 3.1.0}
"""

import json
import pathlib
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.qiniu.qnet.plugins.module_utils import _offload, _offload_host

Options = dict[str, t.Any]
PROBE: Options = {
    "program": {"type": "path", "default": "/usr/local/sbin/qnet-offload-probe"},
    "local": {"type": "str", "required": True},
    "remote": {"type": "str", "required": True},
    "number": {"type": "int", "required": True},
    "mtu": {"type": "int", "required": True},
    "seconds": {"type": "float", "default": 2.0},
}
ARGUMENTS: Options = {
    "interface": {"type": "str", "required": True},
    "level": {"type": "str", "choices": ["auto", *_offload.LEVELS], "default": "auto"},
    "datapath": {"type": "str", "choices": ["system", "netdev"], "default": "system"},
    "probe": {"type": "dict", "options": PROBE},
    "again": {"type": "bool", "default": False},
    "pinned_file": {"type": "path", "default": str(_offload_host.PINNED)},
}


class Doctor:
    """One run of the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self._module = module
        self._options: Options = module.params
        self._run = module.run_command
        self._pinned = _offload_host.read_pinned(pathlib.Path(self._options["pinned_file"]))
        self.card = self._read()
        self.decision = _offload.decide(self.card, self._options["level"])
        self.probes: dict[str, Options] = {}
        self._streams: dict[str, list[float]] = {}  # Gbit/s of every stream of a level, over all its rounds
        self.before: Options = {}

    def _read(self) -> _offload.Card:
        return _offload_host.read_card(self._run, self._options["interface"], self._options["datapath"])

    def found(self) -> str:
        """The lowest level whose features are all as they are; levels that differ in nothing here are one."""
        fitting = [level for level in _offload.LEVELS if not _offload_host.steps_for(self._run, self.card, level)]
        return fitting[0] if fitting else "mixed"

    def still_proved(self) -> bool:
        """Whether what is pinned was tried on this card, kernel and software, for the same wish."""
        same = all(
            self._pinned.get(key) == value
            for key, value in (
                ("interface", self.card.interface),
                ("identity", self.card.identity),
                ("wish", self._options["level"]),
            )
        )
        tried = self._pinned.get("proved") or not self._options["probe"]
        return bool(same and tried and self._pinned.get("level") in _offload.LEVELS and not self._options["again"])

    def set(self, level: str) -> None:
        """Switch what differs from a level, and remember how it was."""
        steps = _offload_host.steps_for(self._run, self.card, level)
        _offload_host.switch(self._run, steps)
        if self.card.datapath == "system":
            _offload_host.set_flow(self._run, _offload_host.flow_steps(self._run, level))
        self.card = self._read()

    def probe(self, level: str) -> Options:
        """Try the level that is set."""
        options = self._options["probe"]
        words = [options["program"], "ask"]
        for name in ("local", "remote", "number", "mtu", "seconds"):
            words += [f"--{name}", str(options[name])]
        words.append("--software-checksums" if level == "none" else "--hasty")
        status, out, err = self._run(words)
        try:
            result: Options = json.loads(out) if status == 0 else {}
        except ValueError:
            result = {}
        if not result:
            result = {"passed": False, "failures": [f"the probe itself failed: {err.strip() or out.strip()}"]}
        self.probes[level] = result
        if result["passed"]:
            self._streams.setdefault(level, []).extend(result.get("streams", []))
        return result

    def choose(self) -> Options:
        """Try levels from the highest downwards; what to pin.

        Level none is tried first: what fails there is not the card's fault, and a level above it can then be given up
        at its first fault. As long as a bad level is tried, the pods' tunnels have it as well.
        """
        level = self.decision.level
        reasons = list(self.decision.reasons)
        proved = level == "none"
        if self._options["probe"] and level != "none":
            self.set("none")
            if self.probe("none")["passed"]:
                level, proved = self._highest(level, reasons), True
            else:
                level = "none"
                faults = self.probes["none"]["failures"]
                reasons += [f"none failed, so the card is not the cause: {text}" for text in faults]
        if not self.probes:
            self.set(level)
        return {
            "interface": self.card.interface,
            "identity": self.card.identity,
            "wish": self._options["level"],
            "level": level,
            "proved": proved,
            "reasons": reasons,
            "gain": None if level == "none" else _offload.gain_of(*self._measured(level)),
        }

    def _highest(self, level: str, reasons: list[str]) -> str:
        """Set the highest level that passes, from `level` downwards to none, which has passed; why no higher one."""
        while level != "none":
            began = time.monotonic()
            result = self._try(level)
            if result["passed"] and self._slower(level):
                self.set("none")
                self.probe("none")
                began = time.monotonic()
                result = self._try(level)
            slower = self._slower(level)
            if result["passed"] and not slower:
                return level
            left, level = level, _offload.next_lower(level) or "none"
            self.set(level)
            took = time.monotonic() - began
            if result["passed"]:
                reasons.append(f"{left} passed, and was measured slower: {slower}")
            else:
                result["seconds"] = round(took, 3)
                reasons += [f"{left} failed and was set for {took:.1f} s: {failure}" for failure in result["failures"]]
        return level

    def _try(self, level: str) -> Options:
        """Set a level and probe it; a driver that refuses it has failed."""
        try:
            self.set(level)
            return self.probe(level)
        except _offload_host.HostError as error:
            return {"passed": False, "failures": [str(error)]}

    def _slower(self, level: str) -> str:
        """By how much a level is slower than none; "" when it is not, or is wished for, or the path has got worse."""
        judged = self._options["level"] == "auto" and self.probes["none"]["passed"]
        return _offload.slower(*self._measured(level)) if judged else ""

    def _measured(self, level: str) -> tuple[list[float], list[float]]:
        return self._streams.get(level, []), self._streams.get("none", [])

    def features(self) -> dict[str, bool]:
        """What is on of the features that levels are about."""
        return {name: self.card.features[name].on for name in _offload.ON_CARD if name in self.card.features}

    def run(self) -> Options:
        """Do it all; what the module returns."""
        found, before = self.found(), self.features()
        if self.still_proved():
            pinned, changed = dict(self._pinned), False
            if _offload_host.steps_for(self._run, self.card, pinned["level"]):
                changed = True
                if not self._module.check_mode:
                    self.set(pinned["level"])
        elif self._module.check_mode:
            pinned, changed = {"level": self.decision.level, "proved": False, "reasons": self.decision.reasons}, True
        else:
            pinned, changed = self.choose(), True
            pinned["devices"] = self._devices(pinned["level"])
            _offload_host.pin(pinned, pathlib.Path(self._options["pinned_file"]))
        return {
            "changed": changed,
            "level": pinned["level"],
            "found": found,
            "most": self.decision.most,
            "reasons": pinned["reasons"],
            "faults": self.decision.faults,
            "proved": pinned["proved"],
            "gain": pinned.get("gain"),
            "probes": self.probes,
            "card": {
                name: getattr(self.card, name)
                for name in ("interface", "driver", "firmware", "eswitch", "kernel", "ovs", "datapath")
            },
            "diff": {"before": {"level": found, **before}, "after": {"level": pinned["level"], **self.features()}},
        }

    def _devices(self, level: str) -> dict[str, dict[str, bool]]:
        """Device -> the features that the boot unit sets again."""
        devices = {self.card.interface: _offload.wanted(self.card, level, _offload.ON_CARD)}
        if self.card.datapath == "system":
            rank = _offload.LEVELS.index(level)
            devices[_offload_host.TUNNEL_DEVICE] = {
                feature: _offload.LEVELS.index(since) <= rank for feature, since in _offload.ON_TUNNEL.items()
            }
        return devices


def main() -> None:
    """Entry point of Ansible."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        module.exit_json(**Doctor(module).run())
    except (_offload_host.HostError, OSError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
