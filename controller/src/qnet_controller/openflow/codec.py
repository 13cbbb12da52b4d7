# SPDX-License-Identifier: Apache-2.0
"""The seam to Ryu's codec: every message that is neither hot nor read back for its matches.

Binds to `os_ken` (Ryu as it is maintained), or to `ryu` when the environment variable QNET_OPENFLOW_CODEC says so;
both have the same API. Bytes that come in here have passed the guard.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from ..pipeline.messages import Port
from .guard import VERSION, Multipart, Type, Violation, hello_elements

CODECS = ("os_ken", "ryu")


def _bind(name: str) -> tuple[Any, Any]:
    if name not in CODECS:
        raise ImportError(f"QNET_OPENFLOW_CODEC={name!r}: the codec is one of {', '.join(CODECS)}")
    parser = importlib.import_module(f"{name}.ofproto.ofproto_v1_5_parser")
    return importlib.import_module(f"{name}.ofproto.ofproto_v1_5"), parser


CODEC = os.environ.get("QNET_OPENFLOW_CODEC", CODECS[0])
_ofp, _parser = _bind(CODEC)
_datapath = SimpleNamespace(ofproto=_ofp, ofproto_parser=_parser)

_FRAGMENTS_WITH_PORTS = 3  # OFPC_FRAG_NX_MATCH of nicira-ext.h
PORT_NAME_ENCODING = "utf-8"


@dataclass(frozen=True, slots=True)
class Features:
    """Who the switch is. `auxiliary` is 0 on its main connection."""

    datapath_id: int
    auxiliary: int


@dataclass(frozen=True, slots=True)
class SwitchError:
    """OFPT_ERROR: the names of type and code, and the first bytes of the message that failed."""

    xid: int
    kind: str
    code: str
    data: bytes

    def __str__(self) -> str:
        return f"{self.kind} {self.code}"

    @property
    def overtaken(self) -> bool:
        """Whether the switch refused a write because another controller had become its master."""
        return self.code.startswith("OFPBRC_IS_SLAVE")


@dataclass(frozen=True, slots=True)
class Role:
    """The role of this connection, as in `Roles`, and the generation id the switch knows."""

    role: int
    generation: int


class Roles:
    """ofp_controller_role."""

    NOCHANGE, EQUAL, MASTER, SLAVE = 0, 1, 2, 3
    NAMES = ("nochange", "equal", "master", "slave")


def _bytes(message: Any, xid: int) -> bytes:
    message.set_xid(xid)
    message.serialize()
    return bytes(message.buf)


def _parse(data: bytes, kind: Type) -> Any:
    xid = int.from_bytes(data[4:8], "big")
    try:
        return _parser.msg_parser(_datapath, VERSION, int(kind), len(data), xid, bytearray(data))
    except Exception as error:  # the guard let something through that the codec cannot read
        raise Violation(f"{kind.name} cannot be parsed: {error!r}") from error


# -- to the switch -----------------------------------------------------------------------------------------------


def hello(xid: int) -> bytes:
    """HELLO: OpenFlow 1.5 and nothing else."""
    return _bytes(_parser.OFPHello(_datapath, [_parser.OFPHelloElemVersionBitmap([VERSION])]), xid)


def hello_failed(reason: str, xid: int) -> bytes:
    """The error that ends a negotiation without a common version."""
    kind, code = _ofp.OFPET_HELLO_FAILED, _ofp.OFPHFC_INCOMPATIBLE
    return _bytes(_parser.OFPErrorMsg(_datapath, type_=kind, code=code, data=reason.encode()), xid)


def features_request(xid: int) -> bytes:
    """Ask who the switch is."""
    return _bytes(_parser.OFPFeaturesRequest(_datapath), xid)


def echo_request(xid: int) -> bytes:
    """Ask whether the switch is there."""
    return _bytes(_parser.OFPEchoRequest(_datapath, b""), xid)


def echo_reply(data: bytes, xid: int) -> bytes:
    """Answer an echo request with its own payload."""
    reply = _parser.OFPEchoReply(_datapath, data)
    return _bytes(reply, xid)


def barrier_request(xid: int) -> bytes:
    """Ask to be told when everything before has been done."""
    return _bytes(_parser.OFPBarrierRequest(_datapath), xid)


def role_request(role: int, generation: int, xid: int) -> bytes:
    """Ask for a role, or with `NOCHANGE` for the present one."""
    return _bytes(_parser.OFPRoleRequest(_datapath, role, _ofp.OFPCID_UNDEFINED, generation), xid)


def show_ports_of_fragments(xid: int) -> bytes:
    """SET_CONFIG: let flows match the ports of a first fragment, which Open vSwitch does only when it is asked."""
    return _bytes(_parser.OFPSetConfig(_datapath, _FRAGMENTS_WITH_PORTS, _ofp.OFPCML_NO_BUFFER), xid)


def set_async(xid: int) -> bytes:
    """What the switch tells unasked: ports to everyone, packets and removed flows to the master only."""
    # A packet that we sent in and that misses further on comes back with the reason PACKET_OUT.
    causes = ("TABLE_MISS", "APPLY_ACTION", "ACTION_SET", "GROUP", "PACKET_OUT")
    packet_in = sum(1 << getattr(_ofp, f"OFPR_{cause}") for cause in causes)
    removed = 1 << _ofp.OFPRR_IDLE_TIMEOUT | 1 << _ofp.OFPRR_HARD_TIMEOUT | 1 << _ofp.OFPRR_DELETE
    ports = 1 << _ofp.OFPPR_ADD | 1 << _ofp.OFPPR_DELETE | 1 << _ofp.OFPPR_MODIFY
    role = 1 << _ofp.OFPCRR_MASTER_REQUEST | 1 << _ofp.OFPCRR_CONFIG
    forwarded = 1 << _ofp.OFPRFR_GROUP_MOD | 1 << _ofp.OFPRFR_METER_MOD
    masks = {
        _ofp.OFPACPT_PACKET_IN_SLAVE: 0,
        _ofp.OFPACPT_PACKET_IN_MASTER: packet_in,
        _ofp.OFPACPT_PORT_STATUS_SLAVE: ports,
        _ofp.OFPACPT_PORT_STATUS_MASTER: ports,
        _ofp.OFPACPT_FLOW_REMOVED_SLAVE: 0,
        _ofp.OFPACPT_FLOW_REMOVED_MASTER: removed,
        _ofp.OFPACPT_ROLE_STATUS_SLAVE: role,
        _ofp.OFPACPT_ROLE_STATUS_MASTER: role,
        _ofp.OFPACPT_TABLE_STATUS_SLAVE: 0,
        _ofp.OFPACPT_TABLE_STATUS_MASTER: 0,
        _ofp.OFPACPT_REQUESTFORWARD_SLAVE: 0,
        _ofp.OFPACPT_REQUESTFORWARD_MASTER: forwarded,
    }
    properties = [_parser.OFPAsyncConfigPropReasons(kind, 8, mask) for kind, mask in masks.items()]
    return _bytes(_parser.OFPSetAsync(_datapath, properties), xid)


def multipart_request(kind: Multipart, xid: int, which: int = 0, mask: int = 0) -> bytes:
    """Ask for everything of one kind; for flows, only for those with this part of a cookie; for groups, for one."""
    requests = {
        Multipart.PORT_DESC: lambda: _parser.OFPPortDescStatsRequest(_datapath, 0, _ofp.OFPP_ANY),
        Multipart.GROUP_STATS: lambda: _parser.OFPGroupStatsRequest(_datapath, 0, _ofp.OFPG_ALL),
        Multipart.GROUP_DESC: lambda: _parser.OFPGroupDescStatsRequest(_datapath, 0, which),
        Multipart.METER_DESC: lambda: _parser.OFPMeterDescStatsRequest(_datapath, 0, _ofp.OFPM_ALL),
        Multipart.FLOW_DESC: lambda: _parser.OFPFlowDescStatsRequest(
            _datapath, 0, _ofp.OFPTT_ALL, _ofp.OFPP_ANY, _ofp.OFPG_ANY, which, mask, _parser.OFPMatch()
        ),
    }
    return _bytes(requests[kind](), xid)


_MONITOR = 1


def monitor_request(on: bool, xid: int) -> bytes:
    """Ask to be told of every flow that someone else adds, changes or removes, or to be told no more."""
    request = _parser.OFPFlowMonitorRequest(
        _datapath, 0, _MONITOR, _ofp.OFPP_ANY, _ofp.OFPG_ANY,
        _ofp.OFPFMF_ADD | _ofp.OFPFMF_REMOVED | _ofp.OFPFMF_MODIFY, _ofp.OFPTT_ALL,
        _ofp.OFPFMC_ADD if on else _ofp.OFPFMC_DELETE, _parser.OFPMatch(),
    )  # fmt: skip
    return _bytes(request, xid)


# -- from the switch ---------------------------------------------------------------------------------------------


def read_hello(data: bytes) -> frozenset[int]:
    """The versions that the peer offers.

    Not read by the codec: it forgets the padding of hello elements, so a legal element of 12 bytes makes it loop.
    """
    for offset, length in hello_elements(data):
        kind = int.from_bytes(data[offset : offset + 2], "big")
        if kind == _ofp.OFPHET_VERSIONBITMAP:
            words = (data[start : start + 4] for start in range(offset + 4, offset + length, 4))
            # The first word has the versions 0 to 31, the next one those above.
            offered = sum(int.from_bytes(word, "big") << 32 * index for index, word in enumerate(words))
            return frozenset(version for version in range(offered.bit_length()) if offered >> version & 1)
    # Without a bitmap the version of the header is the highest one, and all below are meant.
    return frozenset(range(1, data[0] + 1))


def read_features(data: bytes) -> Features:
    """FEATURES_REPLY."""
    message = _parse(data, Type.FEATURES_REPLY)
    return Features(message.datapath_id, message.auxiliary_id)


def read_error(data: bytes) -> SwitchError:
    """ERROR, with type and code by name."""
    message = _parse(data, Type.ERROR)
    xid, body = int.from_bytes(data[4:8], "big"), bytes(message.data or b"")
    if message.type == _ofp.OFPET_EXPERIMENTER:
        return SwitchError(xid, f"experimenter {message.experimenter:#x}", f"code {message.exp_type}", body)
    kind = _ofp.ofp_error_type_to_str(message.type)
    return SwitchError(xid, str(kind), str(_ofp.ofp_error_code_to_str(message.type, message.code)), body)


def read_role(data: bytes) -> Role:
    """ROLE_REPLY."""
    message = _parse(data, Type.ROLE_REPLY)
    return Role(message.role, message.generation_id)


def read_role_status(data: bytes) -> Role:
    """ROLE_STATUS: the role has been changed by someone else."""
    message = _parse(data, Type.ROLE_STATUS)
    return Role(message.role, message.generation_id)


def read_ports(data: bytes) -> list[Port]:
    """One part of a port description."""
    return [_port(port) for port in _parse(data, Type.MULTIPART_REPLY).body]


def read_port_status(data: bytes) -> tuple[Port, bool]:
    """PORT_STATUS: the port, and whether it is gone."""
    message = _parse(data, Type.PORT_STATUS)
    return _port(message.desc), message.reason == _ofp.OFPPR_DELETE


def _port(port: Any) -> Port:
    down = port.config & _ofp.OFPPC_PORT_DOWN or port.state & _ofp.OFPPS_LINK_DOWN
    name = port.name if isinstance(port.name, bytes) else str(port.name).encode()
    passing = bool(port.config & _ofp.OFPPC_NO_PACKET_IN)
    hardware = bytes.fromhex(port.hw_addr.replace(":", ""))
    return Port(port.port_no, name.decode(PORT_NAME_ENCODING, "replace"), not down, passing, hardware)
