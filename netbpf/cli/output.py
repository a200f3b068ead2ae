"""What a command prints: one JSON document, or words and tables for people."""

from __future__ import annotations

import os
import sys

from netbpf.cli.settings import settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

SCHEMA_VERSION = 1

Document = dict[str, "Any"]

NARROW = 76
"""The columns of a terminal below which there is no room for a wide table."""


def emit(document: Document, render: Callable[[], None]) -> None:
    """Print ``document`` as JSON where that was asked for, else let ``render`` speak.

    :raises NetbpfError: it could not be written; what the command did is done all the same.
    """
    try:
        if settings.json:
            from netbpf.cli import json_text

            print(json_text.dumps({"schema_version": SCHEMA_VERSION, **document}))
        else:
            render()
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        from netbpf.errors import NetbpfError

        raise NetbpfError(
            f"the output could not be written: {error.strerror}",
            code="output",
            hint="what was asked for is done",
        ) from error
    settings.told = True


def say(text: str) -> None:
    """A line of data for people, on stdout."""
    print(clean(text))


def note(text: str) -> None:
    """Words beside the data, on stderr."""
    print(clean(f"netbpf: {text}"), file=sys.stderr)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout: as wide as a terminal, and never cut where it is piped.

    On a narrow terminal that has no room for it, each row is a few lines.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [[_cell(cell) for cell in row] for row in rows]
    grid = Table(box=None, pad_edge=False, header_style="" if "NO_COLOR" in os.environ else "bold")
    for column in columns:
        grid.add_column(Text(column), overflow="fold")
    for row in cells:
        grid.add_row(*map(Text, row))
    console = Console(width=None if sys.stdout.isatty() else 10_000)
    whole = console.measure(grid, options=console.options.update(width=10_000)).maximum
    if console.width < min(NARROW, whole):
        for row in cells:
            _say_row(columns, row)
        return
    with console.capture() as printed:
        console.print(grid)
    # Rich fills each line up to the table's width.
    for line in printed.get().splitlines():
        print(line.rstrip())


def _cell(value: object) -> str:
    return "-" if value is None else clean(str(value))


def _say_row(columns: Sequence[str], row: Sequence[str]) -> None:
    """A row as lines, which a narrow terminal may break where it has to."""
    indent = ""
    for column, cell in zip(columns, row, strict=True):
        for line in cell.splitlines() if cell not in ("", "-") else ():
            say(f"{indent}{column.lower()}: {line}")
            indent = "  "


def lines(items: Iterable[object]) -> str | None:
    """A cell of several lines; None where there are no items."""
    return "\n".join(clean(str(item)).replace("\n", "\\n") for item in items) or None


def clean(text: str) -> str:
    """``text`` without what a terminal would obey: a program's or process's name is anybody's."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )
