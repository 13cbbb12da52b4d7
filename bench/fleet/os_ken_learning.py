# SPDX-License-Identifier: Apache-2.0
"""A learning switch on os-ken, which ships none: `os_ken_learning.py PORT`, run by os-ken's own environment."""

from __future__ import annotations

import sys
from typing import Any

from os_ken import cfg
from os_ken.base.app_manager import AppManager, OSKenApp
from os_ken.controller import ofp_event
from os_ken.controller.handler import CONFIG_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
from os_ken.lib.packet import ethernet, packet
from os_ken.ofproto import ofproto_v1_3


class Learning(OSKenApp):
    """Learns where MAC addresses are; packets to a learned one get a flow and go on."""

    OFP_VERSIONS = (ofproto_v1_3.OFP_VERSION,)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._port_of: dict[tuple[int, str], int] = {}

    @staticmethod
    def _add(datapath: Any, priority: int, match: Any, actions: list[Any]) -> None:
        parser = datapath.ofproto_parser
        apply = parser.OFPInstructionActions(datapath.ofproto.OFPIT_APPLY_ACTIONS, actions)
        datapath.send_msg(parser.OFPFlowMod(datapath=datapath, priority=priority, match=match, instructions=[apply]))

    @set_ev_cls(ofp_event.EventOFPSwitchFeatures, CONFIG_DISPATCHER)
    def features(self, event: Any) -> None:
        """Send what is not known to the controller."""
        datapath = event.msg.datapath
        parser, constants = datapath.ofproto_parser, datapath.ofproto
        ask = [parser.OFPActionOutput(constants.OFPP_CONTROLLER, constants.OFPCML_NO_BUFFER)]
        self._add(datapath, 0, parser.OFPMatch(), ask)

    @set_ev_cls(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)
    def asked(self, event: Any) -> None:
        """Learn the source; install the way to the destination."""
        message = event.msg
        datapath = message.datapath
        parser, constants = datapath.ofproto_parser, datapath.ofproto
        port = message.match["in_port"]
        frame = packet.Packet(message.data).get_protocols(ethernet.ethernet)[0]
        self._port_of[datapath.id, frame.src] = port
        out = self._port_of.get((datapath.id, frame.dst), constants.OFPP_FLOOD)
        actions = [parser.OFPActionOutput(out)]
        if out != constants.OFPP_FLOOD:
            self._add(datapath, 1, parser.OFPMatch(in_port=port, eth_dst=frame.dst, eth_src=frame.src), actions)
        datapath.send_msg(
            parser.OFPPacketOut(
                datapath=datapath, buffer_id=constants.OFP_NO_BUFFER, in_port=port, actions=actions, data=message.data
            )
        )


if __name__ == "__main__":
    cfg.CONF(["--ofp-tcp-listen-port", sys.argv[1], "--ofp-listen-host", "127.0.0.1"], project="os_ken")
    AppManager.run_apps([__file__])
