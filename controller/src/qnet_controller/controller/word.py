# SPDX-License-Identifier: Apache-2.0
"""What controllers tell each other, and its form on the wire.

A frame is a length (four bytes, big endian) and that many bytes of JSON; a frame of length 0 is a beat: all is as said
before. Which of the two sides is older does not matter: frames are spoken when both offer `PROTOCOL` (TLS ALPN), else
one byte a beat, which says only whether the sender is ready.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

PROTOCOL = "qnet-peer/2"
READY, NOT_READY = b"\x01", b"\x00"
BEAT = bytes(4)
LARGEST_FRAME = 1 << 20


class NoWord(ValueError):
    """Bytes that are no frame of a controller."""


@dataclass(frozen=True, slots=True)
class Word:
    """What a controller says about itself.

    `ready`: it may be elected. `generation`: of the intent it decides with; None from one that does not say.
    `hears`: the controllers that are ready and that it hears itself. `lacks`: the datapath ids of switches that do not
    answer it, although they should.
    """

    ready: bool = False
    generation: int | None = None
    hears: frozenset[str] = frozenset()
    lacks: frozenset[int] = frozenset()


def encode(word: Word) -> bytes:
    """A word as a frame."""
    said = {
        "ready": word.ready,
        "generation": word.generation,
        "hears": sorted(word.hears),
        "lacks": [f"{number:x}" for number in sorted(word.lacks)],
    }
    body = json.dumps(said, separators=(",", ":")).encode()
    return len(body).to_bytes(4, "big") + body


def decode(body: bytes) -> Word:
    """The word in a frame.

    Raises:
        NoWord: it has another form.
    """
    try:
        said: Any = json.loads(body)
        ready, generation = said["ready"], said["generation"]
        if not isinstance(ready, bool) or type(generation) not in (int, type(None)):
            raise NoWord("ready or generation of the wrong type")
        return Word(ready, generation, frozenset(_texts(said["hears"])), frozenset(map(_number, _texts(said["lacks"]))))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise NoWord(f"no word of a controller: {error}") from None


def _number(text: str) -> int:
    number = int(text, 16)
    if not 0 <= number < 1 << 64:
        raise NoWord(f"{text!r} is no datapath id")
    return number


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise NoWord("not a list of texts")
    return value
