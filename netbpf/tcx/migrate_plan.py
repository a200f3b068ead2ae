"""What can change between clsact and tcx and keep its meaning, and why something cannot.

tcx runs before clsact, sees packets of every protocol and knows verdicts only. So the cls_bpf
filters of a hook move all or none, and only where they stand before every other filter, look at
all protocols, and are in direct-action mode.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from netbpf.bpf import pin as pins
from netbpf.bpf.chain import Chain, Entry
from netbpf.bpf.mprog_refusal import device_name
from netbpf.bpf.pin import Pin
from netbpf.bpf.prog import Program
from netbpf.errors import ConflictError, NetbpfError
from netbpf.netlink import filters
from netbpf.netlink.filters import ETH_P_ALL, Filter
from netbpf.netlink.rtnl import Rtnl
from netbpf.tcx import HOOKS

_MAX_PROGRAMS = 63
_NAME_MAX = 70
"""Bytes of a filter's name that a pin's name has room for, at two digits each."""

_MARK = re.compile(r"(?:ingress|egress)-clsact-([0-9]+)-([0-9a-f]+)(h?)(?:-((?:[0-9a-f]{2})+))?")


@dataclass(frozen=True, slots=True)
class Move:
    """One program that changes sides.

    ``position`` is the one that it comes to have: in the tcx chain, or among the filters.
    ``filter`` is the one that it was or becomes, ``link_id`` the tcx link that it is or was; None
    before it is made. ``half``: it is at both already, as a migration that was killed leaves it.
    """

    position: int
    prog_id: int
    prog_name: str
    filter: Filter
    link_id: int | None = None
    pins: tuple[str, ...] = ()
    half: bool = False


@dataclass(frozen=True, slots=True)
class Migration:
    """What moves at one hook, in the order in which it runs; ``revision`` is the tcx chain's.

    ``warnings`` tell which programs can return what means something else at tcx.
    """

    ifindex: int
    hook: str
    to: Literal["tcx", "clsact"]
    revision: int
    moves: tuple[Move, ...]
    warnings: tuple[str, ...] = ()


def mark(hook: str, origin: Filter) -> str:
    """The hook in the name of a migrated link's own pin: it says which filter the link was."""
    name = (origin.name or "").encode(errors="surrogateescape")
    written = f"-{name.hex()}" if 0 < len(name) <= _NAME_MAX else ""
    hardware = "h" if origin.skip_hw else ""
    return f"{hook}-clsact-{origin.priority}-{origin.handle:x}{hardware}{written}"


def marked(path: str, ifindex: int, hook: str) -> Filter | None:
    """The filter that the name of a pin tells of; None where the pin is of no migrated link."""
    parts = path.rpartition("/")[2].split("_")
    match = _MARK.fullmatch(parts[3]) if len(parts) == 6 else None
    if match is None:
        return None
    name = bytes.fromhex(match[4] or "").decode(errors="surrogateescape")
    return Filter(
        ifindex=ifindex,
        hook=hook,
        kind="bpf",
        protocol=ETH_P_ALL,
        priority=int(match[1]),
        chain=0,
        handle=int(match[2], 16),
        name=name or None,
        direct_action=True,
        skip_hw=bool(match[3]),
    )


def to_tcx(ifindex: int, hook: str, *, rtnl: Rtnl | None = None) -> Migration:
    """What ``migrate`` would do at this hook; without cls_bpf filters there, nothing.

    :raises NetbpfError: some of the filters cannot become tcx programs; the message has each.
    """
    chain = HOOKS.chain(ifindex, hook)
    there = filters.filters(ifindex, hook, rtnl=rtnl)
    going = [each for each in there if not each.foreign]
    if not going:
        return Migration(ifindex, hook, "tcx", chain.revision, ())
    halves = _halves(chain, going)
    moves = []
    position = len(chain.entries)
    for each in going:
        prog_id = each.prog_id or 0
        entry = halves.get(prog_id)
        moves.append(
            Move(
                position=position if entry is None else entry.position,
                prog_id=prog_id,
                prog_name=_name(prog_id),
                filter=each,
                link_id=entry.link_id if entry else None,
                half=entry is not None,
            )
        )
        position += entry is None
    obstacles = _obstacles(there, chain, halves)
    if position > _MAX_PROGRAMS:
        obstacles.append(f"the tcx chain would hold {position} programs, and has room for 63")
    if obstacles:
        raise NetbpfError(
            f"migrate {device_name(ifindex)} {hook}: {'; '.join(obstacles)}",
            code="not_migratable",
            hint="nothing was changed: the filters of a hook move all or none",
        )
    return Migration(ifindex, hook, "tcx", chain.revision, tuple(moves), _warnings(chain, moves))


