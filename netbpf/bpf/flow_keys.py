"""What a flow dissector makes of a packet: ``struct bpf_flow_keys``, decoded."""

from __future__ import annotations

import ctypes
import ipaddress
import socket
from dataclasses import dataclass

from netbpf.bpf import uapi

_FAMILIES = {0x0800: "ipv4", 0x86DD: "ipv6"}


@dataclass(frozen=True, slots=True)
class FlowKeys:
    """The keys of a flow, as a flow dissector has left them; all in host byte order.

    ``nhoff`` and ``thoff`` are where the network and the transport header begin. ``n_proto`` is an
    EtherType, ``addr_proto`` the one of the addresses, 0 for none; ``ip_proto`` is an IPPROTO.
    ``flags`` are those that the run began with.
    """

    nhoff: int
    thoff: int
    n_proto: int
    addr_proto: int
    ip_proto: int
    src: str | None
    dst: str | None
    sport: int
    dport: int
    is_frag: bool
    is_first_frag: bool
    is_encap: bool
    flags: int
    flow_label: int

    @classmethod
    def parse(cls, data: bytes) -> FlowKeys:
        """The keys out of ``RunResult.data_out`` of a flow dissector.

        Since Linux 5.0 (net/bpf/test_run.c: bpf_prog_test_run_flow_dissector).

        :raises ValueError: that is something else.
        """
        size = ctypes.sizeof(uapi.FlowKeys)
        if len(data) < size:
            raise ValueError(f"bpf_flow_keys are {size} bytes, not {len(data)}")
        raw = uapi.FlowKeys.from_buffer_copy(data)
        src = dst = None
        if family := _FAMILIES.get(raw.addr_proto):
            src, dst = (_address(getattr(raw, f"{family}_{end}")) for end in ("src", "dst"))
        return cls(
            nhoff=raw.nhoff,
            thoff=raw.thoff,
            n_proto=socket.ntohs(raw.n_proto),
            addr_proto=raw.addr_proto,
            ip_proto=raw.ip_proto,
            src=src,
            dst=dst,
            sport=socket.ntohs(raw.sport),
            dport=socket.ntohs(raw.dport),
            is_frag=bool(raw.is_frag),
            is_first_frag=bool(raw.is_first_frag),
            is_encap=bool(raw.is_encap),
            flags=raw.flags,
            flow_label=socket.ntohl(raw.flow_label),
        )

    def __str__(self) -> str:
        """In a line; what a dissector has not filled in is left out."""
        words = [f"n_proto {self.n_proto:#06x}"]
        if self.src is not None:
            words.append(f"{self.src} > {self.dst}")
        if self.ip_proto:
            words.append(f"ip_proto {self.ip_proto}")
        if self.sport or self.dport:
            words.append(f"ports {self.sport} > {self.dport}")
        if self.flow_label:
            words.append(f"flow_label {self.flow_label:#x}")
        words.append(f"nhoff {self.nhoff} thoff {self.thoff}")
        words += [name for name in ("is_frag", "is_first_frag", "is_encap") if getattr(self, name)]
        return ", ".join(words)


def _address(raw: int | ctypes.Array[ctypes.c_uint32]) -> str:
    # As it lies in memory, which is network byte order.
    if isinstance(raw, int):
        return str(ipaddress.IPv4Address(socket.ntohl(raw)))
    return str(ipaddress.IPv6Address(bytes(raw)))
