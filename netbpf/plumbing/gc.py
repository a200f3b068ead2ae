"""What was left behind: defunct pins, programs that run twice, pins of what is in no chain.

A link that is not defunct is in a chain (kernel/bpf/tcx.c: tcx_link_attach, tcx_link_release), so
one that no chain lists is in a namespace that nothing visible leads to. It is no garbage.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from netbpf.bpf import bpffs, move_rest, uapi
from netbpf.bpf import pin as pins
from netbpf.bpf.alone import alone
from netbpf.bpf.chain import Entry, program_info
from netbpf.bpf.link import Link, LinkInfo
from netbpf.bpf.pin import Pin
from netbpf.bpf.prog import Program, ProgramInfo
from netbpf.bpf.unpin import holders
from netbpf.errors import ConflictError, NetbpfError, NotFoundError
from netbpf.netns import entered
from netbpf.netns.visit import LeftOut
from netbpf.plumbing import places
from netbpf.plumbing.places import Place, Reason
from netbpf.plumbing.sameness import same_program

Kind = Literal["defunct_pin", "no_chain", "empty_folder", "double", "unfinished_move"]

_FRESH = 10.0
"""Seconds in which a new pin or folder may be on its way to its use."""


@dataclass(frozen=True, slots=True)
class Garbage:
    """One thing that was left behind.

    ``path`` is the pin or folder, as its own mount namespace has it; None: a double without a pin.
    ``reason`` is why a link is defunct. ``place`` and ``entry`` are a double's, ``first`` is the
    entry that stays. ``removed`` and ``refused``: what became of it.
    """

    kind: Kind
    path: str | None
    pin: Pin | None = None
    link: LinkInfo | None = None
    prog: ProgramInfo | None = None
    prog_id: int | None = None
    reason: Reason | None = None
    place: Place | None = None
    entry: Entry | None = None
    first: Entry | None = None
    folder: str | None = None
    removed: bool = False
    refused: NetbpfError | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What ``find`` saw; ``unseen`` are pins of live links in a namespace that nothing leads to."""

    garbage: tuple[Garbage, ...]
    unseen: tuple[Pin, ...] = ()


def find(*, everybodys: bool = False, left_out: LeftOut | None = None) -> Found:
    """Look for what was left behind, and change nothing.

    Only netbpf's own: what is pinned below its folder. A chain may well run a program twice with
    other settings: see ``same_program``. What is newer than ten seconds may be on its way to its
    use, so such a folder, and such a pin of a program, is left out.

    :param everybodys: defunct pins and doubles of others too. Their other pins and folders are
        never called garbage: nobody but they can tell what a program waits for.
    :param left_out: told of each namespace that may not be entered; None raises.
    :raises BpfError, KernelError: not permitted to look.
    """
    bpffs.check_readable()
    seen = list(pins.scan(own=not everybodys))
    linked = [(pin, pin.link) for pin in seen if pin.link is not None]
    live = [(pin, link) for pin, link in linked if not link.defunct]
    own_progs = [pin for pin in seen if pin.own and pin.kind == Program.kind]
    wanted = {spot for _, link in live if (spot := places.spot_of(link))}
    everything = everybodys or bool(own_progs)
    by_link: dict[int, Pin] = {}
    for pin, _ in live:
        if pin.own or pin.id not in by_link:
            by_link[pin.id] = pin
    garbage = _defunct([(pin, link) for pin, link in linked if link.defunct])
    placed: set[int | None] = set()
    running: set[int] = set()
    for place in places.chains(None if everything else wanted, left_out):
        placed |= {entry.link_id for entry in place.chain.entries}
        running |= {entry.prog_id for entry in place.chain.entries}
        garbage += _doubles(place, by_link, everybodys)
        garbage += _unfinished(place, by_link)
    if own_progs:
        running |= {info.prog_id for info in _all_links()}
        garbage += _in_no_chain(own_progs, running)
    garbage += _empty_folders()
    unseen = [
        pin for pin, link in live if pin.own and places.spot_of(link) and pin.id not in placed
    ]
    return Found(tuple(garbage), tuple(unseen))


def remove(found: Iterable[Garbage]) -> list[Garbage]:
    """Remove what ``find`` found, as far as it still is garbage; each with what became of it.

    Called in the namespace where ``find`` was.
    Of doubles only those that netbpf's own pins alone hold are detached. What cannot be removed
    says why in ``refused``, and the others are removed all the same.
    """
    done = []
    # Folders come last: by then they may be empty, or gone with the last pin in them.
    for each in sorted(found, key=lambda each: each.kind == "empty_folder"):
        try:
            done.append(replace(each, removed=_REMOVERS[each.kind](each)))
        except NetbpfError as error:
            done.append(replace(each, refused=error))
    return done


def _defunct(linked: list[tuple[Pin, LinkInfo]]) -> list[Garbage]:
    names = {pin.id: name for pin, _ in linked if (name := pin.name) is not None}
    reasons = places.reasons(names)
    return [
        Garbage(
            "defunct_pin",
            pin.shown,
            pin=pin,
            link=link,
            prog=program_info(link.prog_id),
            prog_id=link.prog_id,
            reason=reasons.get(pin.id),
        )
        for pin, link in linked
    ]


