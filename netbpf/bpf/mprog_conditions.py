"""The conditions under which the kernel refuses a change to a chain, and which of them holds.

The kernel gives a bare errno. Each row here says in general when it gives it, and looks at the
situation to say whether that is what happened. Read from kernel/bpf/mprog.c, tcx.c and syscall.c.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from netbpf.bpf.anchor import Anchor
from netbpf.bpf.chain import Chain
from netbpf.bpf.hook import Hook
from netbpf.bpf.prog import ProgramInfo
from netbpf.conditions import Row, always

MAX_PROGRAMS = 63
"""The kernel's limit for one chain (include/linux/bpf_mprog.h: bpf_mprog_max)."""

NEEDS_ADMIN = "needs CAP_NET_ADMIN in the initial user namespace (run as root)"


@dataclass(frozen=True, slots=True)
class Situation:
    """What there is to look at once a change was refused.

    ``chain`` is the chain now, None where it may not be read; ``prog`` what was to go in.
    """

    hook: Hook
    chain: Chain | None
    prog: ProgramInfo | None
    anchor: Anchor | None


def _already_there(situation: Situation) -> str:
    entry = None
    if situation.chain is not None and situation.prog is not None:
        entry = situation.chain.with_program(situation.prog.id)
    return "already in the chain" + (f" at position {entry.position}" if entry else "")


def _full(situation: Situation) -> str | None:
    chain = situation.chain
    replaces = situation.anchor is not None and situation.anchor.replace is not None
    if chain is None or replaces or len(chain.entries) < MAX_PROGRAMS:
        return None
    return f"the chain is full: it holds {MAX_PROGRAMS} programs"


def _positions(situation: Situation) -> str:
    words = None
    if situation.anchor is not None and situation.chain is not None:
        words = situation.anchor.disagreement(situation.chain)
    return f"the positions asked for disagree{f': {words}' if words else ''}"


def _replaced_meanwhile(situation: Situation) -> str | None:
    # Attaching asks for no capability, a link's update says EPERM to a stale old program.
    if situation.chain is None:
        return None
    return "another program took the place meanwhile"


def _wrong_type(situation: Situation) -> str | None:
    prog, hook = situation.prog, situation.hook
    if prog is None or prog.type_name == "sched_cls":
        return None
    return (
        f"{hook.name} of {hook.member} runs programs of type sched_cls, and "
        f"{prog.name or 'this one'} is of type {prog.type_name}"
    )


_LOOK = "look again, then decide"

ROWS: tuple[Row[Situation], ...] = (
    Row(
        ("attach", "detach", "update"),
        errno.ESTALE,
        "the chain is not at the expected revision: somebody changed it since it was read",
        "look at the chain again, then decide",
        always("the chain is at another revision"),
    ),
    Row(
        ("attach", "update"),
        errno.EEXIST,
        "the program is in this chain already, and each may be there once",
        "load it again to run it twice",
        _already_there,
    ),
    Row(
        ("attach",),
        errno.EBUSY,
        "what is to be replaced is owned by a link, and only the link may change it",
        "update it instead: that keeps the link and exchanges its program",
        always("a link owns that place, and only the link may change it"),
    ),
    Row(
        ("detach",),
        errno.EBUSY,
        "the program is attached by a link, and only the link can take it out",
        "name the link: link:N",
        always("a link owns that place, and only the link may change it"),
    ),
    Row(
        ("attach",),
        errno.ERANGE,
        f"the chain is full: it holds {MAX_PROGRAMS} programs",
        "replace or update one, or take one out",
        _full,
        code="chain_full",
    ),
    Row(
        ("attach", "detach"),
        errno.ERANGE,
        "two positions were asked for and they disagree: --replace X --before Y holds only where X "
        "stands directly before Y",
        "look at the chain, and ask for one of them",
        _positions,
        code="position",
    ),
    Row(
        ("attach", "detach", "update"),
        errno.ENOENT,
        "the program or link that was named is not in this chain",
        _LOOK,
        always("what was named left the chain meanwhile"),
    ),
    Row(
        ("attach",),
        errno.EAGAIN,
        "the link that was named is still being made",
        "try again",
        always("the link that was named is still being made"),
        source="kernel/bpf/syscall.c",
    ),
    Row(
        ("update",),
        errno.ENOLINK,
        "the link is defunct: its device is gone, or it was detached",
        "attach anew; `netbpf link gc` finds the pins of defunct links",
        always("the link is defunct: its device is gone or it was detached"),
        source="kernel/bpf/tcx.c",
    ),
    Row(
        ("update",),
        errno.EPERM,
        "the link's program is not the one that was named as the old one",
        _LOOK,
        _replaced_meanwhile,
        code="replaced_meanwhile",
        source="kernel/bpf/tcx.c",
    ),
    Row(
        ("show", "detach", "attach", "update"),
        errno.EPERM,
        "reading a chain, finding an object by its id and loading a program need capabilities "
        "(attaching what one holds open needs none)",
        NEEDS_ADMIN,
        always("not permitted"),
        source="kernel/bpf/syscall.c",
    ),
    Row(
        ("attach", "update"),
        errno.EINVAL,
        "the program is of another type than sched_cls",
        'compile it with SEC("tcx/ingress") or SEC("netkit/primary")',
        _wrong_type,
        code="wrong_program_type",
        source="kernel/bpf/syscall.c",
    ),
    Row(
        ("attach", "detach", "update", "show"),
        errno.EINVAL,
        "the kernel has no tcx (before 6.6, or without CONFIG_NET_XGRESS) or no netkit (before "
        "6.7, or without CONFIG_NETKIT)",
        "a newer kernel has it",
        lambda situation: None,
        source="kernel/bpf/syscall.c",
    ),
    Row(
        ("attach", "detach", "update", "show"),
        errno.ENODEV,
        "there is no device of that ifindex in the caller's network namespace",
        "netbpf -n NS looks in another namespace",
        lambda situation: None,
        source="kernel/bpf/tcx.c",
    ),
    Row(
        ("attach", "update"),
        errno.ENOMEM,
        "the kernel has no memory for it",
        None,
        always("the kernel has no memory for it"),
    ),
)
