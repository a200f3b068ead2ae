"""A program of an object file as its paths are followed: nothing is loaded for it."""

from __future__ import annotations

from netbpf.bpf.macros import (
    BPF_INSN_SIZE,
    BPF_PSEUDO_CALL,
    BPF_PSEUDO_FUNC,
    BPF_PSEUDO_KFUNC_CALL,
    BPF_PSEUDO_MAP_FD,
)
from netbpf.btf.errors import BtfFormatError
from netbpf.elf.spec import Function, ObjectSpec, ProgramSpec
from netbpf.lint import insns as i
from netbpf.lint.insns import Code, Insn, Place
from netbpf.lint.paths import MAX_INSNS
from netbpf.loader import relocate
from netbpf.loader.object import Object

# struct bpf_line_info: the column is in the low bits.
_LINE_SHIFT = 10


def of(obj: Object, program: ProgramSpec) -> Code:
    """The program's code with its functions behind it, in the order of ``load``.

    Constants (.rodata) have the values that were set so far. What only the kernel can tell
    (CO-RE, externs) is opaque. Empty for a program that is too large to follow.

    :raises ObjectFileError: a call leads to where no function starts.
    """
    spec = obj.spec
    parts = relocate.functions(spec, program)
    if sum(len(part.insns) for part in parts) > MAX_INSNS * BPF_INSN_SIZE:
        return Code(program.name, ())
    starts: dict[tuple[int, int], int] = {}
    insns: list[Insn] = []
    for part in parts:
        starts[part.key] = len(insns)
        insns += i.decode(part.insns, spec.byteorder)
    opaque: set[int] = set()
    data: dict[int, tuple[str, int]] = {}
    read_only = {m.section: m.name for m in spec.maps if m.section and m.read_only}
    for part in parts:
        base = starts[part.key]
        opaque.update(base + relo.offset // BPF_INSN_SIZE for relo in part.core)
        for relocation in part.relocations:
            at = base + relocation.offset // BPF_INSN_SIZE
            if relocation.kind in ("call", "function"):
                target = starts[relocation.section, relocation.value]
                source = BPF_PSEUDO_CALL if relocation.kind == "call" else BPF_PSEUDO_FUNC
                insns[at] = insns[at]._replace(src=source, imm=target - at - 1)
            elif relocation.kind == "data" and relocation.target in read_only:
                data[at] = (relocation.target, relocation.value)
            elif relocation.kind in ("data", "map"):
                # An address, whatever descriptor will stand for it.
                insns[at] = insns[at]._replace(src=BPF_PSEUDO_MAP_FD)
            elif insns[at].code == i.JMP | i.CALL:
                insns[at] = insns[at]._replace(src=BPF_PSEUDO_KFUNC_CALL, imm=0)
            else:
                opaque.add(at)
    return Code(
        program.name,
        insns,
        spec.byteorder,
        places=tuple(place for part in parts for place in _places(spec, part, starts[part.key])),
        opaque=frozenset(opaque),
        data=data,
        contents={
            section: bytes(obj._contents[name])
            for section, name in read_only.items()
            if name in obj._contents
        },
    )


def _places(spec: ObjectSpec, part: Function, base: int) -> list[Place]:
    if spec.btf is None:
        return []
    try:
        names = {line.file_name: spec.btf.string(line.file_name) for line in part.lines}
    except BtfFormatError:
        return []
    return [
        Place(
            base + line.offset // BPF_INSN_SIZE,
            names[line.file_name] or None,
            line.line_column >> _LINE_SHIFT,
        )
        for line in part.lines
    ]
