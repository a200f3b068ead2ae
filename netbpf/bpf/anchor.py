"""Anchors: where in a chain something goes, in words and in the kernel's flags."""

from __future__ import annotations

from dataclasses import dataclass

from netbpf.bpf.chain import Chain, Entry, Target, open_pin
from netbpf.bpf.macros import BPF_F_AFTER, BPF_F_BEFORE, BPF_F_ID, BPF_F_REPLACE
from netbpf.bpf.prog import Program
from netbpf.bpf.ref import Ref


@dataclass(frozen=True, slots=True)
class Landing:
    """An anchor held against a chain: the position, and how the kernel is told.

    ``relative_id`` is a program's id, 0 for none: by id the kernel asks for no capability.
    """

    position: int
    flags: int
    relative_id: int
    replaced: Entry | None


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where in a chain: first, last, before or after an entry, or in the place of one.

    Nothing given means last. ``replace`` together with ``before`` or ``after`` asks that the
    replaced entry stand directly there.

    :raises ValueError: two that contradict each other.
    """

    before: Target | None = None
    after: Target | None = None
    replace: Target | None = None
    first: bool = False
    last: bool = False

    def __post_init__(self) -> None:
        given = [
            word
            for word, there in (
                ("first", self.first),
                ("last", self.last),
                ("before", self.before is not None),
                ("after", self.after is not None),
            )
            if there
        ]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} contradict each other")
        if self.replace is not None and (self.first or self.last):
            raise ValueError(f"replace and {given[0]} contradict each other")

    @property
    def needs_chain(self) -> bool:
        """Whether an entry of the chain is named."""
        return any(target is not None for target in (self.before, self.after, self.replace))

    def land(self, chain: Chain) -> Landing:
        """Hold the anchor against ``chain``.

        :raises NotFoundError, AmbiguousError: what it names is not there, or not one.
        """
        flags, relative, position = 0, 0, len(chain.entries)
        if self.first:
            flags, position = BPF_F_BEFORE, 0
        elif self.last:
            flags = BPF_F_AFTER
        elif self.before is not None:
            entry = chain.find(self.before)
            flags, relative = BPF_F_BEFORE | BPF_F_ID, entry.prog_id
            position = entry.position
        elif self.after is not None:
            entry = chain.find(self.after)
            flags, relative = BPF_F_AFTER | BPF_F_ID, entry.prog_id
            position = entry.position + 1
        replaced = None
        if self.replace is not None:
            replaced = chain.find(self.replace)
            flags, position = flags | BPF_F_REPLACE, replaced.position
        return Landing(position, flags, relative, replaced)

    def unseen(self) -> Landing | None:
        """The landing in a chain that may not be read, where the kernel can find what is named.

        It finds a program by its id; None where a name or a tag would have to be looked up.
        """
        named = self.before if self.before is not None else self.after
        numbers = [_program_id(each) for each in (named, self.replace) if each is not None]
        if None in numbers:
            return None
        entries = (Entry(0, number, None) for number in numbers if number is not None)
        return self.land(Chain(0, "", 0, tuple(dict.fromkeys(entries))))

    def disagreement(self, chain: Chain) -> str | None:
        """Why what is to be replaced does not stand where the anchor says; None where it does."""
        if self.replace is None or (self.before is None and self.after is None):
            return None
        replaced = chain.find(self.replace)
        if self.before is not None:
            other, word, step = chain.find(self.before), "before", 1
        elif self.after is not None:
            other, word, step = chain.find(self.after), "after", -1
        if replaced.position + step == other.position:
            return None
        return (
            f"{replaced} at position {replaced.position} does not stand directly {word} {other} "
            f"at position {other.position}"
        )


def _program_id(target: Target) -> int | None:
    """The id of the program that is named by itself, or by its id or pin."""
    if isinstance(target, Program):
        return target.id
    ref = Ref.parse(target) if isinstance(target, str) else target
    if isinstance(ref, Ref) and ref.kind == "id":
        return ref.number
    if isinstance(ref, Ref) and ref.kind == "pin":
        with open_pin(ref.value) as pinned:
            return pinned.id if isinstance(pinned, Program) else None
    return None
