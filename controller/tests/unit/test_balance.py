# SPDX-License-Identifier: Apache-2.0
"""Shares of connections and of clients, as Open vSwitch deals them from the groups that the program makes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

from qnet_controller.pipeline import messages as m
from qnet_controller.pipeline.balance import MOST_SLOTS, apportion, connection
from qnet_controller.pipeline.family import IPV4
from simulator import packets as p
from simulator.balanced import SERVICE_IP, address, groups
from simulator.select import Selector, slots

CONNECTIONS = 100_000


def group(weights: Iterable[int], down: Iterable[int] = (), affinity: str = "none") -> m.Group:
    """The same, when it is one."""
    (made,) = groups(weights, down, affinity)
    return made


def backend(bucket: m.Bucket) -> int:
    (action,) = bucket.actions
    assert isinstance(action, m.Ct)
    assert action.nat
    return int.from_bytes(action.nat.address, "big") - address(0)


class Picker:
    """Says which backend of a group a connection to port 80 takes."""

    def __init__(self, *made: m.Group) -> None:
        self._fields = [field.name for field in made[-1].hashed]
        self._first = made[-1].id
        self._selectors = {item.id: Selector(item) for item in made}
        self._packet = p.tcp(0, 0, SERVICE_IP, 80, p.SYN)

    def __call__(self, client: int, port: int) -> int:
        self._packet.source, self._packet.src_port = client, port
        values = {"ipv4_src": client, "ipv4_dst": SERVICE_IP, "ip_proto": 6, "tcp_src": port, "tcp_dst": 80}
        number = self._first
        while True:
            bucket = self._selectors[number].choose(self._packet, [values.get(name, 0) for name in self._fields])
            assert bucket
            (action,) = bucket.actions
            if not isinstance(action, m.UseGroup):
                return backend(bucket)
            number = action.group


def shares(made: m.Group, *, many_clients: bool = False) -> Counter[int]:
    """Which backend each of 10⁵ connections takes, from one client or from a new one each time."""
    pick = Picker(made)
    return Counter(
        pick(0x0B000000 + (turn if many_clients else turn >> 15), 1024 + (turn & 0x7FFF)) for turn in range(CONNECTIONS)
    )


@pytest.mark.parametrize("affinity", ["none", "client"])
@pytest.mark.parametrize("weights", [(100, 100, 100), (100, 50), (300, 100, 100), (10, 20, 30, 40), (900, 100)])
def test_every_backend_gets_its_share_within_three_percent(weights: tuple[int, ...], affinity: str) -> None:
    made = group(weights, affinity=affinity)
    counted = shares(made, many_clients=affinity == "client")
    for number, weight in enumerate(weights):
        assert counted[number] == pytest.approx(CONNECTIONS * weight / sum(weights), rel=0.03)


@pytest.mark.parametrize("weights", [(100,) * 3, (100, 50), (97, 101, 103), (1,) * 31, (65535, 1000), (5, 5, 5, 1)])
def test_slots_are_dealt_as_they_were_meant(weights: tuple[int, ...]) -> None:
    made = group(weights)
    assert made.hashed == ()
    dealt = slots(made.buckets)
    assert dealt is not None
    assert len(dealt) <= MOST_SLOTS
    assert Counter(map(backend, dealt)) == dict(enumerate(apportion(list(weights), len(dealt))))


def test_few_equal_backends_take_few_slots() -> None:
    assert [len(slots(group([100] * count).buckets) or ()) for count in (1, 2, 3, 4)] == [16, 16, 128, 16]


def test_shares_too_fine_for_slots_are_hashed() -> None:
    made = group([1000, 1])
    assert made.hashed == connection(IPV4)
    assert len(made.buckets) == 1001
    assert {bucket.weight for bucket in made.buckets} == {1}
    assert len({bucket.id for bucket in made.buckets}) == 1001


def test_five_thousand_backends_all_get_connections() -> None:
    *parts, whole = groups([100] * 5000)
    assert whole.hashed == connection(IPV4)
    assert sum(len(part.buckets) for part in parts) == 5000
    assert all(len(part.buckets) == pytest.approx(2500, rel=0.05) for part in parts)
    assert [bucket.actions for bucket in whole.buckets] == [(m.UseGroup(part.id),) for part in parts]
    # Each choice of the simulated switch looks at every bucket, so it makes fewer than 10⁵.
    pick = Picker(*parts, whole)
    counted = Counter(pick(0x0B000001, 1024 + turn) for turn in range(400))
    assert len(counted) > 370
    assert max(counted.values()) < 5


@pytest.mark.parametrize("weights", [(100,) * 5, (100, 100, 50, 50, 200)])
def test_only_the_clients_of_a_backend_that_goes_move(weights: tuple[int, ...]) -> None:
    clients = range(0x0B000000, 0x0B000000 + 5000)
    whole, reduced = group(weights, affinity="client"), group(weights, down=[2], affinity="client")
    assert whole.hashed == (IPV4.source,)
    choices = (Picker(whole), Picker(reduced))
    before, after = ([pick(client, 1) for client in clients] for pick in choices)
    moved = [old for old, new in zip(before, after, strict=True) if old != new]
    assert set(moved) == {2}, "a client of another backend moved"
    assert len(moved) == pytest.approx(len(clients) * weights[2] / sum(weights), rel=0.15)


def test_a_client_keeps_its_backend_from_any_port() -> None:
    pick = Picker(group([100, 200, 300], affinity="client"))
    for client in range(0x0B000000, 0x0B000000 + 200):
        assert len({pick(client, port) for port in range(1024, 1044)}) == 1
