"""What in a program does not work at a hook, found out from its instructions before an attach.

Only what is certain is a warning: a code that some path returns, a helper that some path calls.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from netbpf.bpf.hook import Hook
from netbpf.bpf.prog import Program
from netbpf.lint.insns import Code, Place
from netbpf.lint.paths import explore
from netbpf.lint.state import REDIRECT_PEER

SK_ASSIGN = 124

# include/uapi/linux/bpf.h: enum tcx_action_base; include/uapi/linux/if_link.h: netkit's, the same.
NEXT, PASS, DROP, REDIRECT = -1, 0, 2, 7
_VERDICTS = frozenset({NEXT, PASS, DROP, REDIRECT})

# include/uapi/linux/pkt_cls.h: TC_ACT_… that only tc itself understands.
_ACTIONS = {1: "RECLASSIFY", 3: "PIPE", 4: "STOLEN", 5: "QUEUED", 6: "REPEAT", 8: "TRAP"}
# Those that carry a number in their lower 28 bits.
_EXTENDED = {1: "JUMP", 2: "GOTO_CHAIN"}

_AFTER = {
    # net/core/dev.c: tcx_run, tcx_action_code.
    "tcx": "the rest of the chain is skipped, and unless cls_bpf decides the packet passes",
    # drivers/net/netkit.c: netkit_xmit.
    "netkit": "the chain ends and the packet is dropped",
}

Severity = Literal["warning", "info"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not work at a hook, or not as it may be meant.

    ``code`` is a stable word: ``not_a_verdict`` (a code of tc's that the hook does not know),
    ``unknown_code`` (one that nobody knows), ``redirect_peer``, ``sk_assign``, and ``next_passes``,
    which is an ``info``; the others are warnings. ``message`` says all, and where.
    """

    code: str
    message: str
    severity: Severity
    instruction: int
    file: str | None = None
    line: int | None = None


def findings(program: Program | Code, hook: Hook) -> tuple[Finding, ...]:
    """What does not work in ``program`` at ``hook``, by instruction; nothing where it is not known.

    Takes a loaded program, or the code of one (of an object file: ``netbpf.loader.code``). The
    instructions of a loaded program are told to CAP_BPF only, its constants to CAP_SYS_ADMIN and
    its helpers to CAP_SYSLOG; without them there is less to find, and never more.

    :raises BpfError: the kernel refused to tell anything.
    """
    if isinstance(program, Program):
        from netbpf.lint import xlated

        program = xlated.code(program)
    found: dict[tuple[object, ...], Finding] = {}
    for each in _found(program, hook):
        place = (each.instruction,) if each.line is None else (each.file, each.line)
        found.setdefault((each.code, each.message.split(" at ")[0], *place), each)
    return tuple(sorted(found.values(), key=lambda each: each.instruction))


def warnings(program: Program | Code, hook: Hook) -> tuple[Finding, ...]:
    """Those findings that are warnings."""
    return tuple(each for each in findings(program, hook) if each.severity == "warning")


def _found(code: Code, hook: Hook) -> Iterator[Finding]:
    outcome = explore(code)
    for value, index in outcome.returns:
        if value not in _VERDICTS:
            name, known = _action(value)
            what = f"returns {name}" if known else f"returns {value}, which is no code of tc's"
            yield _finding(
                code,
                index,
                "not_a_verdict" if known else "unknown_code",
                what,
                f"no verdict of {hook.member}: {_AFTER[hook.member]}",
            )
    for index, number in outcome.calls.items():
        if number == REDIRECT_PEER and hook.name != "ingress":
            # net/core/filter.c: skb_do_redirect, which drops unless skb_at_tc_ingress.
            yield _finding(
                code,
                index,
                "redirect_peer",
                "calls bpf_redirect_peer",
                f"that works at tcx ingress only, at {_at(hook)} what it redirects is dropped",
            )
        elif number == SK_ASSIGN and hook.name != "ingress":
            # net/core/filter.c: bpf_sk_assign.
            yield _finding(
                code,
                index,
                "sk_assign",
                "calls bpf_sk_assign",
                f"that works at tcx ingress only, at {_at(hook)} it fails with EOPNOTSUPP",
            )
    following = [index for value, index in outcome.returns if value == NEXT]
    if following and hook.member == "netkit":
        # drivers/net/netkit.c: netkit_xmit takes NETKIT_NEXT for NETKIT_PASS.
        yield _finding(
            code,
            min(following),
            "next_passes",
            "returns NEXT (-1)",
            "after the last program the packet passes, also where the policy is blackhole",
            "info",
        )


def _finding(
    code: Code, index: int, word: str, what: str, why: str, severity: Severity = "warning"
) -> Finding:
    place = _place(code, index)
    where = f"at instruction {index}"
    if place is not None:
        where += f", line {place.line}"
        where += f" of {os.path.basename(place.file)}" if place.file else ""
    return Finding(
        word,
        f"{what} {where}: {why}",
        severity,
        index,
        place.file if place else None,
        place.line if place else None,
    )


def _place(code: Code, index: int) -> Place | None:
    position = bisect_right(code.places, index, key=lambda place: place.start)
    place = code.places[position - 1] if position else None
    # The compiler gives line 0 to what comes from no line.
    return place if place is not None and place.line else None


def _action(value: int) -> tuple[str, bool]:
    name = _ACTIONS.get(value) or _EXTENDED.get(value >> 28)
    return f"{name} ({value})", name is not None


def _at(hook: Hook) -> str:
    return f"{hook.member} {hook.name}"
