"""Asking for chains again and again: plain numbers, and buffers that are used again.

A look at a thousand devices asks thousands of times, so nothing here costs more than the question:
no dataclass, no import that `hook` and `prog` need and this does not.
"""

from __future__ import annotations

import ctypes
import errno

from netbpf import libc
from netbpf.bpf import uapi

# One more than the kernel's limit, so that one call always has room (include/linux/bpf_mprog.h).
_ROOM = 64


class Asker:
    """Asks for chains in the network namespace where the calling thread is; for one thread only.

    Since Linux 6.6 (kernel/bpf/mprog.c: bpf_mprog_query).
    """

    __slots__ = ("_attr", "_brief", "_links", "_progs", "_room")

    def __init__(self) -> None:
        self._attr = uapi.ProgQueryAttr()
        self._brief = uapi.ProgQueryAttr()
        self._make_room(_ROOM)

    def chain(self, ifindex: int, attach_type: int) -> tuple[int, list[int], list[int]]:
        """Revision, program ids and link ids of a chain; a link's id is 0 where there is none.

        :raises OSError: the kernel's errno.
        """
        attr = self._attr
        while True:
            attr.target_ifindex, attr.attach_type, attr.count = ifindex, attach_type, self._room
            try:
                libc.bpf(uapi.BPF_PROG_QUERY, attr)
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    self._make_room(attr.count + _ROOM)
                    continue
                raise
            count = attr.count
            if not count:
                return attr.revision, [], []
            return attr.revision, self._progs[:count], self._links[:count]

    def state(self, ifindex: int, attach_type: int) -> tuple[int, int]:
        """Revision and length of a chain: what tells whether it changed, for less than its ids.

        :raises OSError: the kernel's errno.
        """
        # Without room for ids the kernel fills in these two and nothing else.
        brief = self._brief
        brief.target_ifindex, brief.attach_type = ifindex, attach_type
        libc.bpf(uapi.BPF_PROG_QUERY, brief)
        return brief.revision, brief.count

    def _make_room(self, room: int) -> None:
        self._room = room
        self._progs, self._links = (ctypes.c_uint32 * room)(), (ctypes.c_uint32 * room)()
        self._attr.prog_ids = ctypes.addressof(self._progs)
        self._attr.link_ids = ctypes.addressof(self._links)


class Facts:
    """What the kernel tells of a program, as far as a list of chains shows it.

    ``name`` holds at most 15 characters, ``load_time`` is in nanoseconds since boot, ``run_time``
    in nanoseconds.
    """

    __slots__ = ("load_time", "name", "run_count", "run_time", "tag", "type_name")

    def __init__(
        self, name: str, tag: str, type_name: str, load_time: int, run_count: int, run_time: int
    ) -> None:
        self.name = name
        self.tag = tag
        self.type_name = type_name
        self.load_time = load_time
        self.run_count = run_count
        self.run_time = run_time


def facts(prog_id: int) -> Facts | None:
    """What the kernel tells of a program now; None when it has gone or we may not look.

    Needs CAP_SYS_ADMIN (kernel/bpf/syscall.c: bpf_prog_get_fd_by_id).
    """
    import os

    try:
        fd = libc.bpf(uapi.BPF_PROG_GET_FD_BY_ID, uapi.GetIdAttr(start_id=prog_id))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EPERM):
            return None
        raise
    try:
        info = uapi.ProgInfo()
        attr = uapi.ObjInfoAttr(bpf_fd=fd, info_len=ctypes.sizeof(info))
        attr.info = ctypes.addressof(info)
        libc.bpf(uapi.BPF_OBJ_GET_INFO_BY_FD, attr)
    finally:
        os.close(fd)
    return Facts(
        name=bytes(info.name).split(b"\0")[0].decode(errors="replace"),
        tag=bytes(info.tag).hex(),
        type_name=uapi.PROG_TYPE_NAMES.get(info.type, str(info.type)),
        load_time=info.load_time,
        run_count=info.run_cnt,
        run_time=info.run_time_ns,
    )
