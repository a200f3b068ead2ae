"""``netbpf prog``: the programs of this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from netbpf.cli import lint, load, run
from netbpf.cli.command import ChangingCommand, Command, Group
from netbpf.cli.output import emit, table

app = typer.Typer(cls=Group, add_completion=False, help="The BPF programs of this machine.")


app.command(
    "load",
    cls=ChangingCommand,
    epilog="Example: netbpf prog load filter.o --pin /sys/fs/bpf/filter --set verdict=2",
)(load.prog_load)


app.command(
    "run", cls=Command, epilog="Example: netbpf prog run name:filter --pcap in.pcap --out out.pcap"
)(run.prog_run)


app.command("lint", cls=Command, epilog="Example: netbpf prog lint filter.o --hook ingress")(
    lint.prog_lint
)


@app.command(cls=Command, epilog="Example: netbpf prog show name:count --json")
def show(
    ref: Annotated[
        str | None,
        typer.Argument(metavar="REF", help="id:N, name:NAME, tag:HEX or pin:PATH."),
    ] = None,
) -> None:
    """Show loaded programs."""
    from netbpf.bpf.prog import loaded
    from netbpf.bpf.ref import Ref

    infos = loaded(Ref.parse(ref) if ref is not None else None)
    documents = [
        {
            "id": info.id,
            "name": info.name,
            "tag": info.tag,
            "type": info.type_name,
            "load_time_ns": info.load_time,
            "map_ids": list(info.map_ids),
            "run_count": info.run_count,
            "run_time_ns": info.run_time,
        }
        for info in infos
    ]
    emit(
        {"programs": documents},
        lambda: table(
            ["ID", "NAME", "TYPE", "TAG", "MAPS"],
            [
                [d["id"], d["name"], d["type"], d["tag"], " ".join(map(str, info.map_ids)) or None]
                for d, info in zip(documents, infos, strict=True)
            ],
        ),
    )
