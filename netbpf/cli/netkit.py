"""``netbpf netkit``: the devices, and the programs on both their sides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from netbpf.cli import chain as shared
from netbpf.cli import chain_move, chain_view, run
from netbpf.cli import stats_options as options
from netbpf.cli.command import ChangingCommand, Command, Group
from netbpf.cli.namespaces import left_out
from netbpf.cli.output import emit, note, say, table
from netbpf.cli.settings import settings
from netbpf.plumbing.packet_path import ifindex_of

if TYPE_CHECKING:
    from netbpf.netkit.model import Device

app = typer.Typer(
    cls=Group, add_completion=False, help="Netkit devices, and the programs on both their sides."
)

_Fixed = Annotated[str | None, typer.Option(hidden=True)]
"""An option of ``add`` that ``set`` refuses with words."""

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
    peer_mtu: Annotated[
        int | None, typer.Option(metavar="BYTES", help="Where the peer's differs.")
    ] = None,
    mac: Annotated[str | None, typer.Option(metavar="MAC", help="In mode l2.")] = None,
    peer_mac: Annotated[
        str | None, typer.Option(metavar="MAC", help="The same for the peer.")
    ] = None,
    group: Annotated[int | None, typer.Option(metavar="N", help="The device group.")] = None,
    peer_group: Annotated[
        int | None, typer.Option(metavar="N", help="The same for the peer.")
    ] = None,
    alias: Annotated[
        str | None, typer.Option(metavar="TEXT", help="A text beside the name.")
    ] = None,
    peer_alias: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The same for the peer.")
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
        "peer_mtu": peer_mtu,
        "mac": mac,
        "peer_mac": peer_mac,
        "group": group,
        "peer_group": peer_group,
        "alias": alias,
        "peer_alias": peer_alias,
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
    new_name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="What it is called from now on.")
    ] = None,
    mtu: Annotated[int | None, typer.Option(metavar="BYTES", help="Of this end.")] = None,
    mac: Annotated[str | None, typer.Option(metavar="MAC", help="Of this end, in mode l2.")] = None,
    group: Annotated[int | None, typer.Option(metavar="N", help="The device group.")] = None,
    alias: Annotated[
        str | None, typer.Option(metavar="TEXT", help="A text beside the name; '' takes it away.")
    ] = None,
    addr: Annotated[
        list[str] | None, typer.Option(metavar="CIDR", help="An address to add; may be repeated.")
    ] = None,
    del_addr: Annotated[
        list[str] | None, typer.Option(metavar="CIDR", help="An address to take away.")
    ] = None,
    up: Annotated[bool | None, typer.Option("--up/--down", help="Set this end up or down.")] = None,
    mode: _Fixed = None,
    scrub: _Fixed = None,
    peer_scrub: _Fixed = None,
    headroom: _Fixed = None,
    tailroom: _Fixed = None,
    rx_queues: _Fixed = None,
    peer_rx_queues: _Fixed = None,
    peer: _Fixed = None,
    peer_netns: _Fixed = None,
    single: Annotated[bool | None, typer.Option("--single", hidden=True)] = None,
) -> None:
    """Change a netkit device; mode, scrub, headroom, tailroom, queues and pairing are for good."""
    from netbpf import netkit

    fixed = {
        "mode": mode,
        "scrub": scrub,
        "peer_scrub": peer_scrub,
        "headroom": headroom,
        "tailroom": tailroom,
        "rx_queues": rx_queues,
        "peer_rx_queues": peer_rx_queues,
        "peer": peer,
        "peer_netns": peer_netns,
        "single": single,
    }
    wanted: dict[str, Any] = {
        "policy": policy,
        "peer_policy": peer_policy,
        "name": new_name,
        "mtu": mtu,
        "mac": mac,
        "group": group,
        "alias": alias,
        "addrs": addr or None,
        "del_addrs": del_addr or None,
        "up": up,
        **fixed,
    }
    changes = {key: value for key, value in wanted.items() if value is not None}
    if settings.dry_run:
        from netbpf.netkit.change import checked

        checked(**changes)
        found = netkit.get(name)
        words = ", ".join(f"{key} {_words(value)}" for key, value in changes.items())
        emit(
            {"dry_run": True, "device": _document(found)},
            lambda: say(f"would set {words} on {name}"),
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
    ifindexes = {ifindex_of(name) for name in names}
    gone = netkit.delete(*names)
    shared.remove_defunct_pins(ifindexes)
    emit({"deleted": gone}, lambda: say(f"deleted {', '.join(gone)}"))


@app.command(cls=_Command, epilog="Example: netbpf netkit show --json | jq '.devices[].name'")
def show(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Only this device.", autocompletion=shared.devices),
    ] = None,
    all_netns: Annotated[
        bool, typer.Option("--all-netns", help="The devices of all namespaces.")
    ] = False,
) -> None:
    """Show the netkit devices of a namespace, or of all."""
    from netbpf import netkit

    if all_netns and name is not None:
        raise ValueError("with --all-netns all devices are shown: leave out the name")
    found = netkit.show_all(left_out) if all_netns else netkit.show(name)
    emit({"devices": [_document(each) for each in found]}, lambda: _table(found, all_netns))


for _verb, _command, _example in (
    (shared.attach, _Changing, "attach nk0 peer builtin:count --first"),
    (shared.detach, _Changing, "detach nk0 peer name:count"),
    (shared.update, _Changing, "update nk0 peer name:drop builtin:next"),
    (chain_move.move, _Changing, "move nk0 peer name:count --first"),
    (chain_move.order, _Changing, "order nk0 peer name:filter name:count"),
):
    app.command(cls=_command, epilog=f"Example: netbpf netkit {_example}")(_verb)


app.command("run", cls=_Command, epilog="Example: netbpf netkit run nk0 peer --pcap in.pcap")(
    run.chain_run
)


@app.command(cls=_Command, epilog="Example: netbpf netkit chain nk0 peer")
def chain(
    device: shared.Device,
    hook: Annotated[
        str | None, typer.Argument(metavar="HOOK", help="Only this one of its chains.")
    ] = None,
    stats: options.Stats = False,
    seconds: options.Seconds = None,
) -> None:
    """Show the programs on a netkit device's sides, in the order in which they run."""
    chain_view.show_sides(device, hook, stats=stats, seconds=seconds)


