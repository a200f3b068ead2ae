"""Attaching programs to a network namespace itself: its flow dissector and its sk_lookup.

Since Linux 5.8 and 5.9 (kernel/bpf/net_namespace.c). A link does not keep its namespace alive: it
is defunct once that has gone. Links of sk_lookup run in the order in which they were attached, and
the kernel takes no other; a namespace has one flow dissector.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass

from netbpf.bpf import chain, link_create, syscall, uapi
from netbpf.bpf.chain import Entry, Target
from netbpf.bpf.fd import FD
from netbpf.bpf.link import Link
from netbpf.bpf.macros import BPF_F_REPLACE
from netbpf.bpf.prog import Program
from netbpf.errors import BpfError, ConflictError, NetbpfError, NotFoundError
from netbpf.netns import link_refusal
from netbpf.netns.enter import entered
from netbpf.netns.handle import NetNS
from netbpf.netns.hooks import Attached, NetnsHook, hook_of, links_by_place, matched, program_ids
from netbpf.netns.link_refusal import Situation

__all__ = ["Attached", "Placed", "Removed", "attach", "attached", "detach", "update"]

_TRIES = 8


@dataclass(frozen=True, slots=True)
class Placed:
    """What an attach or update made.

    ``position`` is read back afterwards: None when somebody else took the program out again by
    then, and where it may not be read or others keep changing what hangs there. ``link`` is open
    and the caller's: closed without a pin, it takes the program with it.
    """

    inode: int
    hook: str
    position: int | None
    prog_id: int
    link_id: int | None
    link: Link | None = None
    old_prog_id: int | None = None


@dataclass(frozen=True, slots=True)
class Removed:
    """What a detach took out."""

    inode: int
    hook: str
    entry: Entry


def attached(ns: NetNS, hook: str) -> Attached:
    """What hangs at the namespace's hook. Needs CAP_NET_ADMIN, and CAP_SYS_ADMIN for the links.

    :raises BpfError: not permitted. :raises NotSupportedError: the kernel has no such hook.
    """
    place = hook_of(hook)
    for _ in range(_TRIES):
        try:
            before = program_ids(ns, place)
            links = links_by_place() if before else {}
            after = program_ids(ns, place)
        except OSError as error:
            raise link_refusal.of_query(place, ns, error) from error
        found = matched(ns.inode, place, before, links)
        whole = place.direct or all(entry.link_id for entry in found.entries)
        if before == after and whole:
            return found
    raise BpfError(
        f"read {hook} of {ns}", errno.EAGAIN, "others keep changing it", hint="try again"
    )


def attach(ns: NetNS, hook: str, prog: Program, *, link: bool = True) -> Placed:
    """Attach ``prog`` to the namespace; the last of its sk_lookups, or its only flow dissector.

    :param link: by a bpf_link, which is returned open and whose closing detaches; False attaches a
        flow dissector directly, until it is detached or the namespace ends. The calling thread
        enters the namespace for that.
    :raises BpfError: the kernel refused; the message holds the condition.
    :raises ConflictError: another flow dissector is attached directly. The kernel would exchange
        it without a word; ``update`` does.
    :raises ValueError: the hook takes links only.
    """
    place = hook_of(hook)
    _check(prog)
    if not link and not place.direct:
        raise ValueError(f"{hook} takes links only: the kernel attaches no program there by itself")
    if not link:
        _check_direct(ns, attached(ns, hook), prog.id)
        _attach_directly(place, ns, prog, "attach to")
        return _placed(place, ns, prog, None)
    made = _create(place, ns, prog)
    try:
        return _placed(place, ns, prog, made)
    except BaseException:
        made.close()
        raise


def check_attach(ns: NetNS, hook: str, prog_id: int | None, *, link: bool = True) -> int:
    """The position at which an attach would land, with nothing changed.

    :param prog_id: the program's, where it is loaded already.
    :raises BpfError, ConflictError: what it would be refused with.
    """
    place = hook_of(hook)
    state = attached(ns, hook)
    if not link:
        _check_direct(ns, state, prog_id)
    info = chain.program_info(prog_id) if prog_id is not None else None
    if error := link_refusal.foreseen(Situation(place, ns, state, info, link)):
        raise error
    return len(state.entries)


def detach(
    ns: NetNS, hook: str, target: Target, *, let_go: Callable[[int], None] | None = None
) -> Removed:
    """Take what ``target`` names away from the namespace, never anything else.

    A link is detached, whoever else holds it: it becomes defunct and its pins stay.

    :param let_go: called with a link's id right before that, to remove the pins that are not to
        outlive it: killed in between, the link ends by itself.
    :raises NotFoundError, AmbiguousError: what was named is not there, or not one.
    :raises BpfError: the kernel refused.
    """
    place = hook_of(hook)
    entry = attached(ns, hook).find(target)
    if entry.link_id is not None:
        with Link.from_id(entry.link_id) as owner:
            if let_go is not None:
                let_go(entry.link_id)
            owner.detach()
        return Removed(ns.inode, hook, entry)
    with Program.from_id(entry.prog_id) as prog:
        attr = uapi.ProgAttachAttr(attach_type=place.attach_type)
        attr.attach_bpf_fd = prog.fileno()
        try:
            with entered(ns):
                syscall.prog_detach(attr)
        except OSError as error:
            raise _refused(place, ns, "detach from", error, None) from error
    return Removed(ns.inode, hook, entry)


def update(
    ns: NetNS, hook: str, target: Target, prog: Program, *, old: Target | None = None
) -> Placed:
    """Put ``prog`` in the place of what ``target`` names, with nothing unserved in between.

    A link's program is exchanged under the link, only if it is the one that was read. Of a flow
    dissector that hangs there directly the kernel checks nothing: one that somebody attaches
    between the look and the change is exchanged too.

    :param old: refuse unless the place is held by this.
    :raises ConflictError: something else than ``old`` holds the place.
    :raises NotFoundError, AmbiguousError, BpfError: as for ``detach``.
    """
    place = hook_of(hook)
    _check(prog)
    for attempt in range(_TRIES):
        entry = check_update(ns, hook, target, old=old)
        if entry.link_id is None:
            _attach_directly(place, ns, prog, "update")
            return _placed(place, ns, prog, None, entry)
        try:
            with Program.from_id(entry.prog_id) as current, Link.from_id(entry.link_id) as owner:
                syscall.link_update(owner.fileno(), prog.fileno(), current.fileno(), BPF_F_REPLACE)
            return _placed(place, ns, prog, None, entry)
        except NotFoundError:
            # The program was exchanged and freed meanwhile, or the link has gone: look again.
            if attempt == _TRIES - 1:
                raise
        except OSError as error:
            # Somebody else exchanged it between the look and this: look again.
            if error.errno == errno.EPERM and attempt < _TRIES - 1:
                continue
            raise _refused(place, ns, "update", error, prog) from error
    raise AssertionError("the last try returns or raises")


def check_update(ns: NetNS, hook: str, target: Target, *, old: Target | None = None) -> Entry:
    """The entry that an update would change, with nothing changed.

    :raises ConflictError, NotFoundError, AmbiguousError, BpfError: as ``update`` would.
    """
    entry = attached(ns, hook).find(target)
    if old is not None and not chain.matcher(old)(entry):
        raise ConflictError(f"the place is held by {entry}", hint="look again, then decide")
    return entry


def _check_direct(ns: NetNS, state: Attached, prog_id: int | None) -> None:
    there = state.direct
    if there is not None and there.prog_id != prog_id:
        raise ConflictError(
            f"attach to {ns} {state.hook}: {there} is attached there directly",
            hint="`netbpf netns update` exchanges it; or detach it",
            code="exists",
        )


def _create(place: NetnsHook, ns: NetNS, prog: Program) -> Link:
    try:
        return Link(FD(link_create.netns(prog.fileno(), ns.fileno(), place.attach_type)))
    except OSError as error:
        raise _refused(place, ns, "attach to", error, prog) from error


def _attach_directly(place: NetnsHook, ns: NetNS, prog: Program, verb: str) -> None:
    # The kernel takes the namespace of the caller: the target has to be 0.
    attr = uapi.ProgAttachAttr(attach_type=place.attach_type)
    attr.attach_bpf_fd = prog.fileno()
    try:
        with entered(ns):
            syscall.prog_attach(attr)
    except OSError as error:
        raise _refused(place, ns, verb, error, prog, link=False) from error


def _refused(
    place: NetnsHook,
    ns: NetNS,
    verb: str,
    error: OSError,
    prog: Program | None,
    *,
    link: bool = True,
) -> NetbpfError:
    try:
        state = attached(ns, place.name)
    except NetbpfError:
        state = None
    info = prog.info() if prog is not None else None
    situation = Situation(place, ns, state, info, link)
    return link_refusal.of_change(verb, error.errno or errno.EIO, situation)


def _placed(
    place: NetnsHook, ns: NetNS, prog: Program, link: Link | None, old: Entry | None = None
) -> Placed:
    link_id = link.id if link is not None else (old.link_id if old is not None else None)
    try:
        state = attached(ns, place.name)
        entry = state.with_link(link_id) if link_id is not None else state.direct
    except BpfError as error:
        if error.errno not in (errno.EPERM, errno.EAGAIN):
            raise
        entry = None
    return Placed(
        inode=ns.inode,
        hook=place.name,
        position=entry.position if entry is not None else None,
        prog_id=prog.id,
        link_id=link_id,
        link=link,
        old_prog_id=old.prog_id if old is not None else None,
    )


def _check(prog: object) -> None:
    if not isinstance(prog, Program):
        raise TypeError(f"{prog!r} is no Program: load it first")
