"""``netbpf explain``: what an errno of the kernel means."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from netbpf.cli.command import Command
from netbpf.cli.output import emit, say

app = typer.Typer(add_completion=False)


def _operations(incomplete: str) -> list[str]:
    from netbpf.plumbing.explain import OPERATIONS

    return [each for each in OPERATIONS if each.startswith(incomplete)]


@app.command(
    cls=Command,
    # The kernel's own way to write an errno, -17, is no option.
    context_settings={"ignore_unknown_options": True},
    epilog="Example: netbpf explain ESTALE --for attach",
)
def explain(
    errno: Annotated[str, typer.Argument(metavar="ERRNO", help="EEXIST, or its number.")],
    operation: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="OPERATION",
            autocompletion=_operations,
            help="Only for this one: attach, detach, update, show, netkit-add, netkit-set, "
            "lease-add, netns-attach, netns-detach, netns-update or netns-show.",
        ),
    ] = None,
) -> None:
    """Explain an errno: the conditions under which the kernel gives it, and what to do.

    An error of netbpf says which of them held; this is for errors of other tools too.
    """
    from netbpf.errors import errno_name
    from netbpf.plumbing import explain as explaining

    number = explaining.number_of(errno)
    name = errno_name(number)
    found = explaining.explain(number, operation)

    def words() -> None:
        if not found:
            say(f"{name} ({number}): not known of {operation or 'any operation of netbpf'}")
        # One that several operations share is said once.
        shared: dict[Any, list[str]] = {}
        for each in found:
            key = (each.when, each.extack, each.hint, each.source)
            shared.setdefault(key, []).append(each.operation)
        for (when, extack, hint, source), operations in shared.items():
            say(f"{', '.join(operations)}: {when}")
            for label, text in (("the kernel says", extack), ("do", hint), ("see", source)):
                if text:
                    say(f"    {label}: {text}")

    emit(
        {
            "errno": name,
            "number": number,
            "conditions": [
                {
                    "operation": each.operation,
                    "when": each.when,
                    "hint": each.hint,
                    "extack": each.extack,
                    "source": each.source,
                }
                for each in found
            ],
        },
        words,
    )
