"""Asking an sk_lookup program about a connection that nobody makes (BPF_PROG_TEST_RUN)."""

from __future__ import annotations

import ctypes
import errno
import ipaddress
import socket
import sys
from dataclasses import dataclass

from netbpf.bpf import syscall, uapi
from netbpf.bpf.kobject import refused
from netbpf.bpf.prog import ProgramInfo
from netbpf.errors import BpfError

_ENOTSUPP = 524
_PROTOCOLS = (socket.IPPROTO_TCP, socket.IPPROTO_UDP)


@dataclass(frozen=True, slots=True)
class Lookup:
    """A packet that the kernel would look for a socket for.

    ``local`` is the address and port that it goes to, ``remote`` those that it comes from; None is
    port 0 of the unspecified address.
    """

    local: tuple[str, int]
    remote: tuple[str, int] | None = None
    protocol: int = socket.IPPROTO_TCP

    def __post_init__(self) -> None:
        if self.protocol not in _PROTOCOLS:
            raise ValueError(f"sockets are looked up for TCP and UDP, not protocol {self.protocol}")
        ends = [self.local, *([self.remote] if self.remote else [])]
        for _, port in ends:
            if not 0 <= port < 1 << 16:
                raise ValueError(f"a port lies between 0 and 65535, {port} does not")
        if len({ipaddress.ip_address(address).version for address, _ in ends}) != 1:
            raise ValueError("both addresses are IPv4, or both IPv6")

    def _pack(self) -> uapi.SkLookup:
        address = ipaddress.ip_address(self.local[0])
        four = address.version == 4
        remote, remote_port = self.remote or ("0.0.0.0" if four else "::", 0)
        raw = uapi.SkLookup(
            family=socket.AF_INET if four else socket.AF_INET6,
            protocol=self.protocol,
            local_port=self.local[1],
            remote_port=socket.htons(remote_port),
        )
        for end, packed in (
            ("local", address.packed),
            ("remote", ipaddress.ip_address(remote).packed),
        ):
            if four:
                setattr(raw, f"{end}_ip4", int.from_bytes(packed, sys.byteorder))
            else:
                words = (ctypes.c_uint32 * 4).from_buffer_copy(packed)
                setattr(raw, f"{end}_ip6", words)
        return raw


@dataclass(frozen=True, slots=True)
class LookupResult:
    """What the program answered; ``cookie`` is the selected socket's (SO_COOKIE), None for none."""

    retval: int
    cookie: int | None
    duration: int


def verdict(retval: int) -> str:
    """The word for what an sk_lookup program returned: ``pass`` or ``drop``; else the number."""
    return {uapi.SK_PASS: "pass", uapi.SK_DROP: "drop"}.get(retval, str(retval))


def run(fd: int, lookup: Lookup, repeat: int) -> LookupResult:
    """Ask the program behind ``fd``.

    :raises OSError: the kernel's errno; ``explained`` says what it means.
    """
    if not 0 < repeat < 1 << 32:
        raise ValueError(f"a program is run between 1 and 2^32 - 1 times, not {repeat}")
    raw = lookup._pack()
    attr = uapi.TestRunAttr(prog_fd=fd, repeat=repeat)
    attr.ctx_in = attr.ctx_out = ctypes.addressof(raw)
    attr.ctx_size_in = attr.ctx_size_out = ctypes.sizeof(raw)
    syscall.prog_test_run(attr)
    return LookupResult(ctypes.c_int32(attr.retval).value, raw.cookie or None, attr.duration)


def explained(info: ProgramInfo, error: OSError) -> BpfError:
    """Why the kernel did not run the program (net/bpf/test_run.c: bpf_prog_test_run_sk_lookup)."""
    number = error.errno or errno.EIO
    what = f"run program {info.name}" if info.name else "run a program"
    if number == errno.EPERM:
        return refused(what, error, "CAP_BPF and CAP_NET_ADMIN")
    if info.type != uapi.BPF_PROG_TYPE_SK_LOOKUP:
        return BpfError(
            what,
            number,
            f"programs of type {info.type_name} are not asked for a socket, those of sk_lookup are",
            code="wrong_program_type",
        )
    if number == _ENOTSUPP:
        return BpfError(what, number, "this kernel runs none of sk_lookup without traffic")
    if number == errno.EOPNOTSUPP:
        return BpfError(
            what,
            number,
            "it selected one of a group of sockets (SO_REUSEPORT), of which only a real packet "
            "decides which it is",
        )
    return BpfError(what, number)
