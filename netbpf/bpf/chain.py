"""A chain as it was read: its entries in order, its revision, and finding one by reference."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from netbpf.bpf.kobject import open_any_pin, wrong_kind
from netbpf.bpf.link import Link
from netbpf.bpf.prog import Program, ProgramInfo
from netbpf.bpf.ref import Ref
from netbpf.errors import AmbiguousError, BpfError, NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Target = Program | Link | Ref | str
"""What can name an entry: an open program or link, or a reference (``"name:first"``)."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One place in a chain; ``link_id`` is None where the program was attached by itself.

    ``name`` is the program's, where the chain was noted down and the program may have gone since.
    """

    position: int
    prog_id: int
    link_id: int | None
    name: str | None = field(default=None, compare=False)

    def program(self) -> ProgramInfo | None:
        """What the kernel tells of the program; None when it has gone or we may not look."""
        try:
            return program_info(self.prog_id)
        except BpfError:
            return None

    @property
    def words(self) -> str:
        """The program by name and id."""
        info = self.program()
        name = info.name if info else self.name
        return f"{name} (id:{self.prog_id})" if name else f"id:{self.prog_id}"

    def __str__(self) -> str:
        return f"{self.words} by link:{self.link_id}" if self.link_id else self.words


@dataclass(frozen=True, slots=True)
class Chain:
    """The programs at a hook in the order in which they run.

    ``revision`` is 0, which expects nothing, for an empty netkit side: the kernel says 1 then, and
    checks another one (drivers/net/netkit.c: netkit_entry_fetch).
    """

    ifindex: int
    hook: str
    revision: int
    entries: tuple[Entry, ...]

    def __str__(self) -> str:
        return _listed(self.entries)

    def find(self, target: Target) -> Entry:
        """The entry that ``target`` names.

        :raises NotFoundError: none does.
        :raises AmbiguousError: more than one does.
        """
        return find(self.entries, target, f"in the chain at {self.hook}", "the chain is empty")

    def with_program(self, prog_id: int) -> Entry | None:
        """The entry that runs this program."""
        return next((entry for entry in self.entries if entry.prog_id == prog_id), None)

    def with_link(self, link_id: int) -> Entry | None:
        """The entry that this link owns."""
        return next((entry for entry in self.entries if entry.link_id == link_id), None)


def find(entries: Sequence[Entry], target: Target, where: str, empty: str) -> Entry:
    """The one of ``entries`` that ``target`` names.

    :param where: the place in words, for an error; ``empty`` says that nothing is there.
    :raises NotFoundError: none does. :raises AmbiguousError: more than one does.
    """
    ref = Ref.parse(target) if isinstance(target, str) else target
    matches = matcher(ref)
    found = [entry for entry in entries if matches(entry)]
    if not found:
        raise NotFoundError(
            *_words(ref),
            where=where,
            hint=f"there are: {_listed(entries)}" if entries else empty,
        )
    if len(found) > 1:
        raise AmbiguousError("program", str(ref), [f"{e.position} {e}" for e in found])
    return found[0]


def _listed(entries: Sequence[Entry]) -> str:
    return ", ".join(f"{entry.position} {entry}" for entry in entries)


def matcher(target: Target) -> Callable[[Entry], bool]:
    """The test whether an entry is what ``target`` names."""
    ref = Ref.parse(target) if isinstance(target, str) else target
    if not isinstance(ref, Program | Link | Ref):
        raise TypeError(f"{target!r} names no entry: give a Program, a Link or a reference")
    if isinstance(ref, Program):
        return _has_program(ref.id)
    if isinstance(ref, Link):
        return _has_link(ref.id)
    match ref.kind:
        case "id":
            return _has_program(ref.number)
        case "link":
            return _has_link(ref.number)
        case "pin":
            with open_pin(ref.value) as pinned:
                return (_has_link if isinstance(pinned, Link) else _has_program)(pinned.id)
        case "name":
            # The kernel keeps the first 15 characters.
            return _has(lambda info: info.name == ref.value[:15])
        case "tag":
            return _has(lambda info: info.tag == ref.value)


def _has(test: Callable[[ProgramInfo], bool]) -> Callable[[Entry], bool]:
    return lambda entry: (info := program_info(entry.prog_id)) is not None and test(info)


def _has_program(number: int) -> Callable[[Entry], bool]:
    return lambda entry: entry.prog_id == number


def _has_link(number: int) -> Callable[[Entry], bool]:
    return lambda entry: entry.link_id == number


def _words(ref: Program | Link | Ref) -> tuple[str, str]:
    if isinstance(ref, Program):
        return "program", f"id:{ref.id}"
    if isinstance(ref, Link):
        return "link", f"link:{ref.id}"
    return ("link" if ref.kind == "link" else "program"), str(ref)


def open_pin(path: str) -> Program | Link:
    """The program or link pinned at ``path``.

    :raises NotFoundError: nothing is there.
    :raises NetbpfError: what is there is no pin, or pins something else.
    """
    fd, kind = open_any_pin(path, "program or link")
    if kind == Link.kind:
        return Link(fd)
    if kind == Program.kind:
        return Program(fd)
    fd.close()
    raise wrong_kind(path, kind, "program or link")


@lru_cache(maxsize=4096)
def _program_info(number: int) -> ProgramInfo:
    with Program.from_id(number) as prog:
        return prog.info()


def program_info(number: int) -> ProgramInfo | None:
    """What the kernel tells of the program with that id; None when it has gone.

    Needs CAP_SYS_ADMIN. Kept: the kernel gives no id twice for a long while.
    """
    try:
        return _program_info(number)
    except NotFoundError:
        return None
