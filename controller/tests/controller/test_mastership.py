# SPDX-License-Identifier: Apache-2.0
"""Who claims which switch when: on a line that says what a switch would, with all times shortened."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from contract.example import until
from qnet_controller.config import Config, Endpoint, Peer, Pki
from qnet_controller.controller import mastership as subject
from qnet_controller.controller.election import Standing, elected
from qnet_controller.controller.mastership import Mastership
from qnet_controller.controller.switch import Switch
from qnet_controller.model.model import Model
from qnet_controller.model.objects import Host
from qnet_controller.openflow.codec import Role, Roles
from qnet_controller.openflow.session import Session
from qnet_controller.pipeline.demands import Settings
from qnet_controller.pipeline.messages import PacketIn

ALL = frozenset({"c1", "c2", "c3"})
PROBE = 0.2
SWITCHES = range(1, 10)


@dataclass
class Line:
    """A session whose switch gives every role that is asked for, and answers while it `lives`."""

    lives: bool = True
    role: int = Roles.NOCHANGE
    heard_at: float = 0.0
    asked: int = 0
    roles: list[int] = field(default_factory=list)

    async def request_role(self, role: int) -> Role:
        self.roles.append(role)
        self.role = role
        return Role(role, len(self.roles))

    def ask_for_life(self) -> None:
        self.asked += 1
        if self.lives:
            self.heard_at = asyncio.get_running_loop().time()


class Stage:
    """Controller c1 of three with some switches, all of one set but for those of `sets`."""

    def __init__(self, sets: dict[int, str] | None = None, controllers: dict[str, str] | None = None) -> None:
        self.model = Model()
        self.switches: dict[int, Switch] = {}
        self.told = 0
        for number in SWITCHES:
            self.model.apply([Host(f"h{number}", (bytes([192, 0, 2, number]),), number,
                                   controller_set=(sets or {}).get(number, "default"))])  # fmt: skip
            self.switches[number] = Switch(cast(Session, Line()), number, f"h{number}", ports_known=True)
        peers = tuple(Peer(n, "::1", 1, (controllers or {}).get(n, "default")) for n in sorted(ALL))
        where = Endpoint("::1", 1)
        pki = Pki(*[cast(Any, None)] * 3)
        config = Config("c1", where, ("unix:/x",), pki, peers, where, Settings(), PROBE)
        self.mastership = Mastership(config, self.model, self.switches, lambda _: None, lambda _: None)
        self.mastership.told = self.count

    def count(self) -> None:
        self.told += 1

    def line(self, number: int) -> Line:
        return cast(Line, self.switches[number].session)

    def mastered(self) -> set[int]:
        return {number for number, switch in self.switches.items() if switch.role == Roles.MASTER}

    def should(self, live: frozenset[str] = ALL) -> set[int]:
        return {number for number in SWITCHES if elected(number, ALL, Standing(live)) == "c1"}


def played(play: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(play())


def test_each_takes_its_own_and_those_of_one_that_is_gone() -> None:
    async def play() -> None:
        stage = Stage()
        stage.mastership.begin()
        await until(lambda: stage.mastered() == stage.should() != set())
        stage.mastership.standing_changed(Standing(ALL - {"c2"}))
        await until(lambda: stage.mastered() == stage.should(ALL - {"c2"}) > stage.should())
        stage.mastership.standing_changed(Standing(ALL))
        await asyncio.sleep(0.05)  # nobody steps back by himself
        assert stage.mastered() == stage.should(ALL - {"c2"})

    played(play)


def test_one_that_is_cut_off_claims_late_what_is_not_his(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "APART_CLAIM_SECONDS", 0.3)

    async def play() -> None:
        stage = Stage()
        stage.mastership.begin()
        await until(lambda: stage.mastered() == stage.should())
        stage.mastership.standing_changed(Standing(frozenset({"c1"}), cut_off=True))
        await asyncio.sleep(0.1)
        assert stage.mastered() == stage.should()
        await until(lambda: stage.mastered() == set(SWITCHES))

    played(play)


def test_a_switch_that_does_not_answer_is_told_of_and_watched_until_it_does() -> None:
    async def play() -> None:
        stage = Stage()
        stage.mastership.begin()
        await until(lambda: stage.mastered() == stage.should())
        mine, other = min(stage.should()), min(set(SWITCHES) - stage.should())
        stage.line(mine).lives = stage.line(other).lives = False
        began = asyncio.get_running_loop().time()
        await until(lambda: stage.mastership.lacks == {mine})
        assert asyncio.get_running_loop().time() - began < PROBE * 4
        told = stage.told
        stage.line(mine).lives = True
        await until(lambda: stage.mastership.lacks == set() and stage.told == told + 1)
        assert stage.line(other).asked == 0  # its master asks it
        del stage.switches[other]  # but one that is not connected is known to be missing
        await until(lambda: stage.mastership.lacks == {other})
        stage.mastership.close()

    played(play)


def test_another_takes_the_switch_that_does_not_answer_its_master() -> None:
    one = Standing(ALL, {"c1": frozenset({1}), "c2": frozenset({1})})
    assert elected(1, ALL, one) == "c3"
    assert elected(2, ALL, one) == elected(2, ALL, Standing(ALL))
    nobody = Standing(ALL, {name: frozenset({1}) for name in ALL})
    assert elected(1, ALL, nobody) == elected(1, ALL, Standing(ALL))


def test_a_switch_that_has_just_come_is_left_to_him_whose_it_is_until_he_had_time_to_say_that_he_has_it() -> None:
    async def play() -> None:
        stage = Stage()
        his, later = sorted(set(SWITCHES) - stage.should())[:2]
        lacking = {name: frozenset({his, later}) for name in ("c2", "c3")}
        for number in (his, later):
            stage.switches[number].connected_at = asyncio.get_running_loop().time()
        stage.mastership.begin()
        stage.mastership.standing_changed(Standing(ALL, lacking))
        await until(lambda: stage.mastered() == stage.should())
        stage.mastership.standing_changed(Standing(ALL, {name: frozenset({later}) for name in ("c2", "c3")}))
        await until(lambda: later in stage.mastered())
        assert stage.mastered() == stage.should() | {later}
        assert stage.line(his).roles == [Roles.SLAVE]
        stage.mastership.standing_changed(Standing(ALL, lacking))  # it has been here for long
        await until(lambda: his in stage.mastered())
        stage.mastership.close()

    played(play)


def test_a_leaving_one_serves_until_all_have_been_taken() -> None:
    async def play() -> None:
        stage = Stage()
        stage.mastership.begin()
        await until(lambda: stage.mastered() == stage.should())
        leaving = asyncio.create_task(stage.mastership.hand_over(5.0))
        for number in sorted(stage.should()):
            await asyncio.sleep(0.02)
            assert not leaving.done()
            stage.mastership.role_changed(stage.switches[number], Role(Roles.SLAVE, 99))
        await leaving
        stage.mastership.elect_all()
        await asyncio.sleep(0.05)
        assert stage.mastered() == set()

    played(play)


def test_one_that_leaves_last_waits_for_nobody() -> None:
    async def play() -> None:
        stage = Stage()
        stage.mastership.standing_changed(Standing(frozenset({"c1"})))
        stage.mastership.begin()
        await until(lambda: stage.mastered() == set(SWITCHES))
        async with asyncio.timeout(1.0):
            await stage.mastership.hand_over(60.0)

    played(play)


def test_only_controllers_of_its_set_take_a_switch() -> None:
    async def play() -> None:
        stage = Stage({1: "east", 2: "east", 3: "nowhere"}, {"c1": "east"})
        stage.mastership.begin()
        await until(lambda: stage.mastered() == {1, 2})
        stage.mastership.standing_changed(Standing(frozenset({"c1"})))
        await asyncio.sleep(0.05)
        assert stage.mastered() == {1, 2}
        assert stage.mastership.master_for(3) is None
        stage.model.apply([Host("h4", (bytes([192, 0, 2, 4]),), 4, controller_set="east")])
        stage.mastership.elect_all()
        await until(lambda: stage.mastered() == {1, 2, 4})

    played(play)


def test_packets_are_held_up_to_a_bound_and_for_as_long_as_they_are_fresh() -> None:
    switch = Switch(cast(Session, Line()), 1, "h1")
    packets = [cast(PacketIn, number) for number in range(300)]
    switch.hold(packets[0], 1.0)
    switch.hold(packets[1], 9.5)
    assert switch.release(10.0) == [packets[1]]
    for packet in packets:
        switch.hold(packet, 10.0)
    assert switch.release(10.0) == packets[-256:]
    assert switch.release(10.0) == []


def test_claims_become_rare_in_a_quarrel_and_are_prompt_after_a_quiet_time() -> None:
    switch = Switch(cast(Session, Line()), 1, "h1")
    now, delays = 100.0, []
    for _ in range(9):
        switch.mastered_at = now
        delays.append(switch.next_claim_delay(now + 1.0))
        now += 2.0
    assert delays == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 480.0, 480.0]
    switch.mastered_at = now
    assert switch.next_claim_delay(now + 600.0) == 5.0
