"""Fitting an object's instructions to the kernel's types (CO-RE), and naming what is missing."""

from __future__ import annotations

from netbpf.bpf.macros import BPF_INSN_SIZE
from netbpf.btf import core
from netbpf.btf import core_spec as cs
from netbpf.btf.blob import Btf
from netbpf.btf.core_patch import POISON
from netbpf.btf.errors import BtfFormatError
from netbpf.btf.ext import CoreRelo
from netbpf.elf.spec import Function, ObjectSpec
from netbpf.errors import ObjectFileError, VerifierError
from netbpf.loader.kernel_types import KernelTypes
from netbpf.records import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

# kernel/bpf/disasm.c: how the verifier's log shows the call that a poisoned instruction is.
_POISONED = rf"^(\d+): \(85\) call unknown#{POISON}\b"
_TEXT = ".text"
# struct bpf_line_info: the column is in the low bits.
_LINE_SHIFT = 10


@record(slots=True, frozen=True)
class Missing:
    """What a poisoned instruction stands for: ``what`` in words, and what to do about it."""

    what: str
    hint: str | None
    source: str


@record(slots=True, frozen=True)
class Fitted:
    """Instructions by function (``Function.key``), and what is missing by function and offset.

    Functions without relocations are not in ``insns``.
    """

    insns: dict[tuple[int, int], bytes]
    missing: dict[tuple[tuple[int, int], int], Missing]


def concerned(spec: ObjectSpec, functions: Iterable[Function]) -> list[Function]:
    """The functions to fit: those given, and like libbpf all sub-programs of the file.

    A relocation that makes no sense is an error there, whether its function is called or not.
    """
    found = {f.key: f for f in functions}
    found.update((f.key, f) for f in spec.functions.values() if f.section == _TEXT)
    return [f for f in found.values() if f.core]


def fit(
    spec: ObjectSpec, functions: Sequence[Function], types: Callable[[], KernelTypes]
) -> Fitted:
    """Apply the relocations of ``functions``, in the order of the file.

    :param types: gives the kernel's types; it is asked only where they are needed.
    :raises ObjectFileError: a relocation makes no sense, or is ambiguous in these types.
    """
    missing: dict[tuple[tuple[int, int], int], Missing] = {}
    btf = spec.btf
    if btf is None:
        return Fitted({}, missing)
    # The order counts: a type that did not fit once is not looked at again, as libbpf has it.
    known: dict[int, Sequence[core.Candidate]] = {}
    code: dict[tuple[int, int], bytearray] = {}
    todo = [(relo, function) for function in functions for relo in function.core]
    for relo, function in sorted(todo, key=lambda item: item[0].number):
        insns = code.setdefault(function.key, bytearray(function.insns))
        try:
            if relo.type_id not in known and relo.kind != cs.TYPE_ID_LOCAL:
                wanted = btf.type(relo.type_id)
                name = core.essential(wanted.name)
                known[relo.type_id] = types().candidates(name, wanted.kind) if name else ()
            answer, left = core.resolve(btf, relo, known.get(relo.type_id, ()))
            if relo.kind != cs.TYPE_ID_LOCAL:
                known[relo.type_id] = left
            applied = core.apply(insns, relo.offset, answer, spec.byteorder)
        except (core.CoreError, BtfFormatError) as error:
            entry = any(p.function.key == function.key for p in spec.programs)
            where = _source(btf, function, relo.offset)
            raise ObjectFileError(
                spec.path,
                f"{'program' if entry else 'function'} {function.name}: relocation {relo.number}: "
                f"{error}{f' (at {where})' if where else ''}",
                section=function.section,
            ) from error
        if not applied:
            missing[function.key, relo.offset] = _missing(btf, function, relo, answer, types().name)
    return Fitted({key: bytes(insns) for key, insns in code.items()}, missing)


def _missing(
    btf: Btf, function: Function, relo: CoreRelo, answer: core.Resolution, whose: str
) -> Missing:
    what = f"relocation {relo.number}: {core.describe(btf, relo)}"
    hint = None
    if answer.poison:
        what += f" is not in {whose}"
        if relo.kind in cs.FIELD_KINDS:
            hint = "ask bpf_core_field_exists() before it is read"
        elif relo.kind in cs.ENUMVAL_KINDS:
            hint = "ask bpf_core_enum_value_exists() before it is used"
    else:
        what += f" cannot be read in one load: it is of another size or type in {whose}"
        hint = "read it with BPF_CORE_READ() or bpf_core_read()"
    return Missing(what, hint, _source(btf, function, relo.offset))


def _source(btf: Btf, function: Function, offset: int) -> str:
    # The last line that starts at or before the instruction.
    line = next((line for line in reversed(function.lines) if line.offset <= offset), None)
    if line is None:
        return ""
    try:
        file, text = btf.string(line.file_name), btf.string(line.line).strip()
    except ValueError:
        return ""
    place = f"{file.rpartition('/')[2]}:{line.line_column >> _LINE_SHIFT}"
    return f"{place}: {text}" if text else place


def explained(
    error: VerifierError,
    starts: Mapping[tuple[int, int], int],
    missing: Mapping[tuple[tuple[int, int], int], Missing],
) -> VerifierError:
    """``error`` in words, where the verifier met a poisoned instruction.

    :param starts: where in the program each of its functions starts, in bytes.
    """
    import re

    said = re.findall(_POISONED, error.log, re.MULTILINE)
    if not said:
        return error
    at = int(said[-1]) * BPF_INSN_SIZE
    for (key, offset), found in missing.items():
        # Of a load of 64 bits both halves are poisoned, the first is the one that is reached.
        if key in starts and starts[key] + offset == at:
            where = f" (at {found.source})" if found.source else ""
            return VerifierError(
                error.operation,
                error.errno,
                found.what + where,
                hint=found.hint,
                log=error.log,
            )
    return error
