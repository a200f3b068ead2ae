"""``netbpf netns``: namespaces by name, and commands inside them."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Annotated, Any

import typer

from netbpf.cli import netns_links, netns_place, netns_view
from netbpf.cli.command import ChangingCommand, Command, Group, netns_names
from netbpf.cli.output import emit, lines, note, say, table
from netbpf.cli.settings import settings

if TYPE_CHECKING:
    from netbpf.cli.netns_view import ChainLooker
    from netbpf.netns import Namespace

app = typer.Typer(
    cls=Group,
    add_completion=False,
    help="Network namespaces by name, as ip netns has them, and programs at them.",
)


Names = Annotated[
    list[str], typer.Argument(metavar="NAME...", help="The names.", autocompletion=netns_names)
]


@app.command(cls=ChangingCommand, epilog="Example: netbpf netns add red blue")
def add(names: Names) -> None:
    """Make network namespaces; a failure in the middle leaves none of them."""
    from netbpf import netns

    if settings.dry_run:
        for name in names:
            netns.check_new(name)
        would = [{"name": name, "inode": None} for name in names]
        emit({"dry_run": True, "added": would}, lambda: say(f"would add {', '.join(names)}"))
        return
    added = [{"name": name, "inode": inode} for name, inode in netns.add_many(names).items()]
    emit({"added": added}, lambda: say(f"added {', '.join(names)}"))


@app.command("del", cls=ChangingCommand, epilog="Example: netbpf netns del red blue")
def delete(names: Names) -> None:
    """Remove the names; a namespace lives on while a process is in it.

    With a namespace that ends, netbpf's own pins of links in it are removed.
    """
    from netbpf import netns
    from netbpf.plumbing import namespaces

    for name in names:
        netns.check_deletable(name)
    if settings.dry_run:
        document = {"dry_run": True, "deleted": names, "pins": []}
        emit(document, lambda: say(f"would delete {', '.join(names)}"))
        return
    done = namespaces.delete(*names)
    if done.staying:
        note(f"something holds the namespace, so its links stay: {', '.join(done.staying)}")
    emit({"deleted": names, "pins": list(done.pins)}, lambda: say(f"deleted {', '.join(names)}"))


app.command("set", cls=ChangingCommand, epilog="Example: netbpf netns set red --nsid auto")(
    netns_place.set_
)
app.command(cls=ChangingCommand, epilog="Example: netbpf netns move eth1 red --name eth0")(
    netns_place.move
)


@app.command(cls=Command, epilog="Example: netbpf netns show --json | jq '.namespaces[].name'")
def show(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="Only this: a name, a path or pid:N.", autocompletion=netns_names
        ),
    ] = None,
) -> None:
    """Show every network namespace that a name, a mount or a process holds."""
    found, looker, links = netns_view.found(name), netns_view.ChainLooker(), netns_links.Reader()
    documents = [document for each in found if (document := _document(each, looker, links))]
    links.finish()
    emit(
        {"namespaces": documents},
        lambda: table(
            ["NAME", "INODE", "NSID", "PIDS", "DEVICES", "CHAINS", "LINKS"],
            [
                [
                    each["name"],
                    each["inode"],
                    each["nsid"],
                    _few(each["pids"]),
                    _few(each["devices"]),
                    netns_view.chains_cell(each["chains"]),
                    lines(netns_links.words(each)),
                ]
                for each in documents
            ],
        ),
    )


app.command(cls=ChangingCommand, epilog="Example: netbpf netns attach web sk_lookup many_ports.o")(
    netns_links.attach
)
app.command(
    cls=ChangingCommand, epilog="Example: netbpf netns detach web sk_lookup name:many_ports"
)(netns_links.detach)
app.command(
    cls=ChangingCommand,
    epilog="Example: netbpf netns update web sk_lookup name:many_ports many_ports-v2.o",
)(netns_links.update)


@app.command(
    "exec",
    cls=Command,
    context_settings={"allow_interspersed_args": False},
    epilog="Example: netbpf netns exec red -- ip addr",
)
def run(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="A name, a path or pid:N.", autocompletion=netns_names),
    ],
    command: Annotated[list[str], typer.Argument(metavar="-- CMD...", help="What to run.")],
) -> None:
    """Run a command inside a namespace; it takes the place of this process."""
    from netbpf import netns

    # Left in place by the parser, which stops looking for options at the name.
    argv = command[1:] if command[0] == "--" else command
    with netns.NetNS.parse(name) as place:
        netns.exec_in(place, argv)


def _document(
    found: Namespace, looker: ChainLooker, links: netns_links.Reader
) -> dict[str, Any] | None:
    """The namespace as cli.md has it; None when it has gone meanwhile."""
    from netbpf import netns
    from netbpf.errors import KernelError, NotFoundError

    devices, chains, attached, nsid = [], [], [], None
    try:
        with found.open() as place:
            # First what needs no right to enter.
            nsid, attached = _nsid(place), links.documents(place)
            devices = netns.run_in(place, lambda: [name for _, name in socket.if_nameindex()])
            chains = looker.chains(place)
    except NotFoundError:
        return None
    except KernelError as error:
        note(f"nothing more of {found.reference}: {error}")
    return {
        "name": found.name,
        "inode": found.inode,
        "nsid": nsid,
        "pids": list(found.pids),
        "devices": devices,
        "chains": chains,
        "links": attached,
    }


def _nsid(place: Any) -> int | None:
    from netbpf.netlink import nsids
    from netbpf.netlink.rtnl import Rtnl

    with Rtnl() as rtnl:
        return nsids.get(rtnl, place)


def _few(items: list[Any]) -> str | None:
    shown = " ".join(map(str, items[:8]))
    return (f"{shown} …({len(items)})" if len(items) > 8 else shown) or None
