# Copyright (c) qnet authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controllers say about a change: the receipt of one that was made, asked over their API."""

from __future__ import annotations

import json
import time
import typing as t
import urllib.error
import urllib.parse

from ansible.module_utils.urls import open_url

DEFAULT_API = "http://127.0.0.1:9680"

_MORE_SECONDS = 10


class Unconfirmed(Exception):
    """The switches have not confirmed a change. The text says which, and what to do; ``receipt`` is what is known."""

    def __init__(self, text: str, receipt: dict[str, t.Any] | None) -> None:
        super().__init__(text)
        self.receipt = receipt


def ask(api: str, path: str, body: t.Any = None, seconds: float = 30) -> dict[str, t.Any]:
    """Ask a controller; with a body the question is a POST. Raises OSError or ValueError with what it said."""
    data = None if body is None else json.dumps(body)
    headers = {"Content-Type": "application/json"}
    with open_url(
        f"{api}{path}", data=data, headers=headers, timeout=seconds + _MORE_SECONDS, use_proxy=False
    ) as answer:
        found: dict[str, t.Any] = json.loads(answer.read())
        return found


def reason(error: Exception) -> str:
    """Why a controller did not answer, in its own words when it has said so."""
    if isinstance(error, urllib.error.HTTPError):
        body = error.read().decode(errors="replace")
        try:
            return str(json.loads(body)["error"])
        except (ValueError, KeyError, TypeError):
            return f"status {error.code}: {body.strip()}"
    return f"{error}; is qnet-controller running there?"


def wait(api: str, generation: int, seconds: int, began: float) -> dict[str, t.Any]:
    """The receipt of a generation, when every switch has confirmed it. Raises Unconfirmed.

    ``began``: monotonic time at which the change was begun. ``total_milliseconds`` of the receipt is counted from it.
    """
    question = urllib.parse.urlencode({"generation": generation, "wait": seconds})
    try:
        receipt = ask(api, f"/v1/receipt?{question}", seconds=seconds)
    except (OSError, ValueError) as error:
        raise Unconfirmed(
            f"the change is in the database, but the controller at {api} does not say what became of it: {error}; "
            "check qnet-controller there, or run with wait: false",
            None,
        ) from error
    receipt["total_milliseconds"] = round((time.monotonic() - began) * 1000, 3)
    if not receipt["confirmed"]:
        raise Unconfirmed(
            f"the change is in the database, but within {seconds} s these hosts have not confirmed it: "
            f"{', '.join(receipt['pending'])}; on them it takes effect as soon as they are connected to a controller",
            receipt,
        )
    return receipt
