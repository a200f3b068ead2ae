"""pyroute2 reads a netkit message as netbpf packs it: a second witness of its numbers."""

from __future__ import annotations

import struct

from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from netbpf.netlink import link_kind
from netbpf.netlink.netkit import NUMBERS


def test_the_kind_is_registered_and_reads_what_we_pack() -> None:
    link_kind.register()
    assert ifinfmsg.ifinfo.data_map["netkit"] is link_kind.netkit
    data = b""
    for value, (number, pack) in enumerate(NUMBERS.values(), start=1):
        payload = pack(value)
        data += struct.pack("=HH", 4 + len(payload), number) + payload.ljust(4, b"\0")
    nest = struct.pack("=HH", 4 + len(data), 2) + data
    message = link_kind.netkit(nest)
    message.decode()
    read = dict(message["attrs"])
    assert read == {name: value for value, name in enumerate(NUMBERS, start=1)}
