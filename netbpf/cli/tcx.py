"""``netbpf tcx``: chains on a device's ingress and egress."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from netbpf.cli import chain as shared
from netbpf.cli import chain_move, chain_view
from netbpf.cli.command import ChangingCommand, Command, Group
from netbpf.cli.namespaces import each_namespace

if TYPE_CHECKING:
    from netbpf.bpf.chain import Chain

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
) -> None:
    """Show the programs at each device, in the order in which they run."""
    from netbpf import tcx

    names = (hook,) if hook else tcx.HOOKS.names
    for name in names:
        tcx.HOOKS.hook(name)

    def chains() -> Iterator[tuple[str | None, str, Chain]]:
        for netns in each_namespace(all_netns):
            if device is not None:
                devices = [(shared.ifindex_of(device), device)]
            else:
                devices = socket.if_nameindex()
            for ifindex, found in devices:
                for name in names:
                    yield netns, found, tcx.chain(ifindex, name)

    chain_view.show_chains(chains(), empty=device is not None)
