# SPDX-License-Identifier: GPL-3.0-or-later
"""From what a host says of its card to an offload level. See cards/README.md for what the cards are, and are not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.qiniu.qnet.plugins.module_utils import _offload
from ansible_collections.qiniu.qnet.plugins.module_utils._offload import Card, decide

CARDS = sorted(Path(__file__).with_name("cards").glob("*.json"))


def read(path: Path) -> tuple[Card, dict[str, Any]]:
    record = json.loads(path.read_text())
    driver, firmware = _offload.parse_driver(record["identity"])
    features = _offload.parse_features(record["features"])
    eswitch = _offload.parse_eswitch(record["eswitch"])
    card = Card("eth1", driver, firmware, features, eswitch, kernel="6.1.0-31-amd64", ovs="3.1.0")
    return card, record["expected"]


def named(name: str) -> Card:
    return read(Path(__file__).with_name("cards") / f"{name}.json")[0]


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_each_card_gets_its_level_with_a_reason(path: Path) -> None:
    card, expected = read(path)
    decision = decide(card)
    assert (decision.level, decision.most) == (expected["level"], expected["most"]), decision.reasons
    assert decision.reasons
    assert expected["reason"] in " ".join(decision.reasons)


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
@pytest.mark.parametrize("wish", _offload.LEVELS)
def test_no_wish_goes_beyond_what_a_known_card_may_have(path: Path, wish: str) -> None:
    card, expected = read(path)
    if card.driver in _offload.DRIVERS:
        assert _offload.LEVELS.index(decide(card, wish).level) <= _offload.LEVELS.index(expected["most"])


def test_an_unknown_card_may_be_tried_but_not_with_flows() -> None:
    assert decide(named("unknown"), "flow").level == "stateless"


def test_flows_are_offloaded_only_when_wished_for() -> None:
    assert decide(named("connectx5")).level == "stateless"
    assert decide(named("connectx5"), "flow").level == "flow"


def test_an_old_kernel_keeps_every_card_at_none() -> None:
    decision = decide(dataclasses.replace(named("connectx5"), kernel="5.4.0-1"))
    assert decision.level == "none"
    assert "63 seconds" in " ".join(decision.reasons)


def test_the_datapath_in_user_space_gets_none() -> None:
    assert decide(dataclasses.replace(named("veth"), datapath="netdev")).level == "none"


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


def test_a_probe_is_good_for_one_kernel_driver_and_firmware() -> None:
    card = named("x710")
    others = [dataclasses.replace(card, kernel="6.12"), dataclasses.replace(card, firmware="9")]
    others += [dataclasses.replace(card, driver="ice"), dataclasses.replace(card, ovs="3.5")]
    assert card.identity not in {other.identity for other in others}
