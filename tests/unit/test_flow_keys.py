"""The keys of a flow, decoded from the bytes that the kernel gives."""

from __future__ import annotations

import ipaddress
import struct

import pytest

from netbpf import FlowKeys


def raw(addr_proto: int, addresses: bytes, *, label: int = 0) -> bytes:
    """``struct bpf_flow_keys`` as include/uapi/linux/bpf.h has it."""
    head = struct.pack("=HHHBBBB", 14, 54, addr_proto, 1, 0, 1, 17)
    ports = struct.pack("!HHH", 0x86DD, 4000, 53)
    return (
        head + ports + addresses.ljust(32, b"\0") + struct.pack("=I", 2) + struct.pack("!I", label)
    )


def test_ipv6() -> None:
    ends = [ipaddress.IPv6Address(text).packed for text in ("2001:db8::1", "fe80::2")]
    keys = FlowKeys.parse(raw(0x86DD, b"".join(ends), label=0x12345))
    assert keys == FlowKeys(
        nhoff=14,
        thoff=54,
        n_proto=0x86DD,
        addr_proto=0x86DD,
        ip_proto=17,
        src="2001:db8::1",
        dst="fe80::2",
        sport=4000,
        dport=53,
        is_frag=True,
        is_first_frag=False,
        is_encap=True,
        flags=2,
        flow_label=0x12345,
    )
    assert str(keys) == (
        "n_proto 0x86dd, 2001:db8::1 > fe80::2, ip_proto 17, ports 4000 > 53, flow_label 0x12345, "
        "nhoff 14 thoff 54, is_frag, is_encap"
    )


def test_addresses_of_another_kind_are_none() -> None:
    keys = FlowKeys.parse(raw(0, b"\1" * 32))
    assert (keys.src, keys.dst) == (None, None)


def test_ipv4() -> None:
    keys = FlowKeys.parse(raw(0x0800, bytes([10, 0, 0, 1, 10, 0, 0, 2])))
    assert (keys.src, keys.dst) == ("10.0.0.1", "10.0.0.2")


def test_what_is_shorter_is_something_else() -> None:
    with pytest.raises(ValueError, match="56 bytes, not 55"):
        FlowKeys.parse(bytes(55))
