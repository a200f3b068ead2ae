"""What does not work at a hook: noted beside an attach, and ``netbpf prog lint``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from netbpf.cli import exit_status
from netbpf.cli.output import Document, emit, note, say
from netbpf.errors import NetbpfError

if TYPE_CHECKING:
    from netbpf.bpf.hook import Hook
    from netbpf.bpf.prog import Program
    from netbpf.lint.insns import Code
    from netbpf.lint.rules import Finding
    from netbpf.netns.hooks import NetnsHook

Strict = Annotated[
    bool,
    typer.Option("--strict", help="Refuse a program that does not work at the hook."),
]


def tell(name: str, program: Program | Code, hook: Hook | NetnsHook, strict: bool) -> None:
    """Note what does not work in a program that is about to be attached.

    The rules are those of chains; of a namespace's hooks there are none.

    :raises NetbpfError: ``strict``, and there is something; nothing was noted then.
    """
    from netbpf.bpf.hook import Hook
    from netbpf.lint.rules import warnings

    if not isinstance(hook, Hook):
        return
    try:
        found = warnings(program, hook)
    except NetbpfError:
        # What cannot be looked into is attached all the same.
        return
    if found and strict:
        words = "; ".join(each.message for each in found)
        raise NetbpfError(
            f"{name} does not work at {hook.member} {hook.name}: it {words}",
            code="lint",
            hint="nothing is changed; without --strict this is only told",
        )
    for each in found:
        note(f"{name} {each.message}")


def prog_lint(
    prog: Annotated[
        str,
        typer.Argument(
            metavar="PROG",
            help="FILE.o, FILE.o:NAME, builtin:NAME, id:N, name:NAME, tag:HEX or pin:PATH.",
        ),
    ],
    hook: Annotated[
        str,
        typer.Option(
            metavar="HOOK",
            help="Where it is to be attached: ingress, egress, primary or peer.",
            autocompletion=lambda incomplete: [
                hook
                for hook in ("ingress", "egress", "primary", "peer")
                if hook.startswith(incomplete)
            ],
        ),
    ],
    strict: Annotated[bool, typer.Option("--strict", help="Status 1 if it does not work.")] = False,
    variables: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="VAR=VALUE", help="Look at the program with this global."),
    ] = None,
) -> int:
    """Say what in a program does not work at a hook, from its instructions.

    Return codes and helpers, and only what is certain. A file is not loaded.
    """
    from netbpf.cli import references
    from netbpf.lint.rules import findings

    place = _hook(hook)
    with references.examined(prog, variables or [], place) as (number, name, program):
        found = findings(program, place)
    documents = [_document(each) for each in found]
    emit(
        {"program": {"id": number, "name": name}, "hook": hook, "findings": documents},
        lambda: _say(name, place, found),
    )
    refused = strict and any(each.severity == "warning" for each in found)
    return exit_status.REFUSED if refused else exit_status.DONE


def _hook(name: str) -> Hook:
    from netbpf import netkit, tcx

    for hooks in (tcx.HOOKS, netkit.HOOKS):
        if name in hooks.names:
            return hooks.hook(name)
    known = ", ".join([*tcx.HOOKS.names, *netkit.HOOKS.names])
    raise ValueError(f"no hook {name}: it is one of {known}")


def _document(found: Finding) -> Document:
    return {
        "code": found.code,
        "severity": found.severity,
        "message": found.message,
        "instruction": found.instruction,
        "file": found.file,
        "line": found.line,
    }


def _say(name: str, hook: Hook, found: tuple[Finding, ...]) -> None:
    for each in found:
        say(f"{each.severity}: {name} {each.message}")
    if not found:
        say(f"{name}: nothing found that does not work at {hook.member} {hook.name}")
