"""The memory of an arena as this process sees it: mapped, bounds checked, read without risk."""

from __future__ import annotations

import ctypes
import errno
import mmap
import sys
import warnings

from netbpf import libc
from netbpf.bpf import syscall, uapi
from netbpf.bpf.map import Map
from netbpf.closing import Closing
from netbpf.errors import BpfError, ConflictError, KernelError

_LOW = 0xFFFFFFFF


class _Mapping:
    """A piece of the address space, unmapped when the last user of it lets go."""

    def __init__(self, address: int, size: int) -> None:
        self.address = address
        self.size = size

    def __del__(self) -> None:
        # The last moments of the process unmap it anyway, when modules may be gone.
        if not sys.is_finalizing():
            libc.unmap(self.address, self.size)


class Memory(Closing):
    """An arena's pages at the addresses that programs know them by.

    Nothing here dereferences a pointer that came from a program: reading and writing go through the
    kernel, which says EFAULT where the processor would raise SIGSEGV.
    """

    def __init__(self, found: Map, address: int = 0) -> None:
        """Map the arena ``found``, which may be closed afterwards.

        :param address: where it is in all processes; needed only of an arena that was made without
            ``map_extra`` and has been mapped before.
        :raises ConflictError: there is something else at that address in this process.
        :raises BpfError: the kernel refused. :raises ValueError: the map is no arena.

        Since Linux 6.9 (kernel/bpf/arena.c: arena_map_mmap).
        """
        self._mapping: _Mapping | None = None
        self._state = "closed"
        self.address = 0
        info = uapi.MapInfo()
        try:
            syscall.obj_get_info(found.fileno(), info)
        except OSError as error:
            raise BpfError("ask about a map", error.errno or errno.EIO) from error
        self.name = bytes(info.name).split(b"\0")[0].decode(errors="replace")
        if info.type != uapi.BPF_MAP_TYPE_ARENA:
            raise ValueError(f"map {self.name} is no arena")
        self.flags = int(info.map_flags)
        self.size = info.max_entries * mmap.PAGESIZE
        self.address = self._map(found.fileno(), info.map_extra or address)

    def _map(self, fd: int, wanted: int) -> int:
        operation = f"map arena {self.name}" + (f" at {wanted:#x}" if wanted else "")
        try:
            address = libc.map_shared(fd, self.size, wanted)
        except OSError as error:
            number = error.errno or errno.EIO
            if number == errno.EEXIST:
                raise ConflictError(
                    f"{operation}: something else is mapped there in this process",
                    hint="give each arena an address (map_extra) of its own, or none",
                ) from error
            if number in (errno.EBUSY, errno.EINVAL):
                raise BpfError(
                    operation,
                    number,
                    "it has to be at the address where it was mapped first",
                    hint="pass the address at which the other process has it",
                ) from error
            raise BpfError(operation, number) from error
        self._mapping = _Mapping(address, self.size)
        return address

    @property
    def segv_on_fault(self) -> bool:
        """Whether only programs make pages (BPF_F_SEGV_ON_FAULT); else a first touch does."""
        return bool(self.flags & uapi.BPF_F_SEGV_ON_FAULT)

    @property
    def no_user_conv(self) -> bool:
        """Whether programs may leave the upper half of pointers out (BPF_F_NO_USER_CONV)."""
        return bool(self.flags & uapi.BPF_F_NO_USER_CONV)

    def __len__(self) -> int:
        return self.size

    def __contains__(self, address: object) -> bool:
        """Whether a byte of the arena is at ``address``, as a program may have written it."""
        return isinstance(address, int) and self._offset(address) is not None

    def _offset(self, address: int) -> int | None:
        if self.no_user_conv and 0 < address <= _LOW:
            # An arena never crosses a multiple of 4 GiB (arena_map_alloc), so this is unambiguous.
            address |= self.address & ~_LOW
        offset = address - self.address
        return offset if 0 <= offset < self.size else None

    def _open(self) -> _Mapping:
        if self._mapping is None:
            raise ValueError(f"arena {self.name} is {self._state}")
        return self._mapping

    def locate(self, address: int, size: int = 1) -> int:
        """The address in this process of ``size`` bytes at a pointer.

        :raises ValueError: they do not all lie within the arena.
        """
        self._open()
        if address == 0:
            raise ValueError(f"a NULL pointer leads nowhere in arena {self.name}")
        offset = self._offset(address)
        if size < 0 or offset is None or offset + size > self.size:
            raise ValueError(
                f"{size} bytes at {address:#x} lie outside of arena {self.name}, which is "
                f"{self.address:#x} to {self.address + self.size:#x}"
            )
        return self.address + offset

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes at a pointer.

        Programs may write at the same time: only a single byte is sure to be of one piece.

        :raises ValueError: they do not all lie within the arena.
        :raises KernelError: EFAULT: a page of them is not there, and may not be made.
        """
        at = self.locate(address, size)
        if not size:
            return b""
        try:
            found = libc.read_memory(at, size)
        except OSError as error:
            raise self._fault("read", at, size, error) from error
        if len(found) < size:
            raise self._fault("read", at + len(found), size - len(found))
        return found

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Put ``data`` at a pointer.

        Programs may read at the same time. One write is seen after those before it: write a value
        first, and then a single byte that says that it is there.

        :raises ValueError: it does not all lie within the arena.
        :raises KernelError: EFAULT: a page is not there, and may not be made; what lies before it
            may have been written.
        """
        data = bytes(data)
        at = self.locate(address, len(data))
        if not data:
            return
        try:
            done = libc.write_memory(at, data)
        except OSError as error:
            raise self._fault("write", at, len(data), error) from error
        if done < len(data):
            raise self._fault("write", at + done, len(data) - done)

    def _fault(self, verb: str, at: int, size: int, error: OSError | None = None) -> KernelError:
        number = error.errno or errno.EIO if error is not None else errno.EFAULT
        operation = f"{verb} {size} bytes at {at:#x} of arena {self.name}"
        if number != errno.EFAULT:
            return KernelError(operation, number)
        if self.segv_on_fault:
            reason = "no page is there, and only programs make pages of this arena"
            hint = "bpf_arena_alloc_pages() makes one, bpf_arena_free_pages() takes it away"
        else:
            reason, hint = "no page is there, and the kernel has none to give", "is memory short?"
        return KernelError(operation, number, reason, hint=hint, code="fault")

    def buffer(self) -> memoryview:
        """The whole arena as bytes, to be read and written without a call for each access.

        A page that is not there is made when it is touched; out of memory the process would be
        killed then. The memory stays mapped for as long as a view of it is kept.

        :raises ValueError: touching a page that is not there would kill the process
            (BPF_F_SEGV_ON_FAULT): ``read`` and ``write`` raise an error instead.
        """
        mapping = self._open()
        if self.segv_on_fault:
            raise ValueError(
                f"arena {self.name} has no buffer: it is one of BPF_F_SEGV_ON_FAULT, use read() "
                "and write()"
            )
        kind: type[ctypes.Array[ctypes.c_char]] = type("Pages", (ctypes.c_char * self.size,), {})
        pages = kind.from_address(self.address)
        # A view holds on to ``pages``, and so does every view that is made of it.
        pages.mapping = mapping  # type: ignore[attr-defined]
        return memoryview(pages).cast("B")

    def close(self) -> None:
        """Unmap the arena, once no view of it is left; a second call does nothing."""
        self._mapping = None

    def __del__(self) -> None:
        if getattr(self, "_mapping", None) is not None:
            warnings.warn(f"unclosed arena {self.name}", ResourceWarning, stacklevel=2, source=self)
            self.close()