def _doubles(place: Place, own: dict[int, Pin], everybodys: bool) -> Iterator[Garbage]:
    """Each entry that runs what an earlier one runs already; what runs first stays."""
    kept: list[tuple[Entry, ProgramInfo]] = []
    for entry in place.chain.entries:
        pin = own.get(entry.link_id or 0)
        if not everybodys and (pin is None or not pin.own):
            continue
        info = program_info(entry.prog_id)
        if info is None or move_rest.is_placeholder(entry):
            continue
        first = next((each for each, other in kept if same_program(other, info)), None)
        if first is None:
            kept.append((entry, info))
            continue
        yield Garbage(
            "double",
            pin.shown if pin else None,
            pin=pin,
            link=pin.link if pin else None,
            prog=info,
            prog_id=entry.prog_id,
            place=place,
            entry=entry,
            first=first,
        )


def _unfinished(place: Place, own: dict[int, Pin]) -> Iterator[Garbage]:
    """What a move that was killed, or that goes on at this moment, has not put right."""
    for entry in place.chain.entries:
        pin = own.get(entry.link_id or 0)
        beside = pin is not None and pin.own and pin.path.endswith(move_rest.BESIDE)
        if beside or move_rest.is_placeholder(entry):
            yield Garbage(
                "unfinished_move",
                pin.shown if pin else None,
                pin=pin,
                link=pin.link if pin else None,
                prog=program_info(entry.prog_id),
                prog_id=entry.prog_id,
                place=place,
                entry=entry,
            )


def _in_no_chain(progs: list[Pin], running: set[int]) -> Iterator[Garbage]:
    for pin in progs:
        info = program_info(pin.id)
        # Only of what hangs in chains can be said that it is in none.
        if info is None or info.type != uapi.BPF_PROG_TYPE_SCHED_CLS or pin.id in running:
            continue
        if not _fresh(pin.path):
            yield Garbage("no_chain", pin.shown, pin=pin, prog=info, prog_id=pin.id)


def _empty_folders() -> Iterator[Garbage]:
    for fs in pins.own_folders():
        folders = pins.empty_folders(fs.folder)
        if not folders and not os.listdir(fs.folder):
            folders = [fs.folder]
        for folder in folders:
            if not _fresh(folder):
                shown = fs.shown + folder[len(fs.path) :]
                yield Garbage("empty_folder", shown, folder=folder)


def _all_links() -> Iterator[LinkInfo]:
    for number in Link.ids():
        try:
            with Link.from_id(number) as link:
                yield link.info()
        except NotFoundError:
            # It went while we looked around.
            continue


def _fresh(path: str) -> bool:
    try:
        return 0 <= time.time() - os.lstat(path).st_mtime < _FRESH
    except OSError:
        return True


def _remove_pin(each: Garbage) -> bool:
    assert each.pin is not None
    return pins.remove_exactly(each.pin)


def _remove_folder(each: Garbage) -> bool:
    assert each.folder is not None
    try:
        os.rmdir(each.folder)
    except FileNotFoundError:
        return False
    except OSError:
        # Somebody put something into it.
        return False
    return True


def _remove_double(each: Garbage) -> bool:
    """Detach the later one of two, if both still run and nobody but netbpf's own pins hold it."""
    assert each.place is not None and each.entry is not None and each.first is not None
    link_id = each.entry.link_id
    if link_id is None or each.pin is None or not each.pin.own:
        return False
    held = holders(link_id)
    foreign = [pin.shown for pin in held.pins if not pin.own]
    foreign += [f"{owner.comm}[{owner.pid}]" for owner in held.owners]
    if foreign or not held.pins:
        raise ConflictError(
            f"link:{link_id} is not netbpf's alone",
            hint=f"it is held by {', '.join(foreign)}" if foreign else None,
        )
    try:
        with Link.from_id(link_id) as link, _there(each.place):
            chain = places.HOOKS[each.place.kind].chain(
                each.place.chain.ifindex, each.place.chain.hook
            )
            now = {(entry.prog_id, entry.link_id) for entry in chain.entries}
            if not {(e.prog_id, e.link_id) for e in (each.first, each.entry)} <= now:
                return False
            link.detach()
    except NotFoundError:
        return False
    for pin in held.pins:
        pins.remove_exactly(pin)
    return True


def _finish_move(each: Garbage) -> bool:
    """Finish it or take it back; one that goes on is waited for."""
    assert each.place is not None
    hooks, chain = places.HOOKS[each.place.kind], each.place.chain
    try:
        with _there(each.place), alone("gc"):
            return move_rest.clear(hooks, hooks.chain(chain.ifindex, chain.hook))
    except NotFoundError:
        return False


@contextmanager
def _there(place: Place) -> Iterator[None]:
    if place.netns is None:
        yield
        return
    with place.namespace.open() as ns, entered(ns):
        yield


_REMOVERS = {
    "defunct_pin": _remove_pin,
    "no_chain": _remove_pin,
    "empty_folder": _remove_folder,
    "double": _remove_double,
    "unfinished_move": _finish_move,
}
