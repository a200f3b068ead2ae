"""bpf(2) requests for chains, word for word: also those that netbpf never makes.

The answer is the kernel's, a plain OSError with its errno. A program or link is given as an object,
or as the number of a descriptor; ``relative`` is such a descriptor, or an id with BPF_F_ID.
"""

from __future__ import annotations

import ctypes
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from netbpf.bpf import syscall, uapi
from netbpf.bpf.fd import FD
from netbpf.bpf.hook import Hook
from netbpf.bpf.kobject import KernelObject
from netbpf.bpf.link import Link
from netbpf.netns import NetNS, entered
from tests.netns_fixtures.hooks import Site

Descriptor = KernelObject | int


@dataclass(frozen=True)
class Answer:
    """What BPF_PROG_QUERY left in its arguments, and its errno, 0 for none."""

    errno: int
    count: int
    revision: int
    attach_flags: int
    progs: list[int]
    links: list[int]


@dataclass(frozen=True)
class Raw:
    """One hook, by the ifindex of a device in a namespace; None is where the caller stands."""

    ns: NetNS | None
    hook: Hook
    ifindex: int

    def attach(
        self,
        prog: Descriptor,
        flags: int = 0,
        *,
        relative: Descriptor = 0,
        replace: Descriptor = 0,
        revision: int = 0,
    ) -> None:
        """BPF_PROG_ATTACH."""
        attr = self._attr(prog, flags, relative, replace, revision)
        with self._inside():
            syscall.prog_attach(attr)

    def detach(
        self,
        prog: Descriptor = 0,
        flags: int = 0,
        *,
        relative: Descriptor = 0,
        replace: Descriptor = 0,
        revision: int = 0,
    ) -> None:
        """BPF_PROG_DETACH; without a program the kernel takes what stands at the position."""
        attr = self._attr(prog, flags, relative, replace, revision)
        with self._inside():
            syscall.prog_detach(attr)

    def create(
        self, prog: Descriptor, flags: int = 0, *, relative: Descriptor = 0, revision: int = 0
    ) -> Link:
        """BPF_LINK_CREATE; the link is the caller's to close."""
        attr = uapi.LinkCreateAttr(attach_type=self.hook.attach_type, flags=flags)
        attr.prog_fd, attr.target_ifindex = _number(prog), self.ifindex
        order = getattr(attr, self.hook.member)
        order.relative_fd, order.expected_revision = _number(relative), revision
        with self._inside():
            return Link(FD(syscall.link_create(attr)))

    def query(
        self, room: int = 64, *, query_flags: int = 0, attach_flags: int = 0, ids: bool = True
    ) -> Answer:
        """BPF_PROG_QUERY with arrays of ``room`` places, or without arrays."""
        progs, links = (ctypes.c_uint32 * 64)(), (ctypes.c_uint32 * 64)()
        attr = uapi.ProgQueryAttr(attach_type=self.hook.attach_type, query_flags=query_flags)
        attr.target_ifindex, attr.count, attr.attach_flags = self.ifindex, room, attach_flags
        if ids:
            attr.prog_ids, attr.link_ids = ctypes.addressof(progs), ctypes.addressof(links)
        number = 0
        with self._inside():
            try:
                syscall.prog_query(attr)
            except OSError as error:
                number = error.errno or 0
        filled = [place for place in range(64) if progs[place]]
        return Answer(
            number,
            attr.count,
            attr.revision,
            attr.attach_flags,
            [progs[place] for place in filled],
            [links[place] for place in filled],
        )

    def _inside(self) -> AbstractContextManager[None]:
        return nullcontext() if self.ns is None else entered(self.ns)

    def _attr(
        self,
        prog: Descriptor,
        flags: int,
        relative: Descriptor,
        replace: Descriptor,
        revision: int,
    ) -> uapi.ProgAttachAttr:
        attr = uapi.ProgAttachAttr(attach_type=self.hook.attach_type, attach_flags=flags)
        attr.target_ifindex, attr.attach_bpf_fd = self.ifindex, _number(prog)
        attr.relative_fd, attr.replace_bpf_fd = _number(relative), _number(replace)
        attr.expected_revision = revision
        return attr


def at(site: Site) -> Raw:
    """The site's hook."""
    return Raw(site.ns, site.hooks.hook(site.hook), site.ifindex)


def link_update(link: Descriptor, new: Descriptor, old: Descriptor = 0, flags: int = 0) -> None:
    """BPF_LINK_UPDATE."""
    syscall.link_update(_number(link), _number(new), _number(old), flags)


def _number(given: Descriptor) -> int:
    return given if isinstance(given, int) else given.fileno()
