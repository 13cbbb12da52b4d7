# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: qnet contributors
"""Which part of tunnel work a network card may do: the rules as data, and the decision that follows from them.

Levels, each with what the one before it has:

none       the kernel completes checksums and cuts segments before it adds the tunnel header
stateless  the card, or the kernel just before it, completes checksums and cuts segments inside the tunnel
flow       the card forwards flows of Open vSwitch by itself (tc-flower, switchdev)

Nothing here touches a host.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

LEVELS = ("none", "stateless", "flow")
SEGMENTATION = ("tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation")
PORT = "rx-udp_tunnel-port-offload"
FLOW = "hw-tc-offload"
CHECKSUM = "tx-checksum-ip-generic"
# What is switched on each device, by the level from which on it is on.
ON_CARD = {**dict.fromkeys((*SEGMENTATION, PORT), "stateless"), FLOW: "flow"}
ON_TUNNEL = {CHECKSUM: "stateless"}
# A level is slower than none when its fastest stream has less than this part of the slowest one of none.
WORTH = 0.9


@dataclasses.dataclass(frozen=True)
class Feature:
    """One line of ``ethtool -k``."""

    on: bool
    fixed: bool = False


@dataclasses.dataclass(frozen=True)
class Card:
    """What is known about an interface and what works with it. Versions are text as their makers write it."""

    interface: str
    driver: str
    firmware: str = ""
    features: dict[str, Feature] = dataclasses.field(default_factory=dict)
    eswitch: str = ""  # mode of the embedded switch, "" where there is none
    kernel: str = ""
    ovs: str = ""
    datapath: str = "system"
    userspace_tso: bool = False

    @property
    def identity(self) -> str:
        """What a correctness probe is good for: when this changes, it has to be made again."""
        return " ".join((self.driver, self.firmware or "-", self.kernel or "-", self.ovs or "-", self.datapath))

    def can(self, feature: str) -> bool:
        """Whether a feature is on, or can be switched on."""
        found = self.features.get(feature)
        return found is not None and (found.on or not found.fixed)


@dataclasses.dataclass(frozen=True)
class Rule:
    """A reason not to go beyond a level. All conditions that are given must hold; versions are *below* bounds."""

    most: str
    why: str
    drivers: tuple[str, ...] = ()
    datapath: str = ""
    kernel_below: str = ""
    firmware_below: str = ""
    ovs_below: str = ""
    lacks: tuple[str, ...] = ()  # the card can have none of these
    eswitch_not: str = ""
    source: str = ""

    def applies(self, card: Card) -> bool:
        """Whether the rule is about this card."""
        return (
            (not self.drivers or card.driver in self.drivers)
            and (not self.datapath or card.datapath == self.datapath)
            and (not self.kernel_below or older(card.kernel, self.kernel_below))
            and (not self.firmware_below or older(card.firmware, self.firmware_below))
            and (not self.ovs_below or older(card.ovs, self.ovs_below))
            and (not self.lacks or not any(card.can(feature) for feature in self.lacks))
            and (not self.eswitch_not or card.eswitch != self.eswitch_not)
        )


# Driver -> (the most it may be trusted with, what it is). A driver that is not here gets the level none.
DRIVERS: dict[str, tuple[str, str]] = {
    "mlx5_core": ("flow", "NVIDIA ConnectX-4 and newer"),
    "mlx4_en": ("stateless", "NVIDIA ConnectX-3 Pro"),
    "i40e": ("stateless", "Intel X710 and XL710"),
    "ice": ("flow", "Intel E810"),
    "ixgbe": ("stateless", "Intel 82599, X540 and X550"),
    "bnxt_en": ("stateless", "Broadcom NetXtreme-C and -E"),
    "ena": ("stateless", "Amazon Elastic Network Adapter"),
    "virtio_net": ("stateless", "virtio"),
    "veth": ("stateless", "a pair of virtual interfaces; packets stay in this kernel"),
    "vmxnet3": ("stateless", "VMware VMXNET3"),
    "bonding": ("stateless", "a bond; its features are those that all members have"),
    "802.1Q VLAN Support": ("stateless", "a VLAN; its features are those of the interface below"),
}
RULES: tuple[Rule, ...] = (
    Rule(
        "none",
        "the datapath in user space takes packets off the card as they are and does not complete checksums itself",
        datapath="netdev",
    ),
    Rule(
        "none",
        "kernels before 5.7 can write a wrong UDP checksum behind NAT; a connection then stalls for about 63 seconds",
        kernel_below="5.7",
        source="kubernetes/kubernetes#88986, flannel-io/flannel#1279",
    ),
    Rule(
        "none",
        "checksums and segments inside VXLAN are reported wrong on several releases of ESXi",
        drivers=("vmxnet3",),
        source="projectcalico/calico#4384 and #9433, weaveworks/weave#3887, k3s-io/k3s#5013, replicatedhq/kURL#5041",
    ),
    Rule(
        "none",
        "the card neither cuts segments nor completes checksums inside a tunnel",
        lacks=(*SEGMENTATION, CHECKSUM),
    ),
    Rule("stateless", "the card has no hw-tc-offload", lacks=(FLOW,)),
    Rule("stateless", "the embedded switch is not in mode switchdev", eswitch_not="switchdev"),
    Rule(
        "stateless",
        "firmware before 16.20 (ConnectX-5) cannot offload flows with a VXLAN header",
        drivers=("mlx5_core",),
        firmware_below="16.20",
        source="ConnectX-4 has firmware 12 and 14, ConnectX-5 has 16; 14.32 in mode switchdev: no flow got offloaded",
    ),
    Rule("stateless", "Open vSwitch before 2.17 does not offload connection tracking", ovs_below="2.17"),
)


@dataclasses.dataclass
class Decision:
    """The level that a card gets before anything was tried, the highest one it may have, and why not more."""

    level: str
    most: str
    reasons: list[str]
    faults: list[str]


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: `14.23.1020 (MT_2420110034)` is (14, 23, 1020)."""
    match = re.match(r"\D*(\d+(?:\.\d+)*)", version)
    return tuple(int(part) for part in match[1].split(".")) if match else ()


