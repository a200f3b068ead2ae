"""``netbpf object skeleton``: a typed Python module of an object file."""

from __future__ import annotations

from typing import Annotated

import typer

from netbpf.cli.output import emit, say


def object_skeleton(
    file: Annotated[str, typer.Argument(metavar="FILE.o", help="The object file.")],
    output: Annotated[
        str,
        typer.Option("-o", "--output", metavar="MODULE.py", help="Where to; - is stdout."),
    ] = "-",
    force: Annotated[
        bool, typer.Option("--force", help="Write over a file that is no skeleton, too.")
    ] = False,
) -> None:
    """Make a typed Python module that holds an object file, with all in it as attributes."""
    from netbpf import skeleton

    text = skeleton.of_file(file)
    changed = output != "-" and skeleton.write(text, output, force=force)
    document = {
        "file": file,
        "module": None if output == "-" else output,
        "changed": changed,
        "text": text if output == "-" else None,
    }

    def render() -> None:
        if output == "-":
            print(text, end="")
        else:
            say(f"{output}: {'written' if changed else 'unchanged'}")

    emit({"skeleton": document}, render)
