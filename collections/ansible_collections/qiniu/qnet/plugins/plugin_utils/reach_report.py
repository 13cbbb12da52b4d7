# SPDX-License-Identifier: GPL-3.0-or-later
"""What was measured beside what is expected: one matrix for people, and every difference by name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.qiniu.qnet.plugins.plugin_utils.reach import Pair, Target

Measured = Mapping[tuple[str, str, str], bool]
"""(source pod, address, protocol) to whether it was reached."""

MOST_SERVICES = 12
MOST_LISTED = 50


@dataclass
class Cell:
    """All probes from one service (or group) to the pods or Service IPs of another."""

    expected: set[bool] = field(default_factory=set)
    probes: int = 0
    wrong: int = 0

    def __str__(self) -> str:
        """Yes, no, or part (some protocols or pods only), as expected; ! and a number when that many probes differ."""
        if not self.probes:
            return "-"
        word = "part" if len(self.expected) > 1 else "yes" if True in self.expected else "no"
        return f"{word}!{self.wrong}" if self.wrong else word


@dataclass(frozen=True)
class Report:
    """The comparison. `text` has the matrix and the differences; `differences` has one line each."""

    text: str
    differences: list[str]
    pairs: int
    probes: int


def probe_targets(
    known: Sequence[Target], exports: Sequence[Mapping[str, Any]], protocols: Sequence[str]
) -> list[dict[str, Any]]:
    """Targets for the module qnet_probe: every address, on `protocols` and on the ports its exports are limited to."""
    limits: dict[str, set[str]] = defaultdict(set)
    for export in exports:
        limits[export["service"]].update(export.get("ports") or ())
    return [
        {
            "name": target.name,
            "address": target.address,
            "protocols": [*protocols, *sorted(limits[f"{target.group}/{target.service}"] - set(protocols))],
        }
        for target in known
    ]


def measured(results: Iterable[Mapping[str, Any]]) -> Measured:
    """What the module qnet_probe returned, by source, address and protocol."""
    return {(r["pod"], r["address"], r["protocol"]): bool(r["reached"]) for r in results}


def compare(pairs: Iterable[Pair], asked: Sequence[Mapping[str, Any]], found: Measured) -> Report:
    """Compare what was `found` with what `pairs` expect, for every protocol that `asked` (probe_targets) has."""
    protocols = {target["address"]: target["protocols"] for target in asked}
    by_service: dict[tuple[str, str, str], Cell] = defaultdict(Cell)
    differences = []
    number = probes = 0
    for pair in pairs:
        number += 1
        cell = by_service[_service(pair.source), _service(pair.target), pair.target.kind]
        for protocol in protocols[pair.target.address]:
            expected = pair.permits(protocol)
            got = found.get((pair.source.name, pair.target.address, protocol))
            probes += 1
            cell.probes += 1
            cell.expected.add(expected)
            if got is not expected:
                cell.wrong += 1
                differences.append(_difference(pair, protocol, expected, got))
    counted = f"{number} ordered pairs, {probes} probes, {len(differences)} differences"
    return Report("\n".join([*_matrix(by_service), "", *_listed(differences), counted]), differences, number, probes)


def _difference(pair: Pair, protocol: str, expected: bool, got: bool | None) -> str:
    words = {True: "reached", False: "not reached", None: "not measured"}
    kind = "pod" if pair.target.kind == "pod" else "Service IP"
    target = f"{pair.target.name} ({kind}, {pair.target.address})"
    return f"{pair.source.name} -> {target} {protocol}: expected {words[expected]}, measured {words[got]}"


def _listed(differences: list[str]) -> list[str]:
    left_out = len(differences) - MOST_LISTED
    more = [f"  … and {left_out} more"] if left_out > 0 else []
    return [*(f"  {line}" for line in differences[:MOST_LISTED]), *more]


def _service(target: Target) -> str:
    return f"{target.group}/{target.service}"


def _matrix(cells: Mapping[tuple[str, str, str], Cell]) -> list[str]:
    """The matrix: a row for each source; for each target a column for its pods and one for its Service IPs."""
    names = sorted({name for source, target, dummy in cells for name in (source, target)})
    if len(names) > MOST_SERVICES:
        cells = _merged(cells, lambda name: name.split("/")[0])
        names = sorted({name for source, target, dummy in cells for name in (source, target)})
    kinds = {"pod": "pods", "service_ip": "IP"}
    columns = [
        (name, kind) for name in names for kind in kinds if any((source, name, kind) in cells for source in names)
    ]
    sources = [name for name in names if any((name, *column) in cells for column in columns)]
    rows = [["from", *(kinds[kind] for dummy, kind in columns)]]
    rows += [[source, *(str(cells.get((source, *column), Cell())) for column in columns)] for source in sources]
    widths = [max(len(row[position]) for row in rows) for position in range(len(columns) + 1)]
    heading = "to".ljust(widths[0])
    for name in names:
        mine = [position + 1 for position, column in enumerate(columns) if column[0] == name]
        if mine:
            space = sum(widths[position] for position in mine) + 2 * (len(mine) - 1)
            widths[mine[-1]] += max(len(name) - space, 0)
            heading += "  " + name.ljust(space)
    return [heading.rstrip(), *("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)]


def _merged(
    cells: Mapping[tuple[str, str, str], Cell], outer: Callable[[str], str]
) -> dict[tuple[str, str, str], Cell]:
    merged: dict[tuple[str, str, str], Cell] = defaultdict(Cell)
    for (source, target, kind), cell in cells.items():
        whole = merged[outer(source), outer(target), kind]
        whole.expected |= cell.expected
        whole.probes += cell.probes
        whole.wrong += cell.wrong
    return dict(merged)
