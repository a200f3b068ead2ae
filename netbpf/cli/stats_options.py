"""The options of the commands that count."""

from __future__ import annotations

from typing import Annotated

import typer

Stats = Annotated[
    bool,
    typer.Option("--stats", help="Count runs for a while, and where packets ended."),
]
Seconds = Annotated[
    float | None,
    typer.Option(
        metavar="S", min=0.001, max=86400, help="How long --stats counts: 1, unless said."
    ),
]
