# SPDX-License-Identifier: Apache-2.0
"""The groups that the program makes of a service with many pods."""

from __future__ import annotations

from collections.abc import Iterable

from qnet_controller.decide.decide import Origin
from qnet_controller.model import objects as o
from qnet_controller.model.model import Model
from qnet_controller.pipeline import messages as m
from qnet_controller.pipeline.demands import Compiler, Pair, Settings

SERVICE_IP = 0x0A600001


def address(number: int) -> int:
    """The address of a pod."""
    return 0x0A0A0001 + number


def groups(weights: Iterable[int], down: Iterable[int] = (), affinity: str = "none") -> list[m.Group]:
    """The groups of a service with pods of these weights, as the program makes it for a host that has all of them."""
    model = Model()
    model.apply(
        [
            o.Network("n", 1, (), ()), o.Host("h", (bytes([192, 0, 2, 1]),), 1),
            o.SecurityGroup("g", "t", 1), o.Service("s", "g", "n"),
            o.ServiceIP("main", "g/s", "n", SERVICE_IP.to_bytes(4, "big"), affinity),
        ]
    )  # fmt: skip
    for number, weight in enumerate(weights):
        packed = address(number).to_bytes(4, "big")
        model.apply([o.Pod(f"s-{number:04d}", "g/s", "n", b"\2\0" + packed, f"p{number}", (packed,), weight)])
        model.port_seen(1, number + 10, f"p{number}", live=number not in down)
    pair = Pair(Origin.POD, 1, 1, SERVICE_IP.to_bytes(4, "big"))
    compiler = Compiler(model, 1, Settings())
    program = compiler.program(pair, 0.0)
    assert program is not None
    (part,) = program.needs
    return list(compiler.part(part).groups.values())
