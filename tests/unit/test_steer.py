"""Steering without a NIC: flows as words, rules and tables as bytes, what is written down."""

from __future__ import annotations

import ipaddress
import struct
from pathlib import Path
from typing import Any, cast

import pytest

from netbpf.errors import NetbpfError
from netbpf.netkit import steer
from netbpf.netlink import ethtool
from netbpf.netlink.ntuple import TCP4, TCP6, UDP4, Found, Rule


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("tcp4:443", ["tcp4:443"]),
        ("udp6:53", ["udp6:53"]),
        ("tcp:443", ["tcp4:443", "tcp6:443"]),
        ("tcp:10.0.0.5:0443", ["tcp4:10.0.0.5:443"]),
        ("udp4:10.0.0.5:53", ["udp4:10.0.0.5:53"]),
        ("udp:[2001:DB8:0::1]:53", ["udp6:[2001:db8::1]:53"]),
        ("rss", []),
    ],
)
def test_flows(word: str, meant: list[str]) -> None:
    assert steer.flows([word]) == meant
    assert steer.flows([word, word]) == meant
    assert steer.flows(meant) == meant


@pytest.mark.parametrize(
    "word",
    [
        *("", "tcp", "tcp:", "tcp4:0", "tcp4:65536", "tcp4:-1", "tcp4:x", "icmp:1", "443"),
        *("tcp6:10.0.0.1:1", "tcp4:[::1]:1", "tcp6:::1:1", "tcp:10.0.0:1", "tcp4:٣"),
        *("tcp:[::1", "tcp4:10.0.0.1", "RSS"),
    ],
)
def test_what_is_no_flow(word: str) -> None:
    with pytest.raises(ValueError, match="is no flow"):
        steer.flows([word])


def test_a_rule_is_what_ethtool_sends() -> None:
    # What `ethtool -N eth0 flow-type tcp4 dst-ip 10.0.0.5 dst-port 443 action 3 loc 7` hands over.
    values = bytes.fromhex("00000000 0a000005 0000 01bb 00").ljust(52, b"\0")
    masks = bytes.fromhex("00000000 ffffffff 0000 ffff 00").ljust(52, b"\0")
    expected = (
        struct.pack("=IIQI", 0x32, 0, 0, 1)
        + (values + bytes(20) + masks + bytes(20) + bytes(4))
        + struct.pack("=QIIII", 3, 7, 0, 0, 0)
    )
    rule = Rule(TCP4, ipaddress.IPv4Address("10.0.0.5"), 443, 3)
    assert rule.packed(0x32, 7) == expected
    assert len(expected) == 192


def test_a_rule_is_known_again_by_all_that_it_says() -> None:
    rule = Rule(TCP6, ipaddress.IPv6Address("2001:db8::1"), 443, 3)
    packed = rule.packed(0, 0)
    values, masks = packed[20:72], packed[92:144]
    assert masks[16:32] == b"\xff" * 16
    assert Found(7, TCP6, values, masks, 3).says(rule)
    assert not Found(7, TCP6, values, masks, 2).says(rule)
    assert not Found(7, TCP4, values, masks, 3).says(rule)
    assert not Found(7, TCP6, values, bytes(52), 3).says(rule)
    assert not Found(7, TCP6, values, masks, 3).says(Rule(TCP6, None, 443, 3))
    assert Rule(UDP4, None, 53, 1).packed(0, 0)[92:104] == bytes(10) + b"\xff\xff"


class Asked:
    """In place of a socket: takes requests, gives one answer."""

    def __init__(self, answer: dict[int, bytes]) -> None:
        self.answer = answer
        self.asked: list[tuple[int, bytes]] = []

    def call(self, command: int, attributes: bytes) -> list[dict[int, bytes]]:
        self.asked.append((command, attributes))
        return [self.answer]


def test_the_rss_table_as_bytes() -> None:
    asked = Asked({4: struct.pack("=4I", 0, 1, 2, 3)})
    socket = cast(Any, asked)
    header = struct.pack("=HHHHI", 12, 0x8001, 8, 1, 7)
    assert ethtool.rss_table(socket, 7) == [0, 1, 2, 3]
    ethtool.set_rss_table(socket, 7, [0, 1, 0, 1])
    table = struct.pack("=HH4I", 20, 4, 0, 1, 0, 1)
    assert asked.asked == [(38, header), (48, header + table)]
    # Some drivers have a hash function and no table.
    assert ethtool.rss_table(cast(Any, Asked({3: b"\1\0\0\0"})), 7) is None


def test_what_is_written_down_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "1-2.json"
    assert steer._read(file) == {}
    done = {3: steer._Steered({3: 0, 7: 1}, ["tcp4:443", "udp6:[2001:db8::1]:53"])}
    steer._write(file, done)
    assert steer._read(file) == done
    assert [each.name for each in tmp_path.iterdir()] == ["1-2.json"]
    steer._write(file, {})
    assert not file.exists()
    for text in ("", "[]", '{"3": {}}', '{"3": {"entries": {}, "flows": ["x"]}}'):
        file.write_text(text)
        with pytest.raises(NetbpfError, match="not as netbpf left it"):
            steer._read(file)