def older(version: str, bound: str) -> bool:
    """Whether a version is below a bound; one that is not known counts as old."""
    return numbers(version) < numbers(bound)


def lower(one: str, other: str) -> str:
    """The lower of two levels."""
    return min(one, other, key=LEVELS.index)


def decide(card: Card, wish: str = "auto") -> Decision:
    """The level for a card; `wish` is a level, or `auto` for the highest that is worth it.

    Pods are joined by veth, so the card never sees both ends of a flow, and `flow` would cost without gain: it is
    chosen only when it is wished for.
    """
    most, name = DRIVERS.get(card.driver, ("none", ""))
    reasons = [] if name else [f"driver {card.driver or 'unknown'}: nobody has written down what it does with tunnels"]
    if not name and wish in LEVELS[1:]:
        most = lower(wish, "stateless")
        reasons = [f"driver {card.driver or 'unknown'}: not known; allowed because it is wished for"]
    for rule in RULES:
        if rule.applies(card) and LEVELS.index(rule.most) < LEVELS.index(most):
            most = rule.most
            reasons = [] if rule.most == "none" else reasons
            reasons.append(rule.why + (f" ({rule.source})" if rule.source else ""))
    level = most if wish == "auto" else lower(wish, most)
    if wish == "auto" and level == "flow":
        level = "stateless"
        reasons.append("pods are joined by veth, which the card cannot offload; say level flow where it can")
    elif wish != "auto" and level == wish and level != most:
        reasons.append(f"level {wish} is wished for; the card may have {most}")
    if level == "stateless" and not any(card.can(feature) for feature in SEGMENTATION):
        reasons.append("checksums only: the kernel cuts segments just before the card, after the tunnel header")
    return Decision(level, most, reasons or [name], faults_of(card))


def faults_of(card: Card) -> list[str]:
    """What is set on the host that breaks the overlay whatever the card does."""
    if card.datapath == "netdev" and card.userspace_tso and older(card.ovs, "3.2"):
        return [
            f"Open vSwitch {card.ovs} with userspace-tso-enable drops large packets that leave through its own VXLAN: "
            "ovs-vsctl remove Open_vSwitch . other_config userspace-tso-enable, and restart openvswitch-switch"
        ]
    return []


def wanted(card: Card, level: str, on: dict[str, str]) -> dict[str, bool]:
    """Feature -> whether it should be on at a level; only those that can be switched."""
    rank = LEVELS.index(level)
    return {
        feature: LEVELS.index(since) <= rank
        for feature, since in on.items()
        if feature in card.features and not card.features[feature].fixed
    }


def difference(features: dict[str, Feature], want: dict[str, bool]) -> dict[str, bool]:
    """The part of `want` that is not so yet."""
    return {name: on for name, on in want.items() if features[name].on != on}


def next_lower(level: str) -> str | None:
    """The level to fall back to."""
    rank = LEVELS.index(level)
    return LEVELS[rank - 1] if rank else None


def slower(ours: list[float], plain: list[float]) -> str:
    """By how much the streams of a level are slower than those of level none; "" where that is not beyond doubt.

    Both in Gbit/s. Streams of a busy host differ a lot, so the two must not overlap at all.
    """
    if not ours or not plain or max(ours) >= WORTH * min(plain):
        return ""
    ranges = [f"{min(some):.3g} to {max(some):.3g}" for some in (ours, plain)]
    return f"{gain_of(ours, plain)} of none's throughput ({ranges[0]} Gbit/s in {len(ours)} streams, none {ranges[1]})"


def gain_of(ours: list[float], plain: list[float]) -> float | None:
    """The mean throughput of a level over that of level none; None where one was not measured."""
    return round(sum(ours) / len(ours) / (sum(plain) / len(plain)), 2) if ours and any(plain) else None


# -- what programs of the host print ------------------------------------------------------------------------------


def parse_driver(text: str) -> tuple[str, str]:
    """Driver and firmware of the output of ``ethtool -i``."""
    fields = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    firmware = fields.get("firmware-version", "").strip()
    return fields.get("driver", "").strip(), "" if firmware == "N/A" else firmware


def parse_features(text: str) -> dict[str, Feature]:
    """The output of ``ethtool -k``. What was requested in vain, for what is below cannot do it, is fixed, too."""
    found = {}
    for line in text.splitlines():
        match = re.match(r"\s*([\w-]+): (on|off)(.*)", line)
        if match:
            found[match[1]] = Feature(match[2] == "on", "[" in match[3])
    return found


def parse_eswitch(tree: t.Any) -> str:
    """The mode in the output of ``devlink -j dev eswitch show``; "" when there is none."""
    for handle in (tree.get("dev") or {}).values():
        return str(handle.get("mode", ""))
    return ""
