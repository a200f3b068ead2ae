"""Running a program without traffic (BPF_PROG_TEST_RUN): contexts, results, and refusals explained.

The kernel's side is net/bpf/test_run.c. A run is real: maps change and helpers do what they do, but
the packet is a copy of the kernel's that goes nowhere, whatever the program decides.
"""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import dataclass
from typing import Any

from netbpf.bpf import syscall, uapi
from netbpf.bpf.kobject import refused
from netbpf.errors import BpfError, NetbpfError, NotFoundError

ETH_HLEN = 14
# Helpers grow a packet by no more (net/core/filter.c: BPF_SKB_MAX_LEN); with less room the kernel
# answers ENOSPC only after the run, and running again would count twice.
_GROWTH = 1 << 16
# The most that one run takes: the linear part and 17 pages (net/bpf/test_run.c: MAX_SKB_FRAGS).
_NEVER_MORE = 1 << 20

_SKB_NUMBERS = (
    ("mark", 32),
    ("priority", 32),
    ("ingress_ifindex", 31),
    ("ifindex", 31),
    ("tstamp", 64),
    ("wire_len", 32),
    ("gso_segs", 32),
    ("gso_size", 32),
    ("hwtstamp", 64),
)

# include/uapi/linux/pkt_cls.h: TC_ACT_*. For the first, TC_ACT_UNSPEC, tcx and netkit say NEXT.
_TC_WORDS = {
    -1: "next",
    0: "pass",
    1: "reclassify",
    2: "drop",
    3: "pipe",
    4: "stolen",
    5: "queued",
    6: "repeat",
    7: "redirect",
    8: "trap",
}
_WORDS = {
    uapi.BPF_PROG_TYPE_SCHED_CLS: _TC_WORDS,
    uapi.BPF_PROG_TYPE_SCHED_ACT: _TC_WORDS,
    uapi.BPF_PROG_TYPE_XDP: uapi.XDP_ACTION_NAMES,
    uapi.BPF_PROG_TYPE_FLOW_DISSECTOR: {
        uapi.BPF_OK: "ok",
        uapi.BPF_DROP: "drop",
        uapi.BPF_FLOW_DISSECTOR_CONTINUE: "continue",
    },
}

SKB_TYPES = frozenset(
    {
        uapi.BPF_PROG_TYPE_SCHED_CLS,
        uapi.BPF_PROG_TYPE_SCHED_ACT,
        uapi.BPF_PROG_TYPE_SOCKET_FILTER,
        uapi.BPF_PROG_TYPE_CGROUP_SKB,
        uapi.BPF_PROG_TYPE_LWT_IN,
        uapi.BPF_PROG_TYPE_LWT_OUT,
        uapi.BPF_PROG_TYPE_LWT_XMIT,
    }
)
"""The program types that take an SkbContext."""
PACKET_TYPES = SKB_TYPES | {uapi.BPF_PROG_TYPE_XDP, uapi.BPF_PROG_TYPE_FLOW_DISSECTOR}
"""The program types that a packet can be given to."""


@dataclass(frozen=True, slots=True)
class SkbContext:
    """What of ``struct __sk_buff`` can be set before a run and is told after it.

    The kernel refuses any other field, and derives ``len`` and ``protocol`` from the packet.
    Interface indexes are those of the network namespace where the calling thread stands; with
    ``ifindex`` 0 the packet is at the loopback device. ``wire_len`` 0 stands for the packet's
    length. ``gso_size`` is not told after a run. ``tstamp`` and ``hwtstamp`` are in nanoseconds.

    Since Linux 5.2; ``ifindex`` since 5.6, ``ingress_ifindex`` and ``hwtstamp`` since 5.16
    (net/bpf/test_run.c: convert___skb_to_skb).
    """

    mark: int = 0
    priority: int = 0
    ingress_ifindex: int = 0
    ifindex: int = 0
    cb: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)
    tstamp: int = 0
    wire_len: int = 0
    gso_segs: int = 0
    gso_size: int = 0
    hwtstamp: int = 0

    def __post_init__(self) -> None:
        for name, bits in _SKB_NUMBERS:
            _check(name, getattr(self, name), bits)
        if len(self.cb) != 5:
            raise ValueError(f"cb has five numbers, not {len(self.cb)}")
        for number in self.cb:
            _check("cb", number, 32)

    def _pack(self, size: int) -> ctypes.Structure:
        numbers = {name: getattr(self, name) for name, _ in _SKB_NUMBERS}
        return uapi.SkBuff(cb=self.cb, **numbers)

    @classmethod
    def _unpack(cls, raw: Any) -> SkbContext:
        return cls(cb=tuple(raw.cb), **{name: getattr(raw, name) for name, _ in _SKB_NUMBERS})


