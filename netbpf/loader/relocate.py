"""Putting a program together: its sub-programs behind it, every reference filled in."""

from __future__ import annotations

import struct

from netbpf.bpf.macros import (
    BPF_INSN_SIZE,
    BPF_LD_IMM64,
    BPF_PSEUDO_CALL,
    BPF_PSEUDO_FUNC,
    BPF_PSEUDO_MAP_FD,
    BPF_PSEUDO_MAP_VALUE,
)
from netbpf.elf.spec import Function, ObjectSpec, ProgramSpec, Relocation
from netbpf.errors import ObjectFileError
from netbpf.records import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_Three = tuple[int, int, int]
FUNC_INFO_SIZE = 8
LINE_INFO_SIZE = 16
# include/linux/bpf_verifier.h: BPF_MAX_SUBPROGS; the sum of all is bounded by the kernel's 1M.
_MAX_INSNS = 1_000_000


@record(slots=True, frozen=True)
class Linked:
    """A program ready for the kernel; ``func_info`` and ``line_info`` are empty where unknown.

    ``starts`` says where in it each function starts, in bytes.
    """

    insns: bytes
    func_info: bytes
    line_info: bytes
    starts: Mapping[tuple[int, int], int]


def functions(spec: ObjectSpec, program: ProgramSpec) -> list[Function]:
    """The program's own function and those it reaches, in the order that libbpf puts them in.

    That is: each behind all that came before it, at the first call to it, then what it calls
    itself, then the next call of its caller. The program tag depends on it.

    :raises ObjectFileError: a call leads to where no function starts.
    """
    order = [program.function]
    seen = {program.function.key}
    # The calls still to follow, of each function on the way to where we are.
    pending = [iter(_calls(program.function))]
    callback = _callback(spec, program)
    while pending or callback is not None:
        if not pending:
            # Nothing calls it, so it stands behind all else.
            if callback is not None and callback.key not in seen:
                seen.add(callback.key)
                order.append(callback)
                pending.append(iter(_calls(callback)))
            callback = None
            continue
        relocation = next(pending[-1], None)
        if relocation is None:
            pending.pop()
            continue
        key = (relocation.section, relocation.value)
        if key in seen:
            continue
        found = spec.functions.get(key)
        if found is None:
            raise ObjectFileError(
                spec.path,
                f"program {program.name} calls {relocation.target} at {relocation.value}, where "
                "no function starts",
                section=program.section,
            )
        seen.add(key)
        order.append(found)
        pending.append(iter(_calls(found)))
    return order


def link(
    spec: ObjectSpec,
    program: ProgramSpec,
    fds: Mapping[str, int],
    fitted: Mapping[tuple[int, int], bytes] | None = None,
    externs: Mapping[str, tuple[_Three, _Three]] | None = None,
    arena: int = 0,
) -> Linked:
    """Put ``program`` together, all but its jump tables.

    :param fds: descriptors by what relocations name: a map, or a data section.
    :param fitted: the instructions of functions by their key, where they are others than in the
        file: CO-RE has been at work.
    :param externs: what those get that are no values of the configuration (``externs.Patch``).
    :param arena: where in the arena its variables start.
    :raises ObjectFileError: something it refers to is not there, or not supported yet.
    """
    parts = functions(spec, program)
    starts: dict[tuple[int, int], int] = {}
    code = bytearray()
    for part in parts:
        starts[part.key] = len(code)
        code += (fitted or {}).get(part.key, part.insns)
    if len(code) > _MAX_INSNS * BPF_INSN_SIZE:
        raise ObjectFileError(spec.path, f"program {program.name} has over a million instructions")
    for part in parts:
        base = starts[part.key]
        for relocation in part.relocations:
            if relocation.kind == "arena":
                relocation = replace(relocation, value=relocation.value + arena)
            _fill(
                spec,
                program,
                code,
                base + relocation.offset,
                relocation,
                starts,
                fds,
                externs or {},
            )
    return Linked(bytes(code), _func_info(parts, starts), _line_info(parts, starts), starts)


