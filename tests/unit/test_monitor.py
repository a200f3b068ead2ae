"""Messages about devices, taken apart without a kernel."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netbpf.netlink import monitor
from netbpf.netlink.attributes import attribute, text, u32
from netbpf.netlink.links import RTM_DELLINK, RTM_NEWLINK


def message(kind: int, *attributes: bytes, family: int = 0, flags: int = 0) -> bytes:
    body = struct.pack("=BxHiII", family, 1, 7, flags, 0) + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


NAME = attribute(3, text("eth0"))
KIND = attribute(18, attribute(1, text("netkit")))


def heard(datagram: bytes) -> list[monitor.Heard]:
    return list(monitor._parsed(datagram))


def test_there_and_gone() -> None:
    there, gone = heard(message(RTM_NEWLINK, NAME, flags=1) + message(RTM_DELLINK, NAME))
    assert (there.device.name, there.device.ifindex, there.device.up) == ("eth0", 7, True)
    assert (there.gone, there.device.netkit, there.nsid) == (False, False, None)
    assert (gone.gone, gone.device.up) == (True, False)


def test_netkit_is_seen() -> None:
    (found,) = heard(message(RTM_NEWLINK, NAME, KIND))
    assert found.device.netkit


def test_moved() -> None:
    moved = attribute(45, u32(3)), attribute(49, u32(9))
    (found,) = heard(message(RTM_DELLINK, NAME, *moved))
    assert (found.gone, found.nsid, found.new_ifindex) == (True, 3, 9)


def test_what_is_no_news_of_a_device() -> None:
    bridge = message(RTM_DELLINK, NAME, family=7)
    nameless = message(RTM_NEWLINK, KIND)
    other = message(20, NAME)
    assert heard(bridge + nameless + other) == []


@given(st.binary(max_size=200))
def test_any_bytes_come_to_an_end(data: bytes) -> None:
    try:
        heard(data)
    except OSError:
        pass


def test_a_message_without_length() -> None:
    with pytest.raises(OSError, match="cut short"):
        heard(bytes(64))
