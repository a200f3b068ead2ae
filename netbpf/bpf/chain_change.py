"""What happened to a chain between two looks at it."""

from __future__ import annotations

from dataclasses import dataclass

from netbpf.bpf.chain import Chain, Entry


@dataclass(frozen=True, slots=True)
class Change:
    """The difference between two looks at one chain.

    ``came`` and ``went`` are entries of the later and of the earlier look. ``replaced`` are the
    places whose link stayed and whose program is another now, ``moved`` the fewest entries that
    stand elsewhere among those that stayed; both are (earlier, later).
    """

    came: tuple[Entry, ...]
    went: tuple[Entry, ...]
    replaced: tuple[tuple[Entry, Entry], ...]
    moved: tuple[tuple[Entry, Entry], ...]

    def __bool__(self) -> bool:
        return bool(self.came or self.went or self.replaced or self.moved)

    def phrases(self) -> list[str]:
        """Each difference in words."""
        return [
            *(f"came: {entry} at position {entry.position}" for entry in self.came),
            *(f"went: {entry}" for entry in self.went),
            *(
                f"replaced: {old.words} by {new.words} at position {new.position}"
                for old, new in self.replaced
            ),
            *(f"moved: {new} to position {new.position}" for _, new in self.moved),
        ]


def change(before: Chain, after: Chain) -> Change:
    """What has to happen to ``before`` to make it ``after``."""
    pairs, replaced = [], []
    for entry in before.entries:
        now = _same(entry, after)
        if now is None:
            continue
        pairs.append((entry, now))
        if now.prog_id != entry.prog_id:
            replaced.append((entry, now))
    stayed, still = {e.position for e, _ in pairs}, {e.position for _, e in pairs}
    kept = increasing([now.position for _, now in pairs])
    return Change(
        came=tuple(e for e in after.entries if e.position not in still),
        went=tuple(e for e in before.entries if e.position not in stayed),
        replaced=tuple(replaced),
        moved=tuple(pair for index, pair in enumerate(pairs) if index not in kept),
    )


def _same(entry: Entry, chain: Chain) -> Entry | None:
    """The entry that stands in ``chain`` for this one: of its link, else with its program."""
    if entry.link_id is not None:
        return chain.with_link(entry.link_id)
    found = chain.with_program(entry.prog_id)
    return found if found is not None and found.link_id is None else None


def increasing(numbers: list[int]) -> set[int]:
    """The indexes of a longest rising subsequence: what can stay where it is."""
    best: list[tuple[int, int]] = []
    for index, number in enumerate(numbers):
        length, previous = 1, -1
        for earlier in range(index):
            if numbers[earlier] < number and best[earlier][0] + 1 > length:
                length, previous = best[earlier][0] + 1, earlier
        best.append((length, previous))
    kept: set[int] = set()
    index = max(range(len(best)), key=lambda i: best[i][0], default=-1)
    while index >= 0:
        kept.add(index)
        index = best[index][1]
    return kept