def to_clsact(ifindex: int, hook: str, *, rtnl: Rtnl | None = None) -> Migration:
    """What ``back`` would do at this hook: the links that ``migrate`` made become filters.

    Which these are is written in their own pins' names. Each gets its filter's priority, handle and
    name again where that keeps the order before the filters that are there now, else others.

    :raises NetbpfError: there is no clsact, or a shared one.
    :raises ConflictError: other programs stand behind one of them, or no priority is free.
    """
    chain = HOOKS.chain(ifindex, hook)
    origins = _migrated(chain)
    if not origins:
        return Migration(ifindex, hook, "clsact", chain.revision, ())
    place = f"{device_name(ifindex)} {hook}"
    qdisc = filters.with_clsact(rtnl=rtnl).get(ifindex)
    if qdisc is None or not qdisc.has(hook):
        raise NetbpfError(
            f"migrate {place} back: there is no clsact to go to",
            code="no_clsact",
            hint=f"tc qdisc add dev {device_name(ifindex)} clsact",
        )
    if (block := qdisc.block(hook)) is not None:
        raise NetbpfError(
            f"migrate {place} back: its filters are in block {block}, which other devices share",
            code="not_migratable",
        )
    first = min(entry.position for entry, _, _ in origins)
    behind = [e for e in chain.entries[first:] if e not in [entry for entry, _, _ in origins]]
    if behind:
        raise ConflictError(
            f"migrate {place} back: {', '.join(map(str, behind))} stands behind "
            f"{chain.entries[first]}, and would run before it",
            hint="clsact runs after tcx: move it to the front first (netbpf tcx move)",
        )
    there = filters.filters(ifindex, hook, rtnl=rtnl)
    # An earlier one was killed: its last program is at both sides, the first that clsact runs.
    half = there[0] if there and there[0].prog_id == origins[-1][0].prog_id else None
    if half is not None and _reasons(half):
        half = None
    wanted = [origin for _, origin, _ in origins]
    places = [*_places(wanted[:-1], there), half] if half else _places(wanted, there)
    moves = [
        Move(
            position=number,
            prog_id=entry.prog_id,
            prog_name=_name(entry.prog_id),
            filter=replace(filter, prog_id=entry.prog_id),
            link_id=entry.link_id,
            pins=tuple(pin.shown for pin in found if pin.own),
            half=filter is half,
        )
        for number, ((entry, _, found), filter) in enumerate(zip(origins, places, strict=True))
    ]
    warnings = [
        f"{pin.shown} goes on pinning link:{entry.link_id}, which becomes defunct"
        for entry, _, found in origins
        for pin in found
        if not pin.own
    ]
    return Migration(ifindex, hook, "clsact", chain.revision, tuple(moves), tuple(warnings))


def own_pins(link_id: int) -> list[Pin]:
    """netbpf's own pins of a link."""
    return [pin for pin in pins.scan(own=True) if pin.link is not None and pin.id == link_id]


def _obstacles(there: Sequence[Filter], chain: Chain, halves: dict[int, Entry]) -> list[str]:
    """Why filters cannot become tcx programs that mean the same, a sentence for each."""
    times = Counter(each.prog_id or 0 for each in there)
    del times[0]
    told: list[str] = []
    foreign = None
    for each in there:
        if each.foreign:
            foreign = foreign or each
            continue
        why = list(_reasons(each))
        if each.chain == 0 and foreign is not None:
            why.append(f"it stands behind {foreign}, which stays, and would overtake it")
        if times[each.prog_id or 0] > 1:
            why.append("its program is in several filters, and can be in a tcx chain only once")
        entry = chain.with_program(each.prog_id or 0)
        if entry is not None and each.prog_id not in halves:
            why.append(f"its program is in the tcx chain already, at position {entry.position}")
        if why:
            told.append(f"{each}: {', and '.join(why)}")
    return told


