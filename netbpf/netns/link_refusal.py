"""Why the kernel refused something at a namespace's hook: it gives a bare errno.

Read from kernel/bpf/net_namespace.c, and net/core/flow_dissector.c for what the namespaces'
dissectors exclude.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass

from netbpf.bpf.prog import ProgramInfo
from netbpf.conditions import Row, always, holding
from netbpf.errors import BpfError, NetbpfError, NotSupportedError
from netbpf.netns.handle import NetNS
from netbpf.netns.holders import scan
from netbpf.netns.hooks import Attached, NetnsHook, program_ids

_NEEDS_ADMIN = "needs CAP_NET_ADMIN in the initial user namespace (run as root)"
_SOURCE = "kernel/bpf/net_namespace.c"
# As many namespaces as one message can name.
_NAMED = 4


@dataclass(frozen=True, slots=True)
class Situation:
    """What there is to look at once a change was refused.

    ``state`` is what hangs there now, None where it may not be read; ``prog`` what was to go in;
    ``link``: it was to go in by a link.
    """

    hook: NetnsHook
    ns: NetNS
    state: Attached | None
    prog: ProgramInfo | None
    link: bool = True


def of_query(hook: NetnsHook, ns: NetNS, error: OSError) -> NetbpfError:
    """Why it could not be read what hangs at a hook."""
    number = error.errno or errno.EIO
    what = f"read {hook.name} of {ns}"
    if number == errno.EINVAL:
        # The flags were 0, so it is the attach type that the kernel does not know.
        return NotSupportedError(hook.name, since=hook.since, config="CONFIG_BPF_SYSCALL")
    if number == errno.EPERM:
        return BpfError(what, number, "not permitted", hint=_NEEDS_ADMIN)
    return BpfError(what, number)


def of_change(verb: str, number: int, situation: Situation) -> NetbpfError:
    """Why the kernel refused a change with this errno.

    :param verb: what was to be done: "attach to".
    """
    what = f"{verb} {situation.ns} {situation.hook.name}"
    found = holding(ROWS, f"netns-{verb.split()[0]}", number, situation)
    if found is None:
        return BpfError(what, number)
    row, words = found
    return BpfError(what, number, words, hint=row.hint, code=row.code)


def foreseen(situation: Situation) -> NetbpfError | None:
    """What the kernel will refuse an attach with, in the order of its checks; None: it will not."""
    hook, state = situation.hook, situation.state
    if state is None:
        return None
    linked = [entry for entry in state.entries if entry.link_id is not None]
    number = None
    if situation.link:
        if len(linked) >= hook.limit:
            number = errno.E2BIG
        elif state.direct is not None:
            number = errno.EEXIST
    elif linked:
        number = errno.EEXIST
    elif state.direct is not None and situation.prog and state.direct.prog_id == situation.prog.id:
        number = errno.EINVAL
    if number is None and _excluded(situation):
        number = errno.EEXIST
    return of_change("attach to", number, situation) if number is not None else None


def dissectors_elsewhere(hook: NetnsHook, ns: NetNS) -> Iterator[tuple[str, list[int]]]:
    """The other namespaces, as far as they can be seen, where something hangs at the hook."""
    for each in scan():
        if each.inode == ns.inode:
            continue
        try:
            with each.open() as other:
                found = program_ids(other, hook)
        except (NetbpfError, OSError):
            # It has gone meanwhile, or is not ours to look into.
            continue
        if found:
            yield each.reference or f"net:[{each.inode}]", found


def _excluded(situation: Situation) -> bool:
    # net/core/flow_dissector.c: flow_dissector_bpf_prog_attach_check. Process 1 is in the initial
    # namespace, unless this is a container; then the kernel says it.
    if situation.hook.limit != 1:
        return False
    try:
        with NetNS.from_pid(1) as first:
            if first == situation.ns:
                return any(dissectors_elsewhere(situation.hook, situation.ns))
            return bool(program_ids(first, situation.hook))
    except (NetbpfError, OSError):
        return False


def _full(situation: Situation) -> str | None:
    limit = situation.hook.limit
    return f"{limit} programs are there, and no more fit" if limit > 1 else None


def _taken(situation: Situation) -> str | None:
    state = situation.state
    if situation.hook.limit > 1:
        return None
    there = f" ({state.entries[0]})" if state and state.entries else ""
    return f"a namespace takes one {situation.hook.name}, and there is one{there}"


def _direct_there(situation: Situation) -> str | None:
    state = situation.state
    if not situation.link or state is None or state.direct is None:
        return None
    return f"{state.direct} is attached there directly, which leaves no room for links"


def _link_there(situation: Situation) -> str | None:
    state = situation.state
    if situation.link or state is None or state.direct is not None or not state.entries:
        return None
    return f"{state.entries[0]} is there, and beside a link nothing is attached directly"


def _excludes(situation: Situation) -> str | None:
    if situation.hook.limit != 1:
        return None
    others = list(dissectors_elsewhere(situation.hook, situation.ns))
    named = ", ".join(name for name, _ in others[:_NAMED])
    more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    return (
        "the initial namespace's flow dissector excludes those of all others, and they exclude it; "
        + (f"there is one in {named}{more}" if others else "the other one cannot be seen from here")
    )


def _twice(situation: Situation) -> str | None:
    state, prog = situation.state, situation.prog
    if situation.link or state is None or prog is None or state.direct is None:
        return None
    if state.direct.prog_id != prog.id:
        return None
    return "this very program is attached there already"


def _wrong_type(situation: Situation) -> str | None:
    prog, hook = situation.prog, situation.hook
    if prog is None or prog.type == hook.prog_type:
        return None
    return f"{prog.name or 'the program'} is of type {prog.type_name}, {hook.name} takes its own"


ROWS: tuple[Row[Situation], ...] = (
    Row(
        ("netns-attach",),
        errno.E2BIG,
        "the namespace has a flow dissector by a link, and takes one",
        "`netbpf netns update` exchanges a program in its place; or detach one",
        _taken,
        code="exists",
        source=_SOURCE,
    ),
    Row(
        ("netns-attach",),
        errno.E2BIG,
        "the namespace has 64 sk_lookup programs, and takes no more",
        "`netbpf netns update` exchanges a program in its place; or detach one",
        _full,
        source=_SOURCE,
    ),
    Row(
        ("netns-attach",),
        errno.EEXIST,
        "a flow dissector is attached there directly, without a link, and excludes links",
        "detach it, or exchange it with `netbpf netns update`",
        _direct_there,
        source=_SOURCE,
    ),
    Row(
        ("netns-attach", "netns-update"),
        errno.EEXIST,
        "a link is there, and beside a link no flow dissector is attached directly",
        "`netbpf netns update` exchanges the program under the link; or detach it",
        _link_there,
        source=_SOURCE,
    ),
    Row(
        ("netns-attach", "netns-update"),
        errno.EEXIST,
        "the initial namespace's flow dissector excludes those of all other namespaces, and "
        "they exclude it",
        "`netbpf netns show` lists them; detach what is in the way",
        _excludes,
        source="net/core/flow_dissector.c",
    ),
    Row(
        ("netns-attach", "netns-update"),
        errno.EINVAL,
        "this very program is attached there directly already",
        "load it again to exchange it by itself",
        _twice,
        source=_SOURCE,
    ),
    Row(
        ("netns-attach", "netns-update"),
        errno.EINVAL,
        "the program is of another type than the hook's; or the hook is sk_lookup, which takes "
        "links only (BPF_PROG_ATTACH is refused); or flags were given",
        'compile it with SEC("sk_lookup") or SEC("flow_dissector")',
        _wrong_type,
        code="wrong_program_type",
        source=_SOURCE,
    ),
    Row(
        ("netns-detach",),
        errno.EINVAL,
        "links are there, and only the link can take its program out",
        "name the link: link:N",
        always("a link owns that place by now, and only the link may change it"),
        source=_SOURCE,
    ),
    Row(
        ("netns-detach",),
        errno.ENOENT,
        "another program is attached directly, or none",
        "look again, then decide",
        always("what was named left the place meanwhile"),
        source=_SOURCE,
    ),
    Row(
        ("netns-update",),
        errno.ENOLINK,
        "the link is defunct: its namespace is gone, or it was detached",
        "attach anew; `netbpf link gc` finds the pins of defunct links",
        always("the link is defunct: its namespace is gone or it was detached"),
        source=_SOURCE,
    ),
    Row(
        ("netns-update",),
        errno.EPERM,
        "the link's program is not the one that was named as the old one",
        "look again, then decide",
        always("another program took the place meanwhile"),
        code="replaced_meanwhile",
        source=_SOURCE,
    ),
    Row(
        ("netns-attach", "netns-detach", "netns-update", "netns-show"),
        errno.EPERM,
        "reading what is attached, finding an object by its id and loading a program need "
        "capabilities (attaching what one holds open needs none)",
        _NEEDS_ADMIN,
        always("not permitted"),
        source="kernel/bpf/syscall.c",
    ),
    Row(
        ("netns-attach", "netns-detach", "netns-update", "netns-show"),
        errno.EBADF,
        "the target is no open network namespace",
        None,
        always("that is no open network namespace"),
        source="net/core/net_namespace.c",
    ),
    Row(
        ("netns-attach", "netns-show"),
        errno.EINVAL,
        "the kernel does not know the hook: flow_dissector links came with 5.8, sk_lookup with 5.9",
        "a newer kernel has it",
        lambda situation: None,
        source=_SOURCE,
    ),
    Row(
        ("netns-attach", "netns-update"),
        errno.ENOMEM,
        "the kernel has no memory for it",
        None,
        always("the kernel has no memory for it"),
        source=_SOURCE,
    ),
)
