"""Filters of tc on a device's clsact: who has one, what runs there, cls_bpf made and removed.

clsact runs after tcx (net/core/dev.c: sch_handle_ingress). Its filters run by priority, and those
of cls_bpf with the same priority the newest first (net/sched/cls_bpf.c: cls_bpf_change): the kernel
lists them in this order. The qdisc itself is never touched.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from netbpf.netlink.attributes import attribute, find, number_in, text, text_in, u32, unpack
from netbpf.netlink.refusals import refusals
from netbpf.netlink.rtnl import NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL, Rtnl

RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 44, 45, 46
RTM_GETQDISC = 38

ETH_P_ALL = 0x0003
HOOKS = ("ingress", "egress")

_TCMSG = struct.Struct("=BxxxiIII")
"""struct tcmsg: family, ifindex, handle, parent, info."""

# include/uapi/linux/pkt_sched.h: TC_H_CLSACT, and its two sides
_CLSACT = 0xFFFFFFF1
_PARENTS = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}
_NO_SIDE = 0xFFFFFFF4
_SHARED_BLOCK = -1
"""TCM_IFINDEX_MAGIC_BLOCK: such a filter belongs to a block, whose number stands for the parent."""

# include/uapi/linux/rtnetlink.h: TCA_…; pkt_cls.h: TCA_BPF_…, TCA_CLS_FLAGS_…
_KIND, _OPTIONS, _CHAIN, _INGRESS_BLOCK, _EGRESS_BLOCK = 1, 2, 11, 13, 14
_BLOCKS = {"ingress": _INGRESS_BLOCK, "egress": _EGRESS_BLOCK}
_ACT, _POLICE, _CLASSID, _FD, _NAME, _FLAGS, _FLAGS_GEN, _TAG, _ID = 1, 2, 3, 6, 7, 8, 9, 10, 11
_ACT_DIRECT = 1
_SKIP_HW, _SKIP_SW, _IN_HW = 1, 2, 4

_PROTOCOLS = {0x0003: "all", 0x0800: "ip", 0x0806: "arp", 0x86DD: "ipv6", 0x8100: "802.1Q"}


@dataclass(frozen=True, slots=True)
class Clsact:
    """A device's clsact, or the older ``ingress``, which has no egress.

    ``blocks`` are the blocks that it shares with other devices, by hook.
    """

    kind: Literal["clsact", "ingress"]
    blocks: tuple[tuple[str, int], ...] = ()

    def has(self, hook: str) -> bool:
        """Whether filters can be at this hook."""
        return hook == "ingress" or self.kind == "clsact"

    def block(self, hook: str) -> int | None:
        """The shared block at this hook, or None."""
        return dict(self.blocks).get(hook)


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter of clsact; what is said below ``block`` is of cls_bpf only.

    ``protocol`` is an EtherType, `ETH_P_ALL` for every packet. ``block`` is the shared block that
    the filter is in. ``prog_id`` and ``tag`` are None for classic BPF. ``classid`` 0 is none.
    """

    ifindex: int
    hook: str
    kind: str
    protocol: int
    priority: int
    chain: int
    handle: int
    block: int | None = None
    name: str | None = None
    prog_id: int | None = None
    tag: str | None = None
    direct_action: bool = False
    classid: int = 0
    actions: bool = False
    skip_hw: bool = False
    skip_sw: bool = False
    in_hw: bool = False

    @property
    def foreign(self) -> bool:
        """Whether it is of another kind than cls_bpf."""
        return self.kind != "bpf"

    @property
    def protocol_name(self) -> str:
        """The protocol as tc writes it: ``all``, ``ip``; a number in hex for a rare one."""
        return _PROTOCOLS.get(self.protocol, f"{self.protocol:#06x}")

    def __str__(self) -> str:
        words = f"{self.kind} pref {self.priority} handle {self.handle:#x}"
        return f"{words} {self.name}" if self.name else words


def with_clsact(*, rtnl: Rtnl | None = None) -> dict[int, Clsact]:
    """The devices that have a clsact (or ingress) qdisc, by ifindex; one dump for all of them.

    :param rtnl: a socket of the namespace; without one, that of the calling thread.
    """
    found = {}
    with _socket(rtnl) as asking, refusals("list qdiscs"):
        # Asking for one alone would tell everybody who listens to RTNLGRP_TC (tc_get_qdisc).
        for answer in asking.dump(RTM_GETQDISC, bytes(_TCMSG.size)):
            _, ifindex, _, parent, _ = _TCMSG.unpack_from(answer)
            # Each device tells its root too: such an answer is not taken apart.
            if parent == _CLSACT:
                found[ifindex] = _clsact(answer)
    return found


def filters(ifindex: int, hook: str, *, rtnl: Rtnl | None = None) -> tuple[Filter, ...]:
    """All filters at ``ingress`` or ``egress`` of the device's clsact, of any kind, as they run.

    Those of other chains than 0, which run only where a filter leads to them, come last. Empty
    where there is no clsact, or no such device.

    Since Linux 4.5 (net/sched/sch_ingress.c; the ``ingress`` qdisc long before).
    """
    parent = _parent(hook)
    with _socket(rtnl) as asking, refusals(f"list the filters of {_place(ifindex, hook)}"):
        answers = asking.dump(RTM_GETTFILTER, _TCMSG.pack(0, ifindex, 0, parent, 0))
        # An ingress qdisc lists its filters at every parent, also at one that clsact has not.
        if (
            answers
            and hook == "egress"
            and asking.dump(RTM_GETTFILTER, _TCMSG.pack(0, ifindex, 0, _NO_SIDE, 0))
        ):
            return ()
    found = [_filter(answer, ifindex, hook) for answer in answers]
    return tuple(sorted((each for each in found if each is not None), key=lambda f: f.chain > 0))


