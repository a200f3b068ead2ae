"""``netbpf tcx``: chains on a device's ingress and egress."""

from __future__ import annotations

from typing import Annotated

import typer

from netbpf.cli import chain as shared
from netbpf.cli import chain_move, chain_view, migrate, run
from netbpf.cli import stats_options as options
from netbpf.cli.command import ChangingCommand, Command, Group

app = typer.Typer(
    cls=Group, add_completion=False, help="Chains of programs on a device's ingress and egress."
)


class _Command(Command):
    hook_words = "ingress|egress"


class _Changing(ChangingCommand):
    hook_words = "ingress|egress"


app.command(
    cls=_Changing, epilog="Example: netbpf tcx attach eth0 ingress filter.o --before name:count"
)(shared.attach)
app.command(cls=_Changing, epilog="Example: netbpf tcx detach eth0 ingress name:filter")(
    shared.detach
)
app.command(
    cls=_Changing, epilog="Example: netbpf tcx update eth0 ingress name:filter filter-v2.o"
)(shared.update)


app.command(cls=_Changing, epilog="Example: netbpf tcx move eth0 ingress name:count --first")(
    chain_move.move
)
app.command(cls=_Changing, epilog="Example: netbpf tcx order eth0 ingress name:filter name:count")(
    chain_move.order
)
app.command(cls=_Changing, epilog="Example: netbpf tcx migrate eth0 ingress --dry-run")(
    migrate.migrate
)


app.command("run", cls=_Command, epilog="Example: netbpf tcx run eth0 ingress --pcap in.pcap")(
    run.chain_run
)


@app.command(cls=_Command, epilog="Example: netbpf tcx show eth0 ingress --json | jq .chains")
def show(
    device: Annotated[
        str | None,
        typer.Argument(metavar="DEV", help="Only this device.", autocompletion=shared.devices),
    ] = None,
    hook: Annotated[
        str | None, typer.Argument(metavar="HOOK", help="Only this one of its chains.")
    ] = None,
    all_netns: Annotated[
        bool, typer.Option("--all-netns", help="In every namespace that can be found.")
    ] = False,
    stats: options.Stats = False,
    seconds: options.Seconds = None,
) -> None:
    """Show the programs at each device, in the order in which they run.

    After each chain come the filters of clsact and, on a netkit device, the programs of its side.
    """
    chain_view.show_tcx(device, hook, all_netns=all_netns, stats=stats, seconds=seconds)
