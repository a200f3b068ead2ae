"""Writing the answer of a CO-RE relocation into its instruction."""

from __future__ import annotations

import struct

from netbpf.btf.core_spec import CoreError
from netbpf.records import record

POISON = 0xBAD2310
"""The helper that poisoned instructions call: none. libbpf's number, 195896080 in verifier logs."""

_INSN = 8
# include/uapi/linux/bpf_common.h, include/uapi/linux/bpf.h
_CLASS = 0x07
_LD, _LDX, _ST, _STX, _ALU, _ALU64 = 0, 1, 2, 3, 4, 7
_SRC_X = 0x08
_SIZE = 0x18
_SIZES = {0x18: 8, 0x00: 4, 0x08: 2, 0x10: 1}
_SIZE_BITS = {size: bits for bits, size in _SIZES.items()}
_LD_IMM64 = 0x18
_CALL = 0x85
_U32 = 0xFFFFFFFF
_U64 = 0xFFFFFFFFFFFFFFFF


@record(slots=True, frozen=True)
class Resolution:
    """What becomes of an instruction: ``old`` in it gives way to ``new``.

    ``poison``: there is nothing of the kind in the kernel, the instruction must not be reached.
    ``validate``: ``old`` has to be in the instruction. The sizes are those of what a load or store
    touches, 0 where they do not matter; ``misfit`` says that it cannot be adjusted to the new one.
    """

    old: int
    new: int
    poison: bool = False
    validate: bool = True
    misfit: bool = False
    old_size: int = 0
    new_size: int = 0


def apply(insns: bytearray, at: int, answer: Resolution, byteorder: str) -> bool:
    """Write ``answer`` into the instruction at byte ``at``; False when it was poisoned instead.

    A poisoned instruction does no harm where it cannot be reached; otherwise the verifier refuses
    the program for it.

    :raises CoreError: the instruction is none that can be relocated, or holds another value than
        the program's own types give.
    """
    if at < 0 or at % _INSN or at + _INSN > len(insns):
        raise CoreError(f"there is no instruction at {at}")
    prefix = "<" if byteorder == "little" else ">"
    code = insns[at]
    wide = code == _LD_IMM64
    if wide and at + 2 * _INSN > len(insns):
        raise CoreError("the instruction is cut off")
    kind = code & _CLASS
    if not answer.poison:
        if kind in (_ALU, _ALU64):
            _apply_imm(insns, at, answer, prefix)
            return True
        if kind in (_LDX, _ST, _STX):
            if _apply_offset(insns, at, answer, prefix):
                return True
        elif wide:
            _apply_wide(insns, at, answer, prefix)
            return True
        else:
            raise CoreError(f"an instruction of code {code:#x} cannot be relocated")
    for place in range(at, at + (2 if wide else 1) * _INSN, _INSN):
        struct.pack_into(prefix + "BBhi", insns, place, _CALL, 0, 0, POISON)
    return False


def _apply_imm(insns: bytearray, at: int, answer: Resolution, prefix: str) -> None:
    if insns[at] & _SRC_X:
        raise CoreError("an instruction without a constant cannot be relocated")
    (value,) = struct.unpack_from(prefix + "i", insns, at + 4)
    _check(answer, value)
    struct.pack_into(prefix + "I", insns, at + 4, answer.new & _U32)


def _apply_offset(insns: bytearray, at: int, answer: Resolution, prefix: str) -> bool:
    (value,) = struct.unpack_from(prefix + "h", insns, at + 2)
    _check(answer, value)
    if answer.new > 0x7FFF:
        raise CoreError(f"offset {answer.new} is too large for an instruction")
    if answer.misfit:
        return False
    struct.pack_into(prefix + "h", insns, at + 2, answer.new)
    if answer.old_size != answer.new_size:
        code = insns[at]
        if _SIZES[code & _SIZE] != answer.old_size:
            raise CoreError(
                f"the instruction touches {_SIZES[code & _SIZE]} bytes, not {answer.old_size}"
            )
        if answer.new_size not in _SIZE_BITS:
            raise CoreError(f"no instruction touches {answer.new_size} bytes")
        insns[at] = code & ~_SIZE | _SIZE_BITS[answer.new_size]
    return True


def _apply_wide(insns: bytearray, at: int, answer: Resolution, prefix: str) -> None:
    registers, offset, low, second, high = struct.unpack_from(prefix + "xBhIIi", insns, at)
    source = registers >> 4 if prefix == "<" else registers & 0xF
    if source or offset or second:
        raise CoreError("a load of 64 bits in a form that cannot be relocated")
    _check(answer, low | high << 32)
    struct.pack_into(prefix + "I", insns, at + 4, answer.new & _U32)
    struct.pack_into(prefix + "I", insns, at + 12, answer.new >> 32 & _U32)


def _check(answer: Resolution, value: int) -> None:
    if answer.validate and value & _U64 != answer.old & _U64:
        raise CoreError(f"the instruction holds {value}, the program's own types say {answer.old}")