@dataclass(frozen=True, slots=True)
class XdpContext:
    """What of ``struct xdp_md`` can be set before a run and is told after it.

    The first ``meta`` bytes of the packet are metadata, before the frame. ``ingress_ifindex`` is of
    the namespace where the calling thread stands; 0 is the loopback device.

    Since Linux 5.15 (net/bpf/test_run.c: xdp_convert_md_to_buff).
    """

    ingress_ifindex: int = 0
    rx_queue_index: int = 0
    meta: int = 0

    def __post_init__(self) -> None:
        _check("ingress_ifindex", self.ingress_ifindex, 31)
        _check("rx_queue_index", self.rx_queue_index, 32)
        _check("meta", self.meta, 32)

    def _pack(self, size: int) -> ctypes.Structure:
        return uapi.XdpMd(
            data=self.meta,
            data_end=size,
            ingress_ifindex=self.ingress_ifindex,
            rx_queue_index=self.rx_queue_index,
        )

    @classmethod
    def _unpack(cls, raw: Any) -> XdpContext:
        return cls(raw.ingress_ifindex, raw.rx_queue_index, raw.data)


Context = SkbContext | XdpContext


@dataclass(frozen=True, slots=True)
class RunResult:
    """One BPF_PROG_TEST_RUN: the program's return value, the packet after it, ns per run.

    Of a flow dissector ``data_out`` is what it made of the packet: ``FlowKeys.parse`` decodes it.
    ``context`` is what the program left of the context, None where none was given.
    """

    retval: int
    data_out: bytes
    duration: int
    context: Context | None = None


def verdict(prog_type: int, retval: int) -> str:
    """The word for what a program returned: ``next``, ``drop``, ``tx``; else the number."""
    return _WORDS.get(prog_type, {}).get(retval, str(retval))


def passes(prog_type: int, retval: int) -> bool:
    """Whether a tc or xdp program that returned this lets the packet go its way."""
    return verdict(prog_type, retval) in ("next", "pass")