def cls_bpf(ifindex: int, hook: str, *, rtnl: Rtnl | None = None) -> tuple[Filter, ...]:
    """Those of `filters` that are of cls_bpf, as they run."""
    return tuple(each for each in filters(ifindex, hook, rtnl=rtnl) if not each.foreign)


def add(
    ifindex: int,
    hook: str,
    prog_fd: int,
    *,
    name: str,
    priority: int,
    handle: int = 0,
    protocol: int = ETH_P_ALL,
    skip_hw: bool = False,
    rtnl: Rtnl | None = None,
) -> Filter:
    """Make a cls_bpf filter in direct-action mode and return it.

    It runs before those that have its priority already.

    :param handle: 0 lets the kernel choose.
    :raises NetlinkError: refused; EEXIST: there is one with this handle; EINVAL: there is no
        clsact, or the priority belongs to filters of another kind or protocol.
    """
    _check(priority, handle)
    options = attribute(_FD, u32(prog_fd)) + attribute(_NAME, text(name))
    options += attribute(_FLAGS, u32(_ACT_DIRECT))
    if skip_hw:
        options += attribute(_FLAGS_GEN, u32(_SKIP_HW))
    body = _body(ifindex, hook, handle, priority, protocol) + attribute(_OPTIONS, options)
    with _socket(rtnl) as asking, refusals(f"add a filter at {_place(ifindex, hook)}"):
        for answer in asking.request(RTM_NEWTFILTER, body, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO):
            if (made := _filter(answer, ifindex, hook)) is not None:
                return made
    raise OSError(errno.EOPNOTSUPP, "this kernel does not tell which filter it made")


def delete(which: Filter, *, rtnl: Rtnl | None = None) -> Filter:
    """Remove this one cls_bpf filter and return what was removed.

    The kernel knows it by chain, priority, protocol and handle: if somebody put another program
    there meanwhile, that one is removed, and what is returned says so.

    :raises NetlinkError: refused; ENOENT: it is gone already.
    """
    _check(which.priority, which.handle)
    if not which.handle or which.foreign:
        raise ValueError(f"{which}: without a handle the kernel would remove more than one filter")
    body = _body(which.ifindex, which.hook, which.handle, which.priority, which.protocol)
    body += attribute(_CHAIN, u32(which.chain))
    place = _place(which.ifindex, which.hook)
    with _socket(rtnl) as asking, refusals(f"remove filter {which} from {place}"):
        for answer in asking.request(RTM_DELTFILTER, body, NLM_F_ECHO):
            if (gone := _filter(answer, which.ifindex, which.hook)) is not None:
                return gone
    return which


@contextmanager
def _socket(rtnl: Rtnl | None) -> Iterator[Rtnl]:
    if rtnl is not None:
        yield rtnl
        return
    with Rtnl() as made:
        yield made


def _clsact(answer: bytes) -> Clsact:
    found = unpack(answer, _TCMSG.size)
    blocks = [(hook, number_in(found.get(number))) for hook, number in _BLOCKS.items()]
    return Clsact(
        "ingress" if text_in(found[_KIND]) == "ingress" else "clsact",
        tuple((hook, block) for hook, block in blocks if block),
    )


def _body(ifindex: int, hook: str, handle: int, priority: int, protocol: int) -> bytes:
    info = priority << 16 | socket.htons(protocol)
    return _TCMSG.pack(0, ifindex, handle, _parent(hook), info) + attribute(_KIND, text("bpf"))


def _parent(hook: str) -> int:
    try:
        return _PARENTS[hook]
    except KeyError:
        raise ValueError(f"no hook {hook}: clsact has {' and '.join(HOOKS)}") from None


def _check(priority: int, handle: int) -> None:
    """A priority of 0 would mean "all" to the kernel, or "choose one"."""
    if not 0 < priority < 1 << 16:
        raise ValueError(f"a priority lies between 1 and 65535, {priority} does not")
    if not 0 <= handle < 1 << 32:
        raise ValueError(f"a handle lies between 0 and 2^32 - 1, {handle} does not")


def _place(ifindex: int, hook: str) -> str:
    try:
        return f"{socket.if_indextoname(ifindex)} {hook}"
    except OSError:
        return f"ifindex {ifindex} {hook}"


def _filter(answer: bytes, ifindex: int, hook: str) -> Filter | None:
    """The filter that an answer is about; None for the line that only opens a priority."""
    _, index, handle, parent, info = _TCMSG.unpack_from(answer)
    found = find(answer, _TCMSG.size, _KIND, _OPTIONS, _CHAIN)
    if _OPTIONS not in found:
        return None
    kind = text_in(found[_KIND])
    told = unpack(found[_OPTIONS]) if kind == "bpf" else {}
    hardware = number_in(told.get(_FLAGS_GEN))
    return Filter(
        ifindex=ifindex,
        hook=hook,
        kind=kind,
        protocol=socket.ntohs(info & 0xFFFF),
        priority=info >> 16,
        chain=number_in(found.get(_CHAIN)),
        handle=handle,
        block=parent if index == _SHARED_BLOCK else None,
        name=text_in(told[_NAME]) if _NAME in told else None,
        prog_id=number_in(told.get(_ID)) or None,
        tag=told[_TAG].hex() if _TAG in told else None,
        direct_action=bool(number_in(told.get(_FLAGS)) & _ACT_DIRECT),
        classid=number_in(told.get(_CLASSID)),
        actions=_ACT in told or _POLICE in told,
        skip_hw=bool(hardware & _SKIP_HW),
        skip_sw=bool(hardware & _SKIP_SW),
        in_hw=bool(hardware & _IN_HW),
    )
