# SPDX-License-Identifier: Apache-2.0
"""Flows that Open vSwitch refuses, and the OpenFlow error that says so; the simulated switch must refuse them too."""

from __future__ import annotations

from qnet_controller.pipeline import fields as f
from qnet_controller.pipeline import messages as m
from qnet_controller.pipeline.tables import Table

from .packets import ETH_ARP, ETH_IPV4

IP, ARP = (f.ETH_TYPE, ETH_IPV4), (f.ETH_TYPE, ETH_ARP)


def _flow(matching: m.Match, *actions: m.Action) -> m.Flow:
    return m.Flow(Table.PLAN, 1, matching, actions, 0)


REFUSALS: dict[str, tuple[m.Flow, str]] = {
    "port without protocol": (_flow(m.match(IP, (f.TCP_DST, 80))), "OFPBMC_BAD_PREREQ"),
    "port of another protocol": (_flow(m.match(IP, (f.IP_PROTO, 17), (f.TCP_DST, 80))), "OFPBMC_BAD_PREREQ"),
    "ARP field without ARP": (_flow(m.match(IP, (f.ARP_TPA, 1))), "OFPBMC_BAD_PREREQ"),
    "IP field of ARP": (_flow(m.match(ARP, (f.IPV4_DST, 1))), "OFPBMC_BAD_PREREQ"),
    "original destination of what may be invalid": (
        _flow(m.match(IP, (f.CT_STATE, 0x20, 0x20), (f.CT_IPV4_DST, 1))),
        "OFPBMC_BAD_PREREQ",
    ),
    "value outside of its mask": (m.Flow(Table.PLAN, 1, (("reg0", 3, 1),), (), 0), "OFPBMC_BAD_WILDCARDS"),
    "goto to the same table": (_flow(m.match(), m.Goto(Table.PLAN)), "OFPBIC_BAD_TABLE_ID"),
    "goto backwards": (_flow(m.match(), m.Goto(Table.ADMISSION)), "OFPBIC_BAD_TABLE_ID"),
    "ct without IP": (_flow(m.match(), m.Ct(1)), "OFPBAC_MATCH_INCONSISTENT"),
    "write to a header that may be missing": (
        _flow(m.match(), m.Set(f.whole(f.ARP_OP), 2)),
        "OFPBAC_MATCH_INCONSISTENT",
    ),
    "read a header that may be missing": (
        _flow(m.match(), m.Move(f.whole(f.IPV4_SRC), f.whole(f.REG4))),
        "OFPBAC_MATCH_INCONSISTENT",
    ),
    "mark without commit": (_flow(m.match(IP), m.Ct(1, mark=f.GRANT)), "OFPBAC_BAD_ARGUMENT"),
    "mark outside of ct": (_flow(m.match(IP), m.Set(f.whole(f.CT_MARK), 1)), "OFPBAC_BAD_SET_ARGUMENT"),
    "original port of what may be invalid": (
        _flow(m.match(IP, (f.CT_STATE, 0x20, 0x20), (f.CT_PROTO, 6), (f.CT_TP_DST, 80))),
        "OFPBMC_BAD_PREREQ",
    ),
    "unknown group": (_flow(m.match(), m.UseGroup(9)), "OFPBAC_BAD_OUT_GROUP"),
    "unknown meter": (_flow(m.match(), m.UseMeter(9), m.ToController()), "OFPMMFC_INVALID_METER"),
}
