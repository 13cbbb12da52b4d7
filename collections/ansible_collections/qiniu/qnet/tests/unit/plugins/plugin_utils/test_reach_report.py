# SPDX-License-Identifier: GPL-3.0-or-later
"""Measured beside expected: every difference is found and named."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.qiniu.qnet.plugins.plugin_utils.reach import ALL, Pair, Target
from ansible_collections.qiniu.qnet.plugins.plugin_utils.reach_report import compare, measured, probe_targets

ENTRY = Target("entry/entry-1", "pod", "entry", "entry", "prod", "10.0.0.2")
IMAGE = Target("fop/image-1", "pod", "fop", "image", "prod", "10.0.0.3")
SERVICE_IP = Target("fop/image", "service_ip", "fop", "image", "prod", "10.1.0.3")
EXPORT = {"service": "fop/image", "to": "entry", "ports": ["tcp/80", "icmp"]}
ASKED = probe_targets([ENTRY, IMAGE, SERVICE_IP], [EXPORT], ["icmp", "udp/9"])
PAIRS = [
    Pair(ENTRY, IMAGE, ()),
    Pair(ENTRY, SERVICE_IP, ("tcp/80", "icmp")),
    Pair(IMAGE, ENTRY, ()),
    Pair(IMAGE, SERVICE_IP, ALL),
]


def results(**changed: bool) -> list[dict[str, Any]]:
    """What the module returns when everything is as expected, but for single results by source, target and protocol."""
    protocols = {target["name"]: target["protocols"] for target in ASKED}
    return [
        {
            "pod": pair.source.name,
            "address": pair.target.address,
            "protocol": protocol,
            "reached": changed.get(f"{pair.source.name} {pair.target.name} {protocol}", pair.permits(protocol)),
        }
        for pair in PAIRS
        for protocol in protocols[pair.target.name]
    ]


def test_ports_of_exports_are_probed_besides_the_common_protocols() -> None:
    assert [target["protocols"] for target in ASKED] == [
        ["icmp", "udp/9"],
        ["icmp", "udp/9", "tcp/80"],
        ["icmp", "udp/9", "tcp/80"],
    ]


def test_no_difference_when_all_is_as_expected() -> None:
    report = compare(PAIRS, ASKED, measured(results()))
    assert report.differences == []
    assert (report.pairs, report.probes) == (4, 3 + 3 + 2 + 3)


def test_matrix_has_a_row_for_each_source_and_columns_for_pods_and_service_ips() -> None:
    assert compare(PAIRS, ASKED, measured(results())).text.splitlines()[:4] == [
        "to           entry/entry  fop/image",
        "from         pods         pods  IP",
        "entry/entry  -            no    part",
        "fop/image    no           -     yes",
    ]


def test_each_wrong_probe_is_a_difference_with_names() -> None:
    wrong = {"entry/entry-1 fop/image-1 icmp": True, "fop/image-1 fop/image tcp/80": False}
    report = compare(PAIRS, ASKED, measured(results(**wrong)))
    assert report.differences == [
        "entry/entry-1 -> fop/image-1 (pod, 10.0.0.3) icmp: expected not reached, measured reached",
        "fop/image-1 -> fop/image (Service IP, 10.1.0.3) tcp/80: expected reached, measured not reached",
    ]
    assert "no!1" in report.text
    assert "yes!1" in report.text


def test_what_was_not_measured_is_a_difference() -> None:
    report = compare(PAIRS, ASKED, measured(results()[1:]))
    assert report.differences == [
        "entry/entry-1 -> fop/image-1 (pod, 10.0.0.3) icmp: expected not reached, measured not measured"
    ]


def test_many_services_are_shown_by_group() -> None:
    pods = [Target(f"g{n % 2}/s{n}-1", "pod", f"g{n % 2}", f"s{n}", "prod", f"10.0.0.{n + 2}") for n in range(14)]
    pairs = [Pair(a, b, ALL if a.group == b.group else ()) for a in pods for b in pods if a != b]
    text = compare(pairs, probe_targets(pods, [], ["icmp"]), {}).text
    assert text.splitlines()[0].split() == ["to", "g0", "g1"]
    assert text.splitlines()[2].split() == ["g0", "yes!42", "no!49"]


@given(flipped=st.sets(st.integers(0, len(results()) - 1)))
def test_number_of_differences_is_the_number_of_wrong_results(flipped: set[int]) -> None:
    found = [{**r, "reached": r["reached"] is not (n in flipped)} for n, r in enumerate(results())]
    assert len(compare(PAIRS, ASKED, measured(found)).differences) == len(flipped)
