"""The variables of an object that lie in its arena: where they are put, and how they are found."""

from __future__ import annotations

import functools
import mmap
import struct
from collections.abc import Collection

from netbpf.bpf import map as bpf_map
from netbpf.bpf import prog, uapi
from netbpf.bpf.macros import BPF_LD_IMM64, BPF_PSEUDO_MAP_VALUE
from netbpf.bpf.map import Map
from netbpf.elf.spec import MapSpec, ObjectSpec
from netbpf.errors import BpfError, ConflictError, ObjectFileError, VerifierError
from netbpf.loader.arena import Arena

_FAR = 1 << 30


class Image(Arena):
    """The arena of an object, with its variables ``start`` bytes from the beginning.

    They are the last pages, as libbpf has it, so that none has an address near 0 in its lower
    half; on kernels that refuse such offsets the first.
    """

    def __init__(self, spec: ObjectSpec, found: Map, *, new: bool) -> None:
        """Map the arena ``found`` for ``spec``; raises what ``Arena`` does.

        :param new: nobody has had it before. One that existed need not be mapped here for programs
            to work, and where that is impossible it is an arena of which every access is refused.
        """
        try:
            super().__init__(found, spec.btf)
        except (BpfError, ConflictError) as error:
            if new:
                raise
            self._state = f"not in this process: {error}"
        self.start = self.length = 0
        if spec.arena is None:
            return
        self.length = len(spec.arena.contents)
        pages = -(-self.length // mmap.PAGESIZE) * mmap.PAGESIZE
        if pages <= self.size and far_offsets():
            self.start = self.size - pages
        for each in spec.globals():
            if each.section == spec.arena.section:
                place = (each.type_id, self.start + each.offset)
                self._variables.setdefault(each.name, place)

    def read_data(self, offset: int, size: int) -> bytes:
        """Some of their bytes now; no bounds but those of the arena are held."""
        return self.read(self.address + self.start + offset, size)

    def write_data(self, offset: int, data: bytes) -> None:
        """Change some of their bytes; no bounds but those of the arena are held."""
        self.write(self.address + self.start + offset, data)


def check(spec: ObjectSpec, maps: Collection[MapSpec]) -> None:
    """Refuse variables for which there can be no page.

    :raises ObjectFileError: they lie in an arena of BPF_F_SEGV_ON_FAULT, or in too small a one.
    """
    for each in maps:
        if spec.arena is None or each.name != spec.arena.map:
            continue
        if each.flags & uapi.BPF_F_SEGV_ON_FAULT:
            raise ObjectFileError(
                spec.path,
                f"variables cannot be put into arena {each.name}: only programs make its pages",
                section=spec.arena.section,
                hint="leave out BPF_F_SEGV_ON_FAULT or the variables",
            )
        if len(spec.arena.contents) > each.max_entries * mmap.PAGESIZE:
            raise ObjectFileError(
                spec.path,
                f"{len(spec.arena.contents)} bytes of variables are more than the "
                f"{each.max_entries} pages of arena {each.name}",
                section=spec.arena.section,
            )


@functools.cache
def far_offsets() -> bool:
    """Whether instructions can refer to what lies over 512 MiB into an arena.

    Since Linux 7.0 (kernel/bpf/verifier.c: check_ld_imm of maps, once BPF_MAX_VAR_OFF).
    """
    try:
        with bpf_map.create(
            uapi.BPF_MAP_TYPE_ARRAY, key_size=4, value_size=1, max_entries=1, name="far"
        ) as found:
            # r1 = &value + 1 GiB; exit. It is refused in any case, what counts is the reason.
            source = BPF_PSEUDO_MAP_VALUE << 4 if struct.pack("=H", 1)[0] else BPF_PSEUDO_MAP_VALUE
            register = 1 if struct.pack("=H", 1)[0] else 1 << 4
            insns = struct.pack("=BBhi", BPF_LD_IMM64, register | source, 0, found.fileno())
            insns += struct.pack("=BBhi", 0, 0, 0, _FAR) + struct.pack("=BBhi", 0x95, 0, 0, 0)
            with prog.load(uapi.BPF_PROG_TYPE_SOCKET_FILTER, insns, name="far", log_level=1):
                return False
    except VerifierError as error:
        return "direct value offset of" not in error.log
    except BpfError:
        # Then the object will not be loaded either, and its error says why.
        return False
