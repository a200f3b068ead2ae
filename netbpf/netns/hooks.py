"""The two places of a network namespace where programs hang, and reading what hangs there."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterator
from dataclasses import dataclass

from netbpf.bpf import chain, syscall, uapi
from netbpf.bpf.chain import Entry, Target
from netbpf.bpf.link import Link
from netbpf.errors import NotFoundError
from netbpf.netns.handle import NetNS

_ROOM = 64


@dataclass(frozen=True, slots=True)
class NetnsHook:
    """A hook of a network namespace.

    ``limit`` is how many links it takes; ``direct``: a program may hang there without a link.
    """

    name: str
    attach_type: int
    prog_type: int
    limit: int
    direct: bool
    since: str

    @property
    def words(self) -> str:
        """The hook for a message."""
        return self.name

    @property
    def section(self) -> str:
        """What the section of such a program is called in an object file."""
        return self.name


# kernel/bpf/net_namespace.c: netns_bpf_max_progs.
HOOKS = {
    "flow_dissector": NetnsHook(
        "flow_dissector",
        uapi.BPF_FLOW_DISSECTOR,
        uapi.BPF_PROG_TYPE_FLOW_DISSECTOR,
        limit=1,
        direct=True,
        since="5.8",
    ),
    "sk_lookup": NetnsHook(
        "sk_lookup",
        uapi.BPF_SK_LOOKUP,
        uapi.BPF_PROG_TYPE_SK_LOOKUP,
        limit=64,
        direct=False,
        since="5.9",
    ),
}


def hook_of(name: str) -> NetnsHook:
    """The hook of that name; ValueError when there is none."""
    try:
        return HOOKS[name]
    except KeyError:
        raise ValueError(f"no hook {name}: it is {' or '.join(HOOKS)}") from None


@dataclass(frozen=True, slots=True)
class Attached:
    """What hangs at a namespace's hook, in the order in which it runs.

    The kernel counts no revision here. An entry without a link was attached directly.
    """

    inode: int
    hook: str
    entries: tuple[Entry, ...]

    def find(self, target: Target) -> Entry:
        """The entry that ``target`` names.

        :raises NotFoundError: none does. :raises AmbiguousError: more than one does.
        """
        return chain.find(self.entries, target, f"at {self.hook}", "nothing is attached there")

    def with_link(self, link_id: int) -> Entry | None:
        """The entry that this link owns."""
        return next((entry for entry in self.entries if entry.link_id == link_id), None)

    @property
    def direct(self) -> Entry | None:
        """The program that no link owns."""
        return next((entry for entry in self.entries if entry.link_id is None), None)


LinksByPlace = dict[tuple[int, int], list[tuple[int, int]]]
"""Ids of links and their programs, by the namespace's inode and the attach type."""


def program_ids(ns: NetNS, hook: NetnsHook) -> list[int]:
    """The programs at the hook, in the order in which they run.

    Since Linux 5.8 (kernel/bpf/net_namespace.c: netns_bpf_prog_query).

    :raises OSError: the kernel's errno; EPERM: it needs CAP_NET_ADMIN.
    """
    room = _ROOM
    while True:
        numbers = (ctypes.c_uint32 * room)()
        attr = uapi.ProgQueryAttr(attach_type=hook.attach_type, count=room)
        attr.target_fd, attr.prog_ids = ns.fileno(), ctypes.addressof(numbers)
        try:
            syscall.prog_query(attr)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                room = attr.count + _ROOM
                continue
            raise
        return numbers[: attr.count]


def links_by_place() -> LinksByPlace:
    """The links of all namespaces that are not defunct. Needs CAP_SYS_ADMIN.

    :raises BpfError: not permitted.
    """
    found: LinksByPlace = {}
    for number, inode, attach_type, prog_id in _netns_links():
        found.setdefault((inode, attach_type), []).append((number, prog_id))
    return found


def _netns_links() -> Iterator[tuple[int, int, int, int]]:
    for number in Link.ids():
        try:
            with Link.from_id(number) as link:
                info = link.info()
        except NotFoundError:
            # It went while we looked around.
            continue
        if info.netns_inode and info.attach_type is not None:
            yield number, info.netns_inode, info.attach_type, info.prog_id


def matched(inode: int, hook: NetnsHook, programs: list[int], links: LinksByPlace) -> Attached:
    """The programs with the links that own them.

    The kernel lists programs alone. Links hang in the order in which they were made, and so do
    their ids, which matters only where several have the same program.
    """
    left = list(links.get((inode, hook.attach_type), ()))
    entries = []
    for position, prog_id in enumerate(programs):
        owner = next((each for each in left if each[1] == prog_id), None)
        if owner is not None:
            left.remove(owner)
        entries.append(Entry(position, prog_id, owner[0] if owner else None))
    return Attached(inode, hook.name, tuple(entries))
