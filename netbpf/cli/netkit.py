"""``netbpf netkit``: the devices, and the programs on both their sides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from netbpf.cli import chain as shared
from netbpf.cli.command import ChangingCommand, Command, Group
from netbpf.cli.output import emit, note, say, table
from netbpf.cli.settings import settings

if TYPE_CHECKING:
    from netbpf.netkit.model import Device

app = typer.Typer(
    cls=Group, add_completion=False, help="Netkit devices, and the programs on both their sides."
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The (primary) device's name.")]


class _Command(Command):
    hook_words = "primary|peer"


class _Changing(ChangingCommand):
    hook_words = "primary|peer"


@app.command(
    cls=_Changing,
    epilog="Example: netbpf netkit add nk0 --peer eth0 --peer-netns pod --addr 10.0.0.1/24 "
    "--peer-addr 10.0.0.2/24 --up",
)
def add(
    name: Name,
    single: Annotated[bool, typer.Option("--single", help="One device without a peer.")] = False,
    peer: Annotated[str | None, typer.Option(metavar="NAME", help="The peer's name.")] = None,
    peer_netns: Annotated[
        str | None, typer.Option(metavar="NS", help="The namespace for the peer.")
    ] = None,
    mode: Annotated[str, typer.Option(metavar="l3|l2", help="With or without Ethernet.")] = "l3",
    policy: Annotated[
        str,
        typer.Option(
            metavar="forward|blackhole", help="What happens while no program is attached."
        ),
    ] = "forward",
    peer_policy: Annotated[
        str | None, typer.Option(metavar="forward|blackhole", help="The same for the peer.")
    ] = None,
    scrub: Annotated[
        str | None, typer.Option(metavar="default|none", help="What a packet loses on its way.")
    ] = None,
    peer_scrub: Annotated[
        str | None, typer.Option(metavar="default|none", help="The same for the peer.")
    ] = None,
    headroom: Annotated[int | None, typer.Option(metavar="BYTES", help="At both ends.")] = None,
    tailroom: Annotated[int | None, typer.Option(metavar="BYTES", help="At both ends.")] = None,
    rx_queues: Annotated[
        int | None, typer.Option(metavar="N", help="Receive queues; all but one can be leased.")
    ] = None,
    peer_rx_queues: Annotated[
        int | None, typer.Option(metavar="N", help="The same for the peer.")
    ] = None,
    mtu: Annotated[int | None, typer.Option(metavar="BYTES", help="At both ends.")] = None,
    mac: Annotated[str | None, typer.Option(metavar="MAC", help="In mode l2.")] = None,
    peer_mac: Annotated[
        str | None, typer.Option(metavar="MAC", help="The same for the peer.")
    ] = None,
    addr: Annotated[
        list[str] | None, typer.Option(metavar="CIDR", help="An address; may be repeated.")
    ] = None,
    peer_addr: Annotated[
        list[str] | None, typer.Option(metavar="CIDR", help="The same for the peer.")
    ] = None,
    up: Annotated[bool, typer.Option("--up", help="Set it up, both ends of a pair.")] = False,
) -> None:
    """Make a netkit pair, or a single netkit device."""
    from netbpf.netkit.model import Settings

    wanted: dict[str, Any] = {
        "peer": peer,
        "single": single,
        "mode": mode,
        "policy": policy,
        "peer_policy": peer_policy,
        "scrub": scrub,
        "peer_scrub": peer_scrub,
        "headroom": headroom,
        "tailroom": tailroom,
        "rx_queues": rx_queues,
        "peer_rx_queues": peer_rx_queues,
        "mtu": mtu,
        "mac": mac,
        "peer_mac": peer_mac,
        "addrs": addr or (),
        "peer_addrs": peer_addr or (),
        "up": up,
    }
    if single and peer_netns is not None:
        raise ValueError("a single device has no peer: leave out --peer-netns, or make a pair")
    if settings.dry_run:
        Settings(name=name, **wanted)
        kind = "single netkit device" if single else "netkit pair"
        emit({"dry_run": True, "device": None}, lambda: say(f"would make the {kind} {name}"))
        return
    from netbpf import netkit

    made = netkit.add(name, peer_netns=peer_netns, **wanted)
    emit({"device": _document(made)}, lambda: _table([made]))


@app.command(
    cls=_Changing, epilog="Example: netbpf netkit set nk0 --policy blackhole --peer-policy forward"
)
def set(
    name: Name,
    policy: Annotated[
        str | None,
        typer.Option(
            metavar="forward|blackhole", help="What happens while no program is attached."
        ),
    ] = None,
    peer_policy: Annotated[
        str | None, typer.Option(metavar="forward|blackhole", help="The same for the peer.")
    ] = None,
    mtu: Annotated[int | None, typer.Option(metavar="BYTES", help="Of this end.")] = None,
    mac: Annotated[str | None, typer.Option(metavar="MAC", help="Of this end, in mode l2.")] = None,
    up: Annotated[bool | None, typer.Option("--up/--down", help="Set this end up or down.")] = None,
) -> None:
    """Change a netkit device; mode, scrub, headroom, tailroom and pairing are fixed for good."""
    from netbpf import netkit

    changes: dict[str, Any] = {
        "policy": policy,
        "peer_policy": peer_policy,
        "mtu": mtu,
        "mac": mac,
        "up": up,
    }
    if settings.dry_run:
        found = netkit.get(name)
        words = ", ".join(f"{key} {value}" for key, value in changes.items() if value is not None)
        emit(
            {"dry_run": True, "device": _document(found)},
            lambda: say(f"would set {words or 'nothing'} on {name}"),
        )
        return
    changed = netkit.set(name, **changes)
    emit({"device": _document(changed)}, lambda: _table([changed]))


@app.command("del", cls=_Changing, epilog="Example: netbpf netkit del nk0 nk1")
def delete(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME...", help="The devices.", autocompletion=shared.devices),
    ],
) -> None:
    """Delete netkit devices; deleting one end of a pair deletes the other."""
    from netbpf import netkit

    if settings.dry_run:
        found = [netkit.get(name).name for name in names]
        emit({"dry_run": True, "deleted": found}, lambda: say(f"would delete {', '.join(found)}"))
        return
    gone = netkit.delete(*names)
    emit({"deleted": gone}, lambda: say(f"deleted {', '.join(gone)}"))


@app.command(cls=_Command, epilog="Example: netbpf netkit show --json | jq '.devices[].name'")
def show(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Only this device.", autocompletion=shared.devices),
    ] = None,
) -> None:
    """Show the netkit devices of a namespace."""
    from netbpf import netkit

    found = netkit.show(name)
    emit({"devices": [_document(each) for each in found]}, lambda: _table(found))


for _verb, _command, _example in (
    (shared.attach, _Changing, "attach nk0 peer builtin:count --first"),
    (shared.detach, _Changing, "detach nk0 peer name:count"),
    (shared.update, _Changing, "update nk0 peer name:drop builtin:next"),
):
    app.command(cls=_command, epilog=f"Example: netbpf netkit {_example}")(_verb)


@app.command(cls=_Command, epilog="Example: netbpf netkit chain nk0 peer")
def chain(
    device: shared.Device,
    hook: Annotated[
        str | None, typer.Argument(metavar="HOOK", help="Only this one of its chains.")
    ] = None,
) -> None:
    """Show the programs on a netkit device's sides, in the order in which they run."""
    from netbpf import netkit

    ifindex = shared.ifindex_of(device)
    names = (hook,) if hook else netkit.HOOKS.names
    chains = [(settings.netns, device, netkit.chain(ifindex, name)) for name in names]
    shared.show_chains(chains, empty=True)


def _document(device: Device) -> dict[str, Any]:
    document = device.as_json()
    document["netns"] = document["netns"] or settings.netns
    document["leases"] = [each.seen_from(settings.netns).as_json() for each in device.leases]
    return document


def _table(devices: list[Device]) -> None:
    if not devices:
        note("there are no netkit devices here")
        return
    rows = []
    for each in devices:
        peer = each.peer
        other = None
        if peer is not None:
            other = f"{peer.netns}:{peer.name}" if peer.netns else f"{peer.name}"
        rows.append(
            [
                each.name,
                each.ifindex,
                "up" if each.up else "down",
                each.pairing if each.pairing == "single" or each.primary else "pair (peer)",
                each.mode,
                f"{each.policy}/{peer.policy}" if peer else each.policy,
                f"{each.scrub}/{peer.scrub}" if peer else each.scrub,
                each.rx_queues,
                each.mtu,
                other,
                "\n".join(each.addrs) or None,
            ]
        )
    table(
        [
            "NAME",
            "IFINDEX",
            "STATE",
            "KIND",
            "MODE",
            "POLICY",
            "SCRUB",
            "RXQ",
            "MTU",
            "PEER",
            "ADDRS",
        ],
        rows,
    )