def _callback(spec: ObjectSpec, program: ProgramSpec) -> Function | None:
    """The function that takes over when the program throws, if it names one."""
    name = program.exception_callback
    return next((f for f in spec.functions.values() if name and f.name == name), None)


def _calls(function: Function) -> list[Relocation]:
    return [r for r in function.relocations if r.kind in ("call", "function")]


def _fill(
    spec: ObjectSpec,
    program: ProgramSpec,
    code: bytearray,
    at: int,
    relocation: Relocation,
    starts: Mapping[tuple[int, int], int],
    fds: Mapping[str, int],
    externs: Mapping[str, tuple[_Three, _Three]],
) -> None:
    if relocation.kind in ("call", "function"):
        target = starts[relocation.section, relocation.value]
        distance = (target - at) // BPF_INSN_SIZE - 1
        pseudo = BPF_PSEUDO_CALL if relocation.kind == "call" else BPF_PSEUDO_FUNC
        _write(code, at, pseudo, distance)
    elif relocation.kind == "extern":
        _fill_extern(spec, code, at, relocation.target, fds, externs)
    elif relocation.kind != "jump_table":
        fd = fds.get(relocation.target)
        if fd is None:
            raise ObjectFileError(
                spec.path,
                f"program {program.name} uses {relocation.target}, which is no map of it",
                section=program.section,
            )
        kind = BPF_PSEUDO_MAP_FD if relocation.kind == "map" else BPF_PSEUDO_MAP_VALUE
        write_address(code, at, kind, fd, relocation.value)


def _fill_extern(
    spec: ObjectSpec,
    code: bytearray,
    at: int,
    name: str,
    fds: Mapping[str, int],
    externs: Mapping[str, tuple[_Three, _Three]],
) -> None:
    if name not in externs:
        (extern,) = (e for e in spec.externs if e.name == name)
        write_address(code, at, BPF_PSEUDO_MAP_VALUE, fds[extern.section], extern.offset)
        return
    load, call = externs[name]
    if code[at] == BPF_LD_IMM64:
        write_address(code, at, *load)
    else:
        source, number, place = call
        _write(code, at, source, number)
        struct.pack_into("=h", code, at + 2, place)


def write_address(code: bytearray, at: int, source: int, low: int, high: int) -> None:
    """Let the 16-byte load at byte ``at`` load what ``source`` makes of the two numbers."""
    _write(code, at, source, low)
    struct.pack_into("=I", code, at + 12, high & 0xFFFFFFFF)


def _write(code: bytearray, at: int, source: int, imm: int) -> None:
    # struct bpf_insn: dst_reg is the first half of the byte, whichever end that is.
    registers = code[at + 1]
    if struct.pack("=H", 1)[0]:
        registers = registers & 0x0F | source << 4
    else:
        registers = registers & 0xF0 | source
    code[at + 1] = registers
    struct.pack_into("=I", code, at + 4, imm & 0xFFFFFFFF)


def _func_info(parts: list[Function], starts: Mapping[tuple[int, int], int]) -> bytes:
    # The kernel wants it of every function or of none (kernel/bpf/check_btf.c).
    records = bytearray()
    for part in parts:
        if part.info is None:
            return b""
        records += struct.pack("=II", starts[part.key] // BPF_INSN_SIZE, part.info.type_id)
    return bytes(records)


def _line_info(parts: list[Function], starts: Mapping[tuple[int, int], int]) -> bytes:
    records = bytearray()
    for part in parts:
        if not part.lines or part.lines[0].offset:
            return b""
        base = starts[part.key]
        for line in part.lines:
            offset = (base + line.offset) // BPF_INSN_SIZE
            records += struct.pack("=IIII", offset, line.file_name, line.line, line.line_column)
    return bytes(records)