def run(fd: int, data: bytes, context: Context | None, repeat: int) -> RunResult:
    """Run the program behind ``fd`` over ``data``.

    :raises OSError: the kernel's errno; ``explained`` says what it means.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"a packet is bytes, not {type(data).__name__}")
    _check("repeat", repeat, 32)
    if repeat == 0:
        raise ValueError("a program is run at least once, not 0 times")
    if len(data) > _NEVER_MORE:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    source = ctypes.create_string_buffer(bytes(data), len(data))
    target = ctypes.create_string_buffer(len(data) + _GROWTH)
    attr = uapi.TestRunAttr(prog_fd=fd, repeat=repeat)
    attr.data_in, attr.data_size_in = ctypes.addressof(source), len(data)
    attr.data_out, attr.data_size_out = ctypes.addressof(target), len(target)
    raw = None
    if context is not None:
        raw = context._pack(len(data))
        attr.ctx_in = attr.ctx_out = ctypes.addressof(raw)
        attr.ctx_size_in = attr.ctx_size_out = ctypes.sizeof(raw)
    syscall.prog_test_run(attr)
    return RunResult(
        retval=ctypes.c_int32(attr.retval).value,
        data_out=ctypes.string_at(target, attr.data_size_out),
        duration=attr.duration,
        context=None if context is None or raw is None else context._unpack(raw),
    )


def explained(
    name: str, prog_type: int, data: bytes, context: Context | None, error: OSError
) -> NetbpfError:
    """Why the kernel did not run the program; code ``unfit_packet`` where the packet is to blame.

    The kernel gives a bare errno: the condition is found by looking at what was asked for.
    """
    number = error.errno or errno.EIO
    what = f"run program {name}" if name else "run a program"
    if number == errno.EPERM:
        return refused(what, error, "CAP_BPF and CAP_NET_ADMIN")
    if number == errno.ENODEV and context is not None:
        ifindex = context.ifindex if isinstance(context, SkbContext) else context.ingress_ifindex
        return NotFoundError("device", f"ifindex {ifindex}", where="in this network namespace")
    if number == errno.EINTR:
        reason = "a signal came, after one run or more"
        return BpfError(what, number, reason, hint="what the runs did to maps is done")
    word = uapi.PROG_TYPE_NAMES.get(prog_type, str(prog_type))
    if prog_type not in PACKET_TYPES and number in (errno.EINVAL, _ENOTSUPP):
        return BpfError(
            what,
            number,
            f"programs of type {word} are not run over a packet",
            hint="`netbpf prog run --lookup` asks it for a socket"
            if prog_type == uapi.BPF_PROG_TYPE_SK_LOOKUP
            else "those of type sched_cls and xdp are, for instance",
            code="wrong_program_type",
        )
    if number == _ENOTSUPP:
        reason = f"this kernel runs no programs of type {word} without traffic"
        return BpfError(what, number, reason)
    if isinstance(context, SkbContext) != (prog_type in SKB_TYPES) and context is not None:
        reason = f"programs of type {word} have another context than {type(context).__name__}"
        return BpfError(what, number, reason, code="wrong_context")
    if unfit := _unfit(prog_type, data, context, number):
        return BpfError(what, number, unfit, code="unfit_packet")
    if number == errno.EINVAL and context is not None:
        return BpfError(what, number, _wrong_field(context, len(data)))
    return BpfError(what, number)


_ENOTSUPP = 524


def _unfit(prog_type: int, data: bytes, context: Context | None, number: int) -> str | None:
    """What is wrong with the packet (net/bpf/test_run.c: bpf_test_init, bpf_prog_test_run_skb)."""
    size = len(data) - (context.meta if isinstance(context, XdpContext) else 0)
    if number == errno.EINVAL and size < ETH_HLEN:
        return f"a packet of {size} bytes is shorter than an Ethernet header of {ETH_HLEN}"
    if number == errno.EINVAL and prog_type in SKB_TYPES:
        needed = {b"\x08\x00": 20, b"\x86\xdd": 40}.get(bytes(data[12:14]), 0)
        if size < ETH_HLEN + needed:
            return (
                f"the Ethernet header announces IPv{6 if needed == 40 else 4}, and {size} bytes "
                "have no room for its header"
            )
    if number == errno.EINVAL and size > os.sysconf("SC_PAGE_SIZE") - 512:
        return (
            f"a packet of {size} bytes does not fit into one page with what the kernel adds "
            "(newer kernels take up to 64 KiB)"
        )
    if number == errno.ENOMEM and size > 1 << 15:
        return f"a packet of {size} bytes is more than the kernel runs a program over"
    return None


def _wrong_field(context: Context, size: int) -> str:
    """Which field of the context the kernel does not take."""
    if isinstance(context, XdpContext):
        if context.meta > size or context.meta % 4:
            return f"metadata of {context.meta} bytes: it is a multiple of 4, at the packet's start"
        if context.meta > 252:
            return f"metadata of {context.meta} bytes is more than the kernel takes"
        if context.rx_queue_index and not context.ingress_ifindex:
            return "rx_queue_index says nothing without ingress_ifindex"
        return "the device has no such rx queue"
    if 0 < context.wire_len < size:
        return f"wire_len {context.wire_len} is less than the packet's {size} bytes"
    if context.wire_len > 1 << 16:
        return f"wire_len {context.wire_len} is more than 64 KiB"
    if context.gso_segs > 0xFFFF:
        return f"gso_segs {context.gso_segs} is more than 65535"
    return "this kernel does not take a field of the context"


def _check(name: str, value: object, bits: int) -> None:
    # ctypes would cut it to size without a word.
    if not isinstance(value, int):
        raise TypeError(f"{name} is a number, not {value!r}")
    if not 0 <= value < 1 << bits:
        raise ValueError(f"{name} lies between 0 and 2^{bits} - 1, {value} does not")