def _reasons(each: Filter) -> list[str]:
    reasons = []
    if each.prog_id is None:
        reasons.append("it is classic BPF")
    elif not each.direct_action:
        reasons.append("it only classifies (it is not in direct-action mode)")
    if each.protocol != ETH_P_ALL:
        reasons.append(
            f"it sees packets of protocol {each.protocol_name} only, and at tcx it would see all"
        )
    if each.chain:
        reasons.append(f"it is in chain {each.chain}, which only other filters lead to")
    if each.block is not None:
        reasons.append(f"it is in block {each.block}, which other devices share")
    if each.classid:
        reasons.append(f"it has classid {each.classid >> 16:x}:{each.classid & 0xFFFF:x}")
    if each.actions:
        reasons.append("it has actions")
    if each.skip_sw or each.in_hw:
        reasons.append("it runs in hardware")
    return reasons


def _halves(chain: Chain, going: Sequence[Filter]) -> dict[int, Entry]:
    """By program: entries that stand for one of these filters, which is still there."""
    there = {each.prog_id: (each.priority, each.handle) for each in going}
    if not any(entry.prog_id in there for entry in chain.entries):
        return {}
    return {
        entry.prog_id: entry
        for entry, origin, _ in _migrated(chain)
        if there.get(entry.prog_id) == (origin.priority, origin.handle)
    }


def _migrated(chain: Chain) -> list[tuple[Entry, Filter, list[Pin]]]:
    """The entries whose links were filters, with what those were, and the links' pins."""
    if not any(entry.link_id for entry in chain.entries):
        return []
    by_link: dict[int, list[Pin]] = {}
    for pin in pins.scan():
        if pin.link is not None:
            by_link.setdefault(pin.id, []).append(pin)
    found = []
    for entry in chain.entries:
        held = by_link.get(entry.link_id or 0, [])
        for pin in held:
            origin = marked(pin.path, chain.ifindex, chain.hook) if pin.own else None
            if origin is not None:
                found.append((entry, origin, held))
                break
    return found


def _places(wanted: Sequence[Filter], there: Sequence[Filter]) -> list[Filter]:
    """``wanted``, with priorities and handles that run them in this order, and before ``there``.

    They are made last first: among filters of one priority the newest runs first.

    :raises ConflictError: no priority is left before those that are there.
    """
    present = [each for each in there if each.chain == 0]
    taken = {(each.priority, each.handle) for each in present}
    # A priority belongs to one kind and protocol; one of cls_bpf for all can be joined.
    bound, joinable = 1 << 16, False
    if present:
        bound = present[0].priority
        joinable = not present[0].foreign and present[0].protocol == ETH_P_ALL
    reserved = {(each.priority, each.handle) for each in wanted}
    made: list[Filter] = []
    for each in reversed(wanted):
        fits = each.priority < bound or (each.priority == bound and joinable)
        priority = each.priority if fits else (bound if joinable else bound - 1)
        if priority < 1:
            raise ConflictError(
                f"no priority is left before {present[0]}", hint="give that filter a higher one"
            )
        handle = each.handle
        if not fits or (priority, handle) in taken:
            handle = next(
                number for number in range(1, 1 << 16) if (priority, number) not in taken | reserved
            )
        taken.add((priority, handle))
        made.insert(0, replace(each, priority=priority, handle=handle))
        bound, joinable = priority, True
    return made


def _name(prog_id: int) -> str:
    info = Entry(0, prog_id, None).program() if prog_id else None
    return info.name if info else ""


def _warnings(chain: Chain, moves: Sequence[Move]) -> tuple[str, ...]:
    """What these programs, and those before them, can return that means something else at tcx."""
    there = {move.prog_id for move in moves if move.half}
    before = [entry for entry in chain.entries if entry.prog_id not in there]
    told = [
        f"{entry}, which stands before them, {what}: cls_bpf ran after it all the same"
        for entry in before
        for what in _strange(entry.prog_id, chain.hook)
    ]
    told += [
        f"{move.prog_name} (id:{move.prog_id}) {what}; to cls_bpf STOLEN and TRAP end a packet, "
        "and all else goes on to the next filter"
        for move in moves
        for what in _strange(move.prog_id, chain.hook)
    ]
    return tuple(told)


@lru_cache(maxsize=256)
def _strange(prog_id: int, hook: str) -> tuple[str, ...]:
    """The codes that the program returns for certain on some path and that tcx does not know."""
    from netbpf.lint import rules as lint

    try:
        with Program.from_id(prog_id) as prog:
            found = lint.warnings(prog, HOOKS.hook(hook))
    except NetbpfError:
        # What cannot be looked into moves all the same.
        return ()
    return tuple(each.message for each in found if each.code in ("not_a_verdict", "unknown_code"))
