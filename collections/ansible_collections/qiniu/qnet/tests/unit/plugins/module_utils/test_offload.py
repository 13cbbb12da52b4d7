# SPDX-License-Identifier: GPL-3.0-or-later
"""From what a host says of its card to an offload level. See cards/README.md for what the cards are, and are not."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.qiniu.qnet.plugins.module_utils import _offload
from ansible_collections.qiniu.qnet.plugins.module_utils._offload import Card, decide

HERE = Path(__file__).with_name("cards")
# The kernel and Open vSwitch of Debian 12, on which the cards are judged unless a test says another kernel.
KERNEL, OVS = "6.1.0-31-amd64", "3.1.0"
# Card -> the level that it gets, the most that it may have, and a part of the reason. Written down here by hand: what
# the table decides is compared with it.
EXPECTED = {
    "broadcom": ("stateless", "stateless", "Broadcom NetXtreme-C and -E"),
    "connectx4": ("stateless", "stateless", "the embedded switch is not in mode switchdev"),
    "connectx4_switchdev": ("stateless", "stateless", "firmware before 16.20"),
    "connectx5": ("stateless", "stateless", "the embedded switch is not in mode switchdev"),
    "connectx6": ("stateless", "stateless", "the embedded switch is not in mode switchdev"),
    "e810": ("stateless", "stateless", "the embedded switch is not in mode switchdev"),
    "ena": ("none", "none", "neither cuts segments nor completes checksums inside a tunnel"),
    "ixgbe_82599": ("stateless", "stateless", "Intel 82599"),
    "nfp": ("none", "none", "driver nfp: nobody has written down"),
    "unknown": ("none", "none", "driver newnic: nobody has written down"),
    "veth": ("stateless", "stateless", "packets stay in this kernel"),
    "virtio_net": ("stateless", "stateless", "checksums only"),
    "vlan_on_bond": ("stateless", "stateless", "checksums only"),
    "vmxnet3": ("none", "none", "wrong on several releases of ESXi"),
    "x710": ("stateless", "stateless", "Intel X710"),
    "x710_vf": ("none", "none", "driver i40evf: nobody has written down"),
}
# Card -> the level on the kernel that it was published with, and the reason; those published without one are not here.
ON_ITS_KERNEL = {
    "broadcom": ("none", "63 seconds"),
    "connectx4": ("stateless", "the embedded switch is not in mode switchdev"),
    "connectx4_switchdev": ("stateless", "firmware before 16.20"),
    "e810": ("stateless", "the embedded switch is not in mode switchdev"),
    "ena": ("none", "neither cuts segments nor completes checksums inside a tunnel"),
    "nfp": ("none", "driver nfp: nobody has written down"),
    "veth": ("stateless", "packets stay in this kernel"),
    "virtio_net": ("stateless", "checksums only"),
    "vlan_on_bond": ("stateless", "checksums only"),
    "vmxnet3": ("none", "wrong on several releases of ESXi"),
    "x710": ("none", "63 seconds"),
    "x710_vf": ("none", "driver i40evf: nobody has written down"),
}


def record(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text())
    return found


def named(name: str, **changes: Any) -> Card:
    found = record(name)
    driver, firmware = _offload.parse_driver("\n".join(found["identity"]))
    features = _offload.parse_features("\n".join(found["features"]))
    eswitch = _offload.parse_eswitch(found["eswitch"])
    card = Card("eth1", driver, firmware, features, eswitch, kernel=KERNEL, ovs=OVS)
    return dataclasses.replace(card, **changes)


@pytest.mark.parametrize("name", EXPECTED)
def test_each_card_gets_its_level_with_a_reason(name: str) -> None:
    level, most, reason = EXPECTED[name]
    decision = decide(named(name))
    assert (decision.level, decision.most) == (level, most), decision.reasons
    assert reason in " ".join(decision.reasons)


@pytest.mark.parametrize("name", ON_ITS_KERNEL)
def test_each_card_gets_its_level_on_the_kernel_that_it_was_published_with(name: str) -> None:
    level, reason = ON_ITS_KERNEL[name]
    decision = decide(named(name, kernel=record(name)["kernel"]))
    assert decision.level == level, decision.reasons
    assert reason in " ".join(decision.reasons)


def test_every_record_is_tested() -> None:
    names = {path.stem for path in HERE.glob("*.json")}
    assert names == set(EXPECTED)
    assert {name for name in names if record(name)["kernel"]} == set(ON_ITS_KERNEL)


def test_every_record_says_where_it_is_from_and_what_was_filled_in() -> None:
    for name in EXPECTED:
        found = record(name)
        assert found["source"], name
        assert bool(found["assumed"]) == (found["recorded"] in ("partly", "made up")), name


def test_the_counts_in_the_readme_are_right() -> None:
    rows = re.findall(r"^\| `([a-z ]+)` \| (\d+) \| .*: ([\w, ]+) \|$", (HERE / "README.md").read_text(), re.M)
    told = {kind: (int(count), set(names.split(", "))) for kind, count, names in rows}
    kinds = {record(name)["recorded"] for name in EXPECTED}
    found = {kind: {name for name in EXPECTED if record(name)["recorded"] == kind} for kind in kinds}
    assert told == {kind: (len(names), names) for kind, names in found.items()}


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("wish", _offload.LEVELS)
def test_no_wish_goes_beyond_what_a_known_card_may_have(name: str, wish: str) -> None:
    card = named(name)
    if card.driver in _offload.DRIVERS:
        assert _offload.LEVELS.index(decide(card, wish).level) <= _offload.LEVELS.index(EXPECTED[name][1])


@pytest.mark.parametrize("name", ["unknown", "nfp", "x710_vf"])
def test_a_card_of_an_unknown_driver_gets_none_whatever_it_says_it_can(name: str) -> None:
    card = named(name)
    decision = decide(card)
    assert (decision.level, decision.most, decision.faults) == ("none", "none", [])
    assert decision.reasons == [f"driver {card.driver}: nobody has written down what it does with tunnels"]


def test_a_card_that_says_nothing_gets_none_with_a_reason() -> None:
    decision = decide(Card("eth1", ""))
    assert (decision.level, decision.most) == ("none", "none")
    assert all(decision.reasons)


def test_an_unknown_card_may_be_tried_but_not_with_flows() -> None:
    assert decide(named("unknown"), "flow").level == "stateless"


def test_flows_are_offloaded_only_when_wished_for() -> None:
    card = named("connectx5", eswitch="switchdev")
    decision = decide(card)
    assert (decision.level, decision.most) == ("stateless", "flow")
    assert "joined by veth" in " ".join(decision.reasons)
    assert decide(card, "flow").level == "flow"


def test_an_old_kernel_keeps_every_card_at_none() -> None:
    decision = decide(named("connectx5", eswitch="switchdev", kernel="5.4.0-1"))
    assert decision.level == "none"
    assert "63 seconds" in " ".join(decision.reasons)


def test_the_datapath_in_user_space_gets_none() -> None:
    assert decide(named("veth", datapath="netdev")).level == "none"


def test_segmentation_in_user_space_is_a_fault_where_it_breaks_the_tunnel() -> None:
    card = dataclasses.replace(named("veth"), datapath="netdev", userspace_tso=True)
    assert "userspace-tso-enable" in decide(card).faults[0]
    assert not decide(dataclasses.replace(card, ovs="3.5.0")).faults
    assert not decide(dataclasses.replace(card, datapath="system")).faults


def test_only_what_can_be_switched_is_wanted() -> None:
    card = named("x710")
    want = _offload.wanted(card, "stateless", _offload.ON_CARD)
    assert want == {**dict.fromkeys((*_offload.SEGMENTATION, _offload.PORT), True), _offload.FLOW: False}
    assert _offload.difference(card.features, want) == {}
    assert set(_offload.difference(card.features, _offload.wanted(card, "none", _offload.ON_CARD)).values()) == {False}
    assert _offload.wanted(named("ena"), "stateless", _offload.ON_CARD) == {}
    assert _offload.wanted(named("connectx5"), "stateless", _offload.ON_CARD) == {
        **dict.fromkeys(("tx-udp_tnl-segmentation", _offload.PORT), True),
        _offload.FLOW: False,
    }


def test_offload_of_flows_that_a_card_came_with_is_switched_off() -> None:
    card = named("broadcom")
    want = _offload.wanted(card, "stateless", _offload.ON_CARD)
    assert _offload.difference(card.features, want) == {_offload.FLOW: False}


def test_what_was_requested_in_vain_is_not_wanted_again() -> None:
    card = named("vlan_on_bond")
    assert not any(card.can(feature) for feature in _offload.SEGMENTATION)
    assert _offload.wanted(card, "stateless", _offload.ON_CARD) == {}


def test_versions_compare_by_number() -> None:
    assert _offload.older("5.10.0", "5.11") is True
    assert _offload.older("5.10.0", "5.7") is False
    assert _offload.older("14.23.1020 (MT_1)", "16.20") is True
    assert _offload.older("", "1") is True


def test_falling_back_ends_at_none() -> None:
    assert [_offload.next_lower(level) for level in _offload.LEVELS] == [None, "none", "stateless"]


def test_a_level_is_slower_only_beyond_doubt() -> None:
    assert _offload.slower([5.1, 4.9], [8.0, 7.6]) == (
        "0.64 of none's throughput (4.9 to 5.1 Gbit/s in 2 streams, none 7.6 to 8)"
    )
    assert not _offload.slower([5.1, 7.0], [8.0, 7.6])  # 7 is more than 0.9 of 7.6
    assert not _offload.slower([7.0, 7.1], [7.4, 7.5])  # less than a tenth
    assert not _offload.slower([9.0], [1.0])
    assert not _offload.slower([], [1.0])
    assert not _offload.slower([1.0], [])


def test_the_gain_is_of_what_was_measured_on_both() -> None:
    assert _offload.gain_of([3.0, 5.0], [2.0]) == 2.0
    assert _offload.gain_of([3.0], []) is None
    assert _offload.gain_of([], [3.0]) is None
    assert _offload.gain_of([3.0], [0.0]) is None


def test_a_probe_is_good_for_one_kernel_driver_and_firmware() -> None:
    card = named("x710")
    others = [dataclasses.replace(card, kernel="6.12"), dataclasses.replace(card, firmware="9")]
    others += [dataclasses.replace(card, driver="ice"), dataclasses.replace(card, ovs="3.5")]
    assert card.identity not in {other.identity for other in others}
