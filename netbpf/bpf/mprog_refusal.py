"""Why the kernel refused a change to a chain.

Attach, detach, update and query give a bare errno. Which of its conditions held is found by
looking: at the chain, at the program, at the device.
"""

from __future__ import annotations

import errno
import socket

from netbpf.bpf.anchor import Anchor
from netbpf.bpf.chain import Chain, Entry, program_info
from netbpf.bpf.chain_change import change
from netbpf.bpf.hook import Hook, query
from netbpf.bpf.mprog_conditions import MAX_PROGRAMS, NEEDS_ADMIN, ROWS, Situation
from netbpf.bpf.prog import Program
from netbpf.conditions import holding
from netbpf.errors import (
    BpfError,
    NetbpfError,
    NotFoundError,
    NotSupportedError,
    StaleRevisionError,
)


def device_name(ifindex: int) -> str:
    """The device's name in the caller's namespace, ``ifindex N`` when it has none there."""
    try:
        return socket.if_indextoname(ifindex)
    except (OSError, OverflowError):
        return f"ifindex {ifindex}"


def operation(verb: str, hook: Hook, ifindex: int) -> str:
    """``attach to eth0 ingress``."""
    return f"{verb} {device_name(ifindex)} {hook.name}"


def of_query(hook: Hook, ifindex: int, error: OSError) -> NetbpfError:
    """Why a chain could not be read."""
    number = error.errno or errno.EIO
    what = operation("read the chain of", hook, ifindex)
    if number == errno.EINVAL:
        # The flags were 0, so it is the attach type that the kernel does not know.
        return NotSupportedError(hook.member, since=hook.since, config=hook.config)
    if number == errno.EPERM:
        return BpfError(what, number, "not permitted", hint=NEEDS_ADMIN)
    return _of_device(hook, ifindex, what, number) or BpfError(what, number)


def of_change(
    hook: Hook,
    ifindex: int,
    verb: str,
    error: OSError,
    prog: Program | None,
    expected: int | Chain | None,
    anchor: Anchor | None = None,
) -> NetbpfError:
    """Why a chain could not be changed; ``prog`` is the program that was to go in."""
    number = error.errno or errno.EIO
    what = operation(verb, hook, ifindex)
    if known := _of_device(hook, ifindex, what, number):
        return known
    chain = None
    try:
        chain = query(ifindex, hook)
    except OSError as unreadable:
        if unreadable.errno != errno.EPERM:
            return of_query(hook, ifindex, unreadable)
    if number == errno.ESTALE:
        return stale(hook, ifindex, verb, expected, chain)
    situation = Situation(hook, chain, prog.info() if prog else None, anchor)
    # "attach to" and "detach from" are words for people, the table has the bare verbs.
    return _refusal(verb.split()[0], what, number, situation)


def foreseen(
    hook: Hook, chain: Chain, anchor: Anchor, prog_id: int | None = None
) -> BpfError | None:
    """What the kernel will refuse an attach to ``chain`` with; None when it will not.

    :param prog_id: the program's, where it is loaded already.
    """
    replaced = anchor.land(chain).replaced
    number = _of_program(chain, prog_id)
    if number is None and replaced is not None and replaced.link_id is not None:
        number = errno.EBUSY
    if number is None and anchor.disagreement(chain):
        number = errno.ERANGE
    if number is None and replaced is None and len(chain.entries) >= MAX_PROGRAMS:
        number = errno.ERANGE
    return _foreseen(hook, "attach to", number, chain, prog_id, anchor)


def foreseen_update(
    hook: Hook, chain: Chain, entry: Entry, prog_id: int | None = None
) -> BpfError | None:
    """What the kernel will refuse an update of ``entry`` with; None when it will not."""
    number = None if entry.prog_id == prog_id else _of_program(chain, prog_id)
    return _foreseen(hook, "update", number, chain, prog_id, None)


def _of_program(chain: Chain, prog_id: int | None) -> int | None:
    """The errno that a loaded program is refused with, wherever it is to go in the chain."""
    info = program_info(prog_id) if prog_id is not None else None
    if info is None:
        return None
    if info.type_name != "sched_cls":
        return errno.EINVAL
    return errno.EEXIST if chain.with_program(info.id) else None


def _foreseen(
    hook: Hook,
    verb: str,
    number: int | None,
    chain: Chain,
    prog_id: int | None,
    anchor: Anchor | None,
) -> BpfError | None:
    if number is None:
        return None
    info = program_info(prog_id) if prog_id is not None else None
    what = operation(verb, hook, chain.ifindex)
    return _refusal(verb.split()[0], what, number, Situation(hook, chain, info, anchor))


def _refusal(verb: str, what: str, number: int, situation: Situation) -> BpfError:
    found = holding(ROWS, verb, number, situation)
    if found is None:
        return BpfError(what, number)
    row, words = found
    return BpfError(what, number, words, hint=row.hint, code=row.code)


def stale(
    hook: Hook, ifindex: int, verb: str, expected: int | Chain | None, chain: Chain | None
) -> StaleRevisionError:
    """The chain is not at the revision that was expected, and what changed since."""
    error = StaleRevisionError(
        operation(verb, hook, ifindex),
        expected=expected.revision if isinstance(expected, Chain) else expected,
        current=chain.revision or None if chain else None,
        changes=change(expected, chain).phrases()
        if isinstance(expected, Chain) and chain is not None
        else (),
        now=str(chain) if chain is not None else None,
    )
    if chain is not None and not chain.entries and hook.member == "netkit":
        error.hint = "the kernel tells no revision of an empty netkit side: expect 0 there"
    return error


def _of_device(hook: Hook, ifindex: int, what: str, number: int) -> NetbpfError | None:
    if number == errno.ENODEV and number not in hook.refusals:
        return NotFoundError("device", device_name(ifindex), where="in this network namespace")
    if number == errno.ENODEV and device_name(ifindex).startswith("ifindex"):
        return NotFoundError("device", device_name(ifindex), where="in this network namespace")
    if number in hook.refusals:
        reason, hint = hook.refusals[number]
        return BpfError(what, number, reason, hint=hint)
    return None
