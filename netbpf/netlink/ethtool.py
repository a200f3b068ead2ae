"""The ethtool generic netlink family: what a NIC's rings and channels are set to.

include/uapi/linux/ethtool_netlink_generated.h of Linux 7.2.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pyroute2.netlink import genlmsg
from pyroute2.netlink.generic.ethtool import ethtool_rings_msg, ethtoolheader

from netbpf.netlink.attributes import attribute, u32
from netbpf.netlink.genl import Genl
from netbpf.netlink.refusals import refusals
from netbpf.netlink.rtnl import Refusal

FAMILY = "ethtool"

RINGS_GET = 15
RINGS_SET = 16
CHANNELS_GET = 17
CHANNELS_SET = 18
RSS_GET = 38
RSS_SET = 48

_RSS_HEADER, _RSS_INDIR = 1, 4
_HEADER_DEV_INDEX = 1
_NESTED = 0x8000

Split = Literal["unknown", "off", "on"]
_SPLITS: dict[int, Split] = {0: "unknown", 1: "off", 2: "on"}


class _rings_msg(ethtool_rings_msg):  # type: ignore[misc]
    # pyroute2's map ends before the thresholds, which came with Linux 6.14.
    nla_map = (
        *ethtool_rings_msg.nla_map,
        ("ETHTOOL_A_RINGS_HDS_THRESH", "uint32"),
        ("ETHTOOL_A_RINGS_HDS_THRESH_MAX", "uint32"),
    )


class _channels_msg(genlmsg):  # type: ignore[misc]
    nla_map = (
        ("ETHTOOL_A_CHANNELS_UNSPEC", "none"),
        ("ETHTOOL_A_CHANNELS_HEADER", "ethtoolheader"),
        ("ETHTOOL_A_CHANNELS_RX_MAX", "uint32"),
        ("ETHTOOL_A_CHANNELS_TX_MAX", "uint32"),
        ("ETHTOOL_A_CHANNELS_OTHER_MAX", "uint32"),
        ("ETHTOOL_A_CHANNELS_COMBINED_MAX", "uint32"),
        ("ETHTOOL_A_CHANNELS_RX_COUNT", "uint32"),
        ("ETHTOOL_A_CHANNELS_TX_COUNT", "uint32"),
        ("ETHTOOL_A_CHANNELS_OTHER_COUNT", "uint32"),
        ("ETHTOOL_A_CHANNELS_COMBINED_COUNT", "uint32"),
    )
    ethtoolheader = ethtoolheader


@dataclass(frozen=True)
class Rings:
    """What of a NIC's ring settings matters for zero-copy receive."""

    tcp_data_split: Split | None
    """None: the driver cannot split headers from data."""
    hds_thresh: int | None
    """None: the driver knows no threshold."""


@dataclass(frozen=True)
class Channels:
    """How many queues a NIC has now, and at most."""

    rx: int
    rx_max: int


class Ethtool(Genl):
    """A socket of the ethtool family, in the namespace of the calling thread."""

    def __init__(self) -> None:
        super().__init__(FAMILY)


def rings(ethtool: Ethtool, ifindex: int) -> Rings | None:
    """The ring settings of a NIC; None: its driver tells none."""
    answer = _get(ethtool, RINGS_GET, _rings_msg(), "ETHTOOL_A_RINGS_HEADER", ifindex)
    if answer is None:
        return None
    split = answer.get_attr("ETHTOOL_A_RINGS_TCP_DATA_SPLIT")
    return Rings(
        tcp_data_split=None if split is None else _SPLITS[split],
        hds_thresh=answer.get_attr("ETHTOOL_A_RINGS_HDS_THRESH"),
    )


def set_rings(
    ethtool: Ethtool,
    ifindex: int,
    *,
    tcp_data_split: Literal["on", "off"] | None = None,
    hds_thresh: int | None = None,
) -> None:
    """Change ring settings of a NIC; what is not named stays.

    :raises NetlinkError: the kernel or the driver refused.
    """
    attrs: list[tuple[str, Any]] = [_header("ETHTOOL_A_RINGS_HEADER", ifindex)]
    if tcp_data_split is not None:
        attrs.append(("ETHTOOL_A_RINGS_TCP_DATA_SPLIT", 2 if tcp_data_split == "on" else 1))
    if hds_thresh is not None:
        attrs.append(("ETHTOOL_A_RINGS_HDS_THRESH", hds_thresh))
    with refusals("set rings"):
        ethtool.ask(RINGS_SET, _rings_msg(), attrs)


def channels(ethtool: Ethtool, ifindex: int) -> Channels | None:
    """The rx queues of a NIC; None: its driver tells no channels."""
    answer = _get(ethtool, CHANNELS_GET, _channels_msg(), "ETHTOOL_A_CHANNELS_HEADER", ifindex)
    if answer is None:
        return None

    def number(name: str) -> int:
        return int(answer.get_attr(f"ETHTOOL_A_CHANNELS_{name}") or 0)

    return Channels(
        rx=number("RX_COUNT") + number("COMBINED_COUNT"),
        rx_max=number("RX_MAX") + number("COMBINED_MAX"),
    )


def set_combined(ethtool: Ethtool, ifindex: int, count: int) -> None:
    """Give a NIC ``count`` combined channels, as ``ethtool -L DEV combined N`` does.

    :raises NetlinkError: the kernel or the driver refused; EINVAL: a queue in use would go.
    """
    attrs = [
        _header("ETHTOOL_A_CHANNELS_HEADER", ifindex),
        ("ETHTOOL_A_CHANNELS_COMBINED_COUNT", count),
    ]
    with refusals("set channels"):
        ethtool.ask(CHANNELS_SET, _channels_msg(), attrs)


def rss_table(ethtool: Ethtool, ifindex: int) -> list[int] | None:
    """The queues among which RSS spreads what arrives; None: the NIC has no such table.

    Since Linux 6.3 (net/ethtool/rss.c).
    """
    with refusals("read the RSS table"):
        try:
            (answer,) = ethtool.call(RSS_GET, _rss_header(ifindex))
        except Refusal as error:
            if error.errno == errno.EOPNOTSUPP:
                return None
            raise
    packed = answer.get(_RSS_INDIR)
    return list(struct.unpack(f"={len(packed) // 4}I", packed)) if packed else None


def set_rss_table(ethtool: Ethtool, ifindex: int, table: Sequence[int]) -> None:
    """Change the queues among which RSS spreads what arrives, as ``ethtool -X`` does.

    :param table: of the size that `rss_table` tells.
    :raises NetlinkError: the kernel or the driver refused.

    Since Linux 6.17 (ethnl_rss_set in net/ethtool/rss.c).
    """
    indir = attribute(_RSS_INDIR, struct.pack(f"={len(table)}I", *table))
    with refusals("set the RSS table"):
        ethtool.call(RSS_SET, _rss_header(ifindex) + indir)


def _rss_header(ifindex: int) -> bytes:
    return attribute(_RSS_HEADER | _NESTED, attribute(_HEADER_DEV_INDEX, u32(ifindex)))


def _get(ethtool: Ethtool, command: int, message: Any, header: str, ifindex: int) -> Any:
    with refusals("read NIC settings"):
        try:
            (answer,) = ethtool.ask(command, message, [_header(header, ifindex)])
        except Refusal as error:
            if error.errno == errno.EOPNOTSUPP:
                return None
            raise
    return answer


def _header(name: str, ifindex: int) -> tuple[str, Any]:
    return (name, {"attrs": [("ETHTOOL_A_HEADER_DEV_INDEX", ifindex)]})
