"""Why the kernel refused a change to a chain.

Attach, detach, update and query give a bare errno. Which of its conditions held is found by
looking: at the chain, at the program, at the device.
"""

from __future__ import annotations

import errno
import socket

from netbpf.bpf.chain import Chain
from netbpf.bpf.hook import Hook, query
from netbpf.bpf.prog import Program
from netbpf.errors import (
    BpfError,
    NetbpfError,
    NotFoundError,
    NotSupportedError,
    StaleRevisionError,
)

MAX_PROGRAMS = 63
"""The kernel's limit for one chain (include/linux/bpf_mprog.h: bpf_mprog_max)."""

_NEEDS_ADMIN = "needs CAP_NET_ADMIN in the initial user namespace (run as root)"


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
        return BpfError(what, number, "not permitted", hint=_NEEDS_ADMIN)
    return _of_device(hook, ifindex, what, number) or BpfError(what, number)


def of_change(
    hook: Hook,
    ifindex: int,
    verb: str,
    error: OSError,
    prog: Program | None,
    expected: int | None,
) -> NetbpfError:
    """Why a chain could not be changed; ``prog`` is the program that was to go in."""
    number = error.errno or errno.EIO
    what = operation(verb, hook, ifindex)
    if known := _of_device(hook, ifindex, what, number):
        return known
    try:
        chain = query(ifindex, hook)
    except OSError as unreadable:
        if unreadable.errno != errno.EPERM:
            return of_query(hook, ifindex, unreadable)
        chain = Chain(ifindex, hook.name, 0, ())
    if number == errno.ESTALE:
        return stale(hook, ifindex, verb, expected, chain)
    reason, hint, code = _condition(hook, number, chain, prog)
    return BpfError(what, number, reason, hint=hint, code=code)


def stale(
    hook: Hook, ifindex: int, verb: str, expected: int | None, chain: Chain
) -> StaleRevisionError:
    """The chain is not at the revision that was expected."""
    error = StaleRevisionError(
        operation(verb, hook, ifindex), expected=expected, current=chain.revision or None
    )
    if not chain.entries and hook.member == "netkit":
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


def _condition(
    hook: Hook, number: int, chain: Chain, prog: Program | None
) -> tuple[str | None, str | None, str | None]:
    """Reason, hint and code: the conditions of kernel/bpf/mprog.c, tcx.c and syscall.c."""
    match number:
        case errno.EEXIST:
            entry = chain.with_program(prog.id) if prog else None
            where = f" at position {entry.position}" if entry else ""
            return f"already in the chain{where}", "load it again to run it twice", None
        case errno.EBUSY:
            return (
                "a link owns that place, and only the link may change it",
                "update it instead: that keeps the link and exchanges its program",
                None,
            )
        case errno.ERANGE if len(chain.entries) >= MAX_PROGRAMS:
            return f"the chain is full: it holds {MAX_PROGRAMS} programs", None, "chain_full"
        case errno.ERANGE:
            return "the positions asked for disagree", "ask for one of them", "position"
        case errno.ENOENT:
            return "what was named left the chain meanwhile", "look again, then decide", None
        case errno.ENOLINK:
            return "the link is defunct: its device is gone or it was detached", None, None
        case errno.EPERM if prog is not None and chain.revision:
            # Attaching asks for no capability; a link's update says EPERM to a stale old program.
            return (
                "another program took the place meanwhile",
                "look again, then decide",
                "replaced_meanwhile",
            )
        case errno.EPERM:
            return "not permitted", _NEEDS_ADMIN, None
        case errno.EINVAL if prog is not None and prog.info().type_name != "sched_cls":
            info = prog.info()
            return (
                f"{hook.name} runs programs of type sched_cls, and {info.name or 'this one'} is of "
                f"type {info.type_name}",
                f'compile it with SEC("{hook.member}/{hook.name}")',
                "wrong_program_type",
            )
    return None, None, None