def _document(device: Device) -> dict[str, Any]:
    document = device.as_json()
    document["netns"] = document["netns"] or settings.netns
    document["leases"] = [each.seen_from(settings.netns).as_json() for each in device.leases]
    return document


def _table(devices: list[Device], all_netns: bool = False) -> None:
    if not devices:
        note("there are no netkit devices" if all_netns else "there are no netkit devices here")
        return
    columns = ["NAME", "IFINDEX", "STATE", "KIND", "MODE", "POLICY", "SCRUB", "RXQ", "MTU"]
    columns += ["PEER", "ADDRS", "ALIAS"]
    table(columns, [_row(each) for each in devices])


def _row(device: Device) -> list[object]:
    peer = device.peer
    other = None
    if peer is not None:
        name = peer.name or f"ifindex {peer.ifindex}"
        other = f"{peer.netns}:{name}" if peer.netns else name
    state = "up" if device.up else "down"
    if device.unfinished is not None:
        state += f", unfinished {device.unfinished}"
    elif device.up and device.state not in ("up", "unknown"):
        state += f" ({device.state})"
    return [
        f"{device.netns}:{device.name}" if device.netns else device.name,
        device.ifindex,
        state,
        device.pairing if device.pairing == "single" or device.primary else "pair (peer)",
        device.mode,
        f"{device.policy}/{peer.policy}" if peer else device.policy,
        f"{device.scrub}/{peer.scrub}" if peer else device.scrub,
        device.rx_queues,
        device.mtu,
        other,
        "\n".join(device.addrs) or None,
        device.alias,
    ]


def _words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
