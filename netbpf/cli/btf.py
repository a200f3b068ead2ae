"""``netbpf btf``: the types of the kernel and of object files, as C, as JSON, one by one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any

import typer

from netbpf.cli.command import Command, Group
from netbpf.cli.output import emit, say
from netbpf.cli.settings import settings

if TYPE_CHECKING:
    from netbpf.btf.layout import Hole, Row, Shown

app = typer.Typer(
    cls=Group, add_completion=False, help="The types of the kernel, of modules and object files."
)

File = Annotated[
    str | None,
    typer.Argument(
        metavar="FILE",
        help="An object file, a BTF blob, a kernel module's name, or id:N of loaded BTF; "
        "without it the running kernel.",
    ),
]
Base = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="What the types of a split BTF go on from."),
]


class Format(StrEnum):
    """How all types are printed."""

    c = "c"
    json = "json"


@app.command(cls=Command, epilog="Example: netbpf btf dump > vmlinux.h")
def dump(
    file: File = None,
    format: Annotated[
        Format | None, typer.Option(help="A C header (the default), or JSON, as with --json.")
    ] = None,
    base: Base = None,
) -> None:
    """Print all types: as the C header that BPF programs are compiled with, or as JSON."""
    from netbpf.loader import types

    settings.json = settings.json or format is Format.json
    btf = types.read(file, base)
    if settings.json:
        from netbpf.btf.dump_json import documents

        with types.told_of(file):
            document = {"types": documents(btf)}
        emit(document, lambda: None)
        return
    from netbpf.btf import dump_c

    with types.told_of(file):
        text = dump_c.dump(btf)
    # Only what C takes for a name is in it, nothing that a terminal would obey.
    emit({}, lambda: _write(text))


def _write(text: str) -> None:
    sys.stdout.write(text)


class _ShowCommand(Command):
    """Takes ``struct sk_buff`` without quotation marks around it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        from netbpf.btf.layout import KINDS

        for at, (word, name) in enumerate(pairwise(args)):
            if word in KINDS and name[:1] not in ("", "-"):
                args = [*args[:at], f"{word} {name}", *args[at + 2 :]]
                break
        return super().parse_args(ctx, args)


@app.command(cls=_ShowCommand, epilog="Example: netbpf btf show struct sk_buff")
def show(
    type: Annotated[
        str,
        typer.Argument(
            metavar="TYPE",
            help="struct NAME, union NAME, enum NAME, typedef NAME, func NAME, or NAME.",
        ),
    ],
    file: File = None,
    depth: Annotated[
        int, typer.Option(min=0, metavar="N", help="Open the structs of members N levels deep.")
    ] = 0,
    base: Base = None,
) -> None:
    """Show one type: members with offset and size, holes, cache lines; an enum's values.

    Structs without a name are always open. All types of that name are shown.
    """
    from netbpf.btf import layout
    from netbpf.loader import types

    btf = types.read(file, base)
    with types.told_of(file):
        found = [layout.describe(btf, type_id, depth) for type_id in layout.find(btf, type)]
    emit({"types": [_document(each) for each in found]}, lambda: _say(found))


def _say(found: Sequence[Shown]) -> None:
    from netbpf.btf.layout import render

    for each in found:
        for line in render(each):
            say(line.expandtabs())


def _document(shown: Shown) -> dict[str, Any]:
    values = shown.values
    return {
        "id": shown.id,
        "kind": shown.kind,
        "name": shown.name or None,
        "declaration": shown.declaration,
        "size": shown.size,
        "members": _members(shown.members),
        "holes": _holes(shown.holes),
        "padding_bits": shown.padding,
        "values": None if values is None else [{"name": n, "value": v} for n, v in values],
    }


def _members(rows: Sequence[Row] | None) -> list[dict[str, Any]] | None:
    if rows is None:
        return None
    return [
        {
            "name": row.name or None,
            "type": row.type,
            "offset": row.offset,
            "bit_offset": row.bit_offset,
            "size": row.size,
            "bit_size": row.bit_size,
            "members": _members(row.members),
            "holes": _holes(row.holes),
            "padding_bits": row.padding,
        }
        for row in rows
    ]


def _holes(holes: Sequence[Hole]) -> list[dict[str, int]]:
    return [{"bit_offset": hole.bit_offset, "bits": hole.bits} for hole in holes]
