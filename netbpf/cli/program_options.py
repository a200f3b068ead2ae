"""The options that commands share which put a program somewhere."""

from __future__ import annotations

from typing import Annotated

import typer

Variables = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="VAR=VALUE", help="Set a global of the program before it is loaded."
    ),
]
Old = Annotated[
    str | None,
    typer.Option("--old", metavar="REF", help="Refuse unless this holds the place now."),
]
Pin = Annotated[str | None, typer.Option(metavar="PATH", help="Pin the link here instead.")]
Hold = Annotated[
    bool, typer.Option("--hold", help="Keep the link here until Ctrl-C, without a pin.")
]
