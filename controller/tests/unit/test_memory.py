# SPDX-License-Identifier: Apache-2.0
"""What is remembered of the model is forgotten at once and freed little by little."""

from __future__ import annotations

from qnet_controller.model.memory import FREED_AT_ONCE, Memory

MANY = 1000


def filled() -> Memory:
    """With many values."""
    memory = Memory()
    for number in range(MANY):
        assert memory.keep(number, -number) == -number
    return memory


def test_nothing_is_known_after_it_is_forgotten_and_nothing_is_freed_by_that() -> None:
    memory = filled()
    memory.forget()
    assert not memory.known
    assert memory.waiting == MANY


def test_what_is_forgotten_is_freed_faster_than_anything_new_is_kept() -> None:
    memory = filled()
    for round_ in range(5):
        memory.forget()
        for number in range(MANY // FREED_AT_ONCE):
            memory.keep((round_, number), number)
        assert memory.waiting <= MANY
    memory.forget()
    for number in range(2 * MANY):
        memory.keep(number, number)
    assert memory.waiting == 0
    assert len(memory.known) == 2 * MANY


def test_a_copy_forgets_on_its_own() -> None:
    memory = filled()
    twin = memory.copy()
    memory.forget()
    assert len(twin.known) == MANY
    assert twin.waiting == 0
