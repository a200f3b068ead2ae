"""``netbpf prog load`` as it is written; what it does is in loading.py."""

from __future__ import annotations

from typing import Annotated

import typer

from netbpf.cli import loading


def prog_load(
    file: Annotated[str, typer.Argument(metavar="FILE.o", help="The object file.")],
    pin: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Pin all of it in this folder on a bpffs."),
    ] = None,
    variables: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="VAR=VALUE", help="Set a global before it is loaded."),
    ] = None,
    map_pins: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="NAME=PIN", help="Use a pinned map for this one."),
    ] = None,
    map_sizes: Annotated[
        list[str] | None,
        typer.Option("--map-size", metavar="NAME=N", help="Give a map N entries."),
    ] = None,
    btf: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The kernel's types, in place of the running kernel's."),
    ] = None,
    attach_to: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PROG",
            help="The loaded program that this one (freplace, fentry, fexit) is for.",
        ),
    ] = None,
    autoattach: Annotated[
        bool,
        typer.Option("--autoattach", help="Attach the programs whose sections say where."),
    ] = False,
) -> None:
    """Load all programs and maps of an object file.

    With --pin they stay, all or none of them; without it they end with the command.
    """
    loading.load(
        file,
        pin,
        loading.Asked(
            variables or (), map_pins or (), map_sizes or (), btf, autoattach, attach_to or ()
        ),
    )
