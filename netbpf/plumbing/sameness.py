"""Whether two loaded programs are the same, as a script that ran twice leaves them."""

from __future__ import annotations

from netbpf.bpf.map import Map
from netbpf.bpf.prog import ProgramInfo
from netbpf.errors import NetbpfError

_SECTIONS = (".rodata", ".data", ".bss")


def same_program(one: ProgramInfo, other: ProgramInfo) -> bool:
    """Whether both do the same: equal type, name, tag, and values of all global variables.

    The tag is a hash of the instructions, which tells no two settings of a program apart: those
    lie in maps (kernel/bpf/core.c: bpf_prog_calc_tag). A program that counts in a variable differs
    from its double, then; better that than to take two settings for one.
    """
    if (one.type, one.name, one.tag) != (other.type, other.name, other.tag):
        return False
    if one.id == other.id:
        return True
    variables = _variables(one.map_ids)
    return variables is not None and variables == _variables(other.map_ids)


def _variables(map_ids: tuple[int, ...]) -> list[tuple[str, bytes | None]] | None:
    """The contents of a program's data sections; None where they cannot be read."""
    found: list[tuple[str, bytes | None]] = []
    try:
        for number in map_ids:
            with Map.from_id(number) as opened:
                info = opened.info()
                # The map's name is the object's, cut off, with the section's behind it.
                if any(section in info.name for section in _SECTIONS) and info.key_size == 4:
                    found.append((info.name, opened.lookup(bytes(4))))
    except NetbpfError:
        return None
    return sorted(found, key=lambda each: each[0])
