"""What loading an object would make, with nothing made."""

from __future__ import annotations

import os
from types import MappingProxyType

from netbpf.bpf.prog import Program
from netbpf.elf.spec import MapSpec, ProgramSpec
from netbpf.loader import choose
from netbpf.loader.object import Object
from netbpf.records import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


@record(frozen=True, slots=True)
class Foreseen:
    """The programs and maps that ``load`` would make, with the sizes that were set.

    ``shared`` are the names of maps that have a pin of their own (LIBBPF_PIN_BY_NAME).
    """

    programs: list[ProgramSpec]
    maps: list[MapSpec]
    shared: frozenset[str]


def chosen(obj: Object) -> Foreseen:
    """What ``load`` would make, as the file alone tells.

    :raises ObjectFileError: there is nothing to load, or not on this machine.
    """
    obj.check()
    maps = [spec for spec in obj._specs.values() if spec.autocreate]
    shared = (m.name for m in maps if m.pinned_by_name and m.name not in obj._reused)
    programs = choose.programs(obj.spec, (), obj._specs)
    if not programs and not maps:
        raise choose.nothing(obj.spec)
    return Foreseen(programs, maps, frozenset(shared))


def foresee(
    obj: Object,
    *,
    btf: str | os.PathLike[str] | None = None,
    attach_to: Mapping[str, Program] = MappingProxyType({}),
) -> Foreseen:
    """What ``load`` would make, fitted to the kernel's types; the verifier is not asked.

    :param btf: as for ``load``. :param attach_to: as for ``load``.
    :raises NetbpfError: the file wants what is not there.
    """
    found = chosen(obj)
    with obj._own_errors():
        for program in found.programs:
            choose.check(obj.spec, program)
        obj._look_up(found.programs, attach_to)
        obj._fit(found.programs, btf)
    return found
