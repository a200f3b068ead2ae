"""Why the kernel refused a change to a chain.

Attach, detach, update and query give a bare errno. Which of its conditions held is found by
looking: at the chain, at the program, at the device.
"""

from __future__ import annotations

import errno
import socket

from netbpf.bpf.anchor import Anchor
from netbpf.bpf.chain import Chain
from netbpf.bpf.chain_change import change
from netbpf.bpf.hook import Hook, query
from netbpf.bpf.mprog_conditions import MAX_PROGRAMS, NEEDS_ADMIN, Situation, holding
from netbpf.bpf.prog import Program, ProgramInfo
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
    hook: Hook, chain: Chain, anchor: Anchor, prog: ProgramInfo | None = None
) -> BpfError | None:
    """What the kernel will refuse an attach to ``chain`` with; None when it will not.

    :param prog: the program, where it is loaded already.
    """
    landing = anchor.land(chain)
    replaced = landing.replaced
    if prog is not None and chain.with_program(prog.id):
        number = errno.EEXIST
    elif replaced is not None and replaced.link_id is not None:
        number = errno.EBUSY
    elif anchor.disagreement(chain):
        number = errno.ERANGE
    elif replaced is None and len(chain.entries) >= MAX_PROGRAMS:
        number = errno.ERANGE
    else:
        return None
    what = operation("attach to", hook, chain.ifindex)
    return _refusal("attach", what, number, Situation(hook, chain, prog, anchor))


def _refusal(verb: str, what: str, number: int, situation: Situation) -> BpfError:
    found = holding(verb, number, situation)
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
