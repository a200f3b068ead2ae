"""The instructions of a loaded program, as the verifier left them."""

from __future__ import annotations

import ctypes
import functools
import struct
import sys

from netbpf.bpf import btf_object, prog, syscall, uapi
from netbpf.bpf.kobject import refused
from netbpf.bpf.macros import BPF_INSN_SIZE, BPF_PSEUDO_MAP_VALUE
from netbpf.bpf.map import Map
from netbpf.bpf.prog import Program
from netbpf.btf.errors import BtfFormatError
from netbpf.errors import NetbpfError
from netbpf.lint import insns as i
from netbpf.lint.insns import Code, Insn, Place
from netbpf.lint.paths import MAX_INSNS

# struct bpf_line_info: instruction, file's name and line's text (offsets), line and column.
_LINE_INFO = struct.Struct("=IIII")
_LINE_SHIFT = 10

# The helpers that a program is asked about; the value is how many arguments after that are zeros.
_ASKED = {23: 2, 152: 4, 155: 2}
_SK_ASSIGN = 124
_SKB_SK = 168


def code(program: Program) -> Code:
    """The program's instructions; none where the kernel does not show them.

    The verifier has rewritten them: what no path reaches is gone, some helpers are inlined, and a
    call of a helper is a distance in the kernel's code. Those helpers that netbpf looks for are
    recognised by loading a program that calls them; where that is not permitted none is.

    Since Linux 4.13 (kernel/bpf/syscall.c: bpf_prog_get_info_by_fd, bpf_insn_prepare_dump).

    :raises BpfError: the kernel refused.
    """
    raw = uapi.ProgInfo()
    try:
        syscall.obj_get_info(program.fileno(), raw)
        # In a larger program a call's distance may not fit into the dump, and it is not followed.
        if raw.xlated_prog_len > MAX_INSNS * BPF_INSN_SIZE:
            return Code(_name(raw), ())
        lines = raw.nr_line_info if raw.line_info_rec_size == _LINE_INFO.size else 0
        dump = ctypes.create_string_buffer(max(raw.xlated_prog_len, 1))
        records = ctypes.create_string_buffer(max(lines * _LINE_INFO.size, 1))
        again = uapi.ProgInfo(xlated_prog_len=raw.xlated_prog_len)
        again.xlated_prog_insns = ctypes.addressof(dump)
        if lines:
            again.nr_line_info, again.line_info_rec_size = lines, _LINE_INFO.size
            again.line_info = ctypes.addressof(records)
        syscall.obj_get_info(program.fileno(), again)
    except OSError as error:
        raise refused("read a program's instructions", error, "CAP_BPF") from error
    # Whoever may not see the instructions is told 0 here.
    if not again.xlated_prog_insns:
        return Code(_name(raw), ())
    insns = i.decode(dump.raw[: raw.xlated_prog_len], sys.byteorder)
    try:
        data, contents = _constants(insns)
    except (NetbpfError, OSError):
        # Without them a path that the verifier knows to be closed would look open.
        return Code(_name(raw), ())
    called = any(n.code == i.JMP | i.CALL and n.src == 0 and n.imm != i.TAIL_CALL for n in insns)
    return Code(
        _name(raw),
        insns,
        sys.byteorder,
        places=_places(raw.btf_id, records.raw[: lines * _LINE_INFO.size]),
        data=data,
        contents=contents,
        helpers={i.TAIL_CALL: i.TAIL_CALL, **(_helpers() if called else {})},
        calls_by_offset=True,
    )


def _name(raw: uapi.ProgInfo) -> str:
    return bytes(raw.name).split(b"\0")[0].decode(errors="replace")


def _constants(
    insns: list[Insn],
) -> tuple[dict[int, tuple[str, int]], dict[str, bytes]]:
    """Addresses of constants by instruction, and the contents of the maps that hold them.

    As the verifier has it: what is in a map that neither a program nor anybody else can write
    (kernel/bpf/verifier.c: bpf_map_is_rdonly).
    """
    data: dict[int, tuple[str, int]] = {}
    contents: dict[str, bytes] = {}
    for at, insn in enumerate(insns):
        if insn.code != i.LD_IMM64 or insn.src != BPF_PSEUDO_MAP_VALUE or at + 1 == len(insns):
            continue
        name = str(insn.imm)
        if name not in contents:
            with Map.from_id(insn.imm) as found:
                contents[name] = _frozen(found)
        data[at] = (name, insns[at + 1].imm)
    return data, contents


def _frozen(found: Map) -> bytes:
    """The value of a map that nobody can change any more, else nothing."""
    if not found.info().flags & uapi.BPF_F_RDONLY_PROG:
        return b""
    with open(f"/proc/self/fdinfo/{found.fileno()}", encoding="ascii") as file:
        if "frozen:\t1\n" not in file.read():
            return b""
    return found.lookup(bytes(4)) or b""


def _places(btf_id: int, records: bytes) -> tuple[Place, ...]:
    if not records or not btf_id:
        return ()
    try:
        btf = btf_object.read(btf_id)
        return tuple(
            Place(index, btf.string(file) or None, line >> _LINE_SHIFT)
            for index, file, _, line in _LINE_INFO.iter_unpack(records)
        )
    except (NetbpfError, BtfFormatError):
        # Without lines the instruction's number has to do.
        return ()


@functools.cache
def _helpers() -> dict[int, int]:
    """What the kernel shows in place of the numbers of the helpers that are asked about."""
    insns = [(0xBF, 6, 1, 0, 0)]
    for number, zeros in _ASKED.items():
        insns += [(0xB7, register, 0, 0, 0) for register in range(1, zeros + 1)]
        insns.append((0x85, 0, 0, 0, number))
    insns += [
        # r2 = skb->sk; if it is there: bpf_sk_assign(skb, r2, 0).
        (0x79, 2, 6, _SKB_SK, 0),
        (0x15, 2, 0, 3, 0),
        (0xBF, 1, 6, 0, 0),
        (0xB7, 3, 0, 0, 0),
        (0x85, 0, 0, 0, _SK_ASSIGN),
        (0xB7, 0, 0, 0, 0),
        (0x95, 0, 0, 0, 0),
    ]
    order = "<" if sys.byteorder == "little" else ">"
    packed = b"".join(
        struct.pack(
            order + "BBhi",
            opcode,
            dst | src << 4 if order == "<" else dst << 4 | src,
            off,
            imm,
        )
        for opcode, dst, src, off, imm in insns
    )
    try:
        with prog.load(uapi.BPF_PROG_TYPE_SCHED_CLS, packed, name="netbpf_helpers") as probe:
            raw = uapi.ProgInfo()
            syscall.obj_get_info(probe.fileno(), raw)
            dump = ctypes.create_string_buffer(raw.xlated_prog_len)
            again = uapi.ProgInfo(xlated_prog_len=len(dump))
            again.xlated_prog_insns = ctypes.addressof(dump)
            syscall.obj_get_info(probe.fileno(), again)
    except (NetbpfError, OSError):
        return {}
    shown = [n.imm for n in i.decode(dump.raw, sys.byteorder) if n.code == i.JMP | i.CALL]
    asked = [*_ASKED, _SK_ASSIGN]
    if len(shown) != len(asked) or 0 in shown:
        return {}
    return dict(zip(shown, asked, strict=True))
