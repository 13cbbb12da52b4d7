# SPDX-License-Identifier: Apache-2.0
"""What controllers tell each other, and bytes that are no such thing."""

from __future__ import annotations

import json
import random
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnet_controller.controller.word import NoWord, Word, decode, encode

MUTATIONS = 20_000
WORDS = st.builds(
    Word, st.booleans(), st.integers(0, 1 << 62), st.frozensets(st.text(max_size=9)),
    st.frozensets(st.integers(0, (1 << 64) - 1)),
)  # fmt: skip


@given(WORDS)
def test_what_is_said_is_what_is_heard(word: Word) -> None:
    frame = encode(word)
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    assert decode(frame[4:]) == word


SOUND = {"ready": True, "generation": 1, "hears": [], "lacks": []}
OTHERS: tuple[dict[str, object], ...] = (
    {"ready": 1}, {"generation": True}, {"generation": 1.5}, {"generation": "1"}, {"hears": "c1"}, {"hears": [[]]},
    {"hears": {}}, {"lacks": ["x"]}, {"lacks": ["-1"]}, {"lacks": [1]}, {"lacks": ["f" * 17]},
)  # fmt: skip
NO_JSON = (b"", b"7", b"null", b"{}", b"\xff", b"[" * 100_000, b"9" * 100_000)


@pytest.mark.parametrize("body", [*NO_JSON, *(json.dumps(SOUND | other).encode() for other in OTHERS)])
def test_what_is_no_word_is_refused(body: bytes) -> None:
    with pytest.raises(NoWord):
        decode(body)


def test_mutated_words_are_read_or_refused_and_none_takes_long() -> None:
    chance = random.Random(3)
    whole = encode(Word(True, 42, frozenset({"c1", "c2"}), frozenset({1, 1 << 63})))[4:]
    slowest = 0.0
    for _ in range(MUTATIONS):
        body = bytearray(whole)
        for _ in range(chance.randrange(1, 5)):
            at = chance.randrange(len(body))
            body[at : at + chance.randrange(2)] = chance.choice(
                (b"", b'"', b"]", b"{", b"0" * 50, bytes([chance.randrange(256)]))
            )
        began = time.process_time()
        with suppress(NoWord):
            json.dumps(sorted(decode(bytes(body)).hears))
        slowest = max(slowest, time.process_time() - began)
    assert slowest < 1.0  # of CPU, for a hundred bytes
