# SPDX-License-Identifier: Apache-2.0
"""A pod that keeps asking in vain is left unanswered for a while; nobody else is, and nothing that is open ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnet_controller.pipeline import refusals
from qnet_controller.pipeline.quarantine import (
    FIRST_SECONDS,
    LEAK_PER_SECOND,
    LONGEST_SECONDS,
    MOST_IN_VAIN,
    Conduct,
    Quarantine,
    in_vain,
)
from simulator import packets as p

from .probe import Prober
from .scene import SIP, opened
from .tenants import POD_BLOCK, TCP, pod_object


def ask_in_vain(prober: Prober, client: str, count: int) -> int:
    """Send first packets that are refused; returns how many the controller was asked about."""
    before, pod = prober.fabric.asked(), prober.world.pods[client]
    for number in range(count):
        packet = p.tcp(pod.address, 1, POD_BLOCK + 90 + number, 80, p.SYN)
        assert not prober.fabric.send(pod_object(pod), packet)
    return prober.fabric.asked() - before


@pytest.fixture(autouse=True)
def exact_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without wide refusals, which leave hardly anything to ask in vain."""
    monkeypatch.setattr(refusals, "WIDENS_AFTER", 1 << 30)


def quarantines(prober: Prober, host: str = "h1") -> list[Quarantine]:
    """Those of a host."""
    return [item for item in prober.fabric.nodes[host].program.demands if isinstance(item, Quarantine)]


def test_only_the_pod_that_asks_in_vain_is_left_unanswered(prober: Prober) -> None:
    held = opened(prober, "b/u-1", SIP)
    assert ask_in_vain(prober, "b/u-1", 3 * MOST_IN_VAIN) == MOST_IN_VAIN + 1
    assert [item.seconds for item in quarantines(prober)] == [FIRST_SECONDS]
    assert prober.check_open(held)
    opened(prober, "b/u-1", SIP, TCP, 8080)  # a new connection of a pair that is installed
    opened(prober, "a/t-1", prober.world.pods["a/s-2"].address)
    assert prober.fabric.nodes["h1"].program.status()["quarantined"] == 1
    prober.fabric.wait(FIRST_SECONDS + 1)
    assert not quarantines(prober)
    prober.check_all(((TCP, 80),))


def test_it_grows_while_the_pod_goes_on_and_is_forgotten_when_it_calms(prober: Prober) -> None:
    for seconds in (FIRST_SECONDS, 2 * FIRST_SECONDS, 4 * FIRST_SECONDS):
        ask_in_vain(prober, "c/w-1", 3 * MOST_IN_VAIN)
        assert [item.seconds for item in quarantines(prober)] == [seconds]
        prober.fabric.wait(seconds + 1)
    prober.fabric.wait(9 * FIRST_SECONDS)
    ask_in_vain(prober, "c/w-1", 3 * MOST_IN_VAIN)
    assert [item.seconds for item in quarantines(prober)] == [FIRST_SECONDS]


def test_it_ends_with_the_port(prober: Prober) -> None:
    ask_in_vain(prober, "c/w-1", 2 * MOST_IN_VAIN)
    assert quarantines(prober)
    prober.fabric.unplug(pod_object(prober.world.pods["c/w-1"]), "h1")
    assert not quarantines(prober)


@given(st.lists(st.floats(0.0, 20.0), max_size=300))
def test_a_conduct_is_bounded_and_a_slow_pod_is_never_in_quarantine(pauses: list[float]) -> None:
    conduct, now, begun = Conduct(), 0.0, 0
    for pause in pauses:
        now += pause
        conduct, begins = in_vain(conduct, now)
        begun += begins
        assert conduct.seconds <= LONGEST_SECONDS
        assert not begins or conduct.until > now
    if all(pause >= 1 / LEAK_PER_SECOND for pause in pauses):
        assert not begun


@given(st.lists(st.sampled_from([0.0, 0.5, 3600.0, -3600.0, -86400.0]), max_size=MOST_IN_VAIN - 1))
def test_a_clock_that_is_set_anew_puts_nobody_in_quarantine(jumps: list[float]) -> None:
    conduct, now = Conduct(), 1e9
    for jump in jumps:
        now += jump
        conduct, begins = in_vain(conduct, now)
        assert not begins
