"""``netbpf lease``: rx queues of NICs on lease to netkit devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from netbpf.cli import chain as shared
from netbpf.cli import exit_status
from netbpf.cli.command import ChangingCommand, Command, Group
from netbpf.cli.output import emit, note, say, table
from netbpf.cli.settings import settings

if TYPE_CHECKING:
    from netbpf.netkit.lease import Finding, Lease

app = typer.Typer(
    cls=Group, add_completion=False, help="Rx queues of NICs on lease to netkit devices."
)

Netkit = Annotated[
    str,
    typer.Argument(
        metavar="NETKIT",
        help="A single netkit device, or the peer of a pair.",
        autocompletion=shared.devices,
    ),
]
Nic = Annotated[str, typer.Argument(metavar="NIC:QUEUE", help="A NIC and its rx queue: eth0:3.")]
NicNetns = Annotated[
    str | None, typer.Option(metavar="NS", help="The NIC's namespace, if it is another.")
]
Count = Annotated[
    int, typer.Option(metavar="N", help="This queue and those after it, all or none.")
]


@app.command(
    cls=ChangingCommand, epilog="Example: netbpf lease add -n pod nk0 eth0:3 --nic-netns pid:1"
)
def add(
    netkit: Netkit,
    nic: Nic,
    nic_netns: NicNetns = None,
    count: Count = 1,
    steer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FLOW",
            help="Take the queue out of RSS and send PROTO[:ADDRESS]:PORT to it (tcp:443), or rss: "
            "only the first. Again for another.",
        ),
    ] = None,
) -> None:
    """Lease rx queues of a NIC to a netkit device; only its deletion ends a lease."""
    from netbpf.netkit import lease
    from netbpf.netkit import steer as steering

    device, queue = queue_of(nic)
    if settings.dry_run:
        queues = range(queue, queue + count)
        operation = f"lease {device}:{queue} to {netkit}"
        found = lease.check(netkit, device, queue, nic_netns=nic_netns, count=count)
        if steer is not None and not found:
            found = steering.check(netkit, device, queues, steer, nic_netns=nic_netns)
        for finding in found:
            if finding.blocks:
                raise finding.as_error(operation)
        words = ", ".join(f"{device}:{number}" for number in queues)
        emit(
            {"dry_run": True, "lease": None, "leases": []},
            lambda: say(f"would lease {words} to {netkit}"),
        )
        return
    made = lease.add(netkit, device, queue, nic_netns=nic_netns, count=count, steer=steer)
    documents = [each.seen_from(settings.netns).as_json() for each in made]
    emit({"lease": documents[0], "leases": documents}, lambda: _table(made))


@app.command(
    cls=Command,
    epilog="Example: netbpf lease show --json | jq '.leases[] | select(.user == null)'",
)
def show(
    device: Annotated[
        str | None,
        typer.Argument(
            metavar="DEVICE",
            help="Only leases of this netkit device or NIC.",
            autocompletion=shared.devices,
        ),
    ] = None,
) -> None:
    """Show the leases of all namespaces; null is what the kernel does not tell."""
    from netbpf.netkit import lease

    found = lease.of_device(lease.survey(), device)
    leases = [each.seen_from(settings.netns) for each in found.leases]
    unknown = [{**gap.as_json(), "netns": gap.netns or settings.netns} for gap in found.unknown]

    def render() -> None:
        _table(leases)
        for gap in unknown:
            what = ":".join(filter(None, (gap["netns"], gap["device"])))
            note(f"{what}: unknown {gap['reason']}")

    emit({"leases": [each.as_json() for each in leases], "unknown": unknown}, render)


@app.command(cls=Command, epilog="Example: netbpf lease check nk0 eth0:3 --for io-uring")
def check(
    netkit: Netkit,
    nic: Nic,
    nic_netns: NicNetns = None,
    count: Count = 1,
    purpose: Annotated[
        str | None,
        typer.Option("--for", metavar="io-uring|af-xdp", help="What the lease is for."),
    ] = None,
) -> int:
    """Say all that stands in the way of a lease and what to do; status 1 if anything does."""
    from netbpf.netkit import lease

    device, queue = queue_of(nic)
    found = lease.check(
        netkit,
        device,
        queue,
        nic_netns=nic_netns,
        count=count,
        purpose=purpose,  # type: ignore[arg-type]
    )
    ready = not any(finding.blocks for finding in found)
    emit(
        {"ready": ready, "findings": [finding.as_json() for finding in found]},
        lambda: _findings(found, ready),
    )
    return exit_status.DONE if ready else exit_status.REFUSED


@app.command("del", cls=ChangingCommand, epilog="Example: netbpf lease del nk0:2 --recreate")
def delete(
    netkit: Annotated[
        str,
        typer.Argument(
            metavar="NETKIT[:QUEUE]",
            help="A netkit device and its queue; without one, all on lease.",
            autocompletion=shared.devices,
        ),
    ],
    recreate: Annotated[
        bool,
        typer.Option("--recreate", help="Make the single device again, with its other leases."),
    ] = False,
    steer: Annotated[
        bool,
        typer.Option("--steer", help="Of NIC:QUEUE, take back only what --steer did; no lease."),
    ] = False,
) -> None:
    """End leases, for which the device has to go; without --recreate, say what else would."""
    from netbpf.netkit import lease
    from netbpf.netkit.lease_end import NOT_BROUGHT_BACK

    if steer:
        _unsteer(netkit, recreate)
        return
    device, queue = queue_of(netkit) if ":" in netkit else (netkit, None)
    do = lease.plan if settings.dry_run else lease.delete
    done = do(device, queue, recreate=recreate)
    ended = [each.seen_from(settings.netns) for each in done.ended]
    kept = [each.seen_from(settings.netns) for each in done.kept]
    document = {
        "deleted": [each.as_json() for each in ended],
        "leases": [each.as_json() for each in kept],
    }
    word = "would end" if settings.dry_run else "ended"

    def render() -> None:
        for each in ended:
            say(f"{word} {each.netkit.device}:{each.netkit.queue} ({each.nic or 'NIC unknown'})")
        _table(kept)
        note(f"{done.device.name} is made again, without {NOT_BROUGHT_BACK}")

    emit({"dry_run": settings.dry_run, **document}, render)


def _unsteer(nic: str, recreate: bool) -> None:
    from netbpf.errors import NotFoundError
    from netbpf.netkit import steer

    if recreate:
        raise ValueError("--steer ends no lease: it goes without --recreate")
    device, queue = queue_of(nic)
    if settings.dry_run:
        raise ValueError("--steer has no --dry-run")
    if not steer.undo_at(device, queue):
        raise NotFoundError("steering", nic, hint="nothing was done there by --steer")
    emit({"dry_run": False, "deleted": [], "leases": []}, lambda: say(f"{nic} is not steered to"))


def queue_of(text: str) -> tuple[str, int]:
    """NIC and queue of what is written as ``NIC:QUEUE``.

    :raises ValueError: it is not.
    """
    device, colon, number = text.rpartition(":")
    if not (colon and device and number.isascii() and number.isdecimal() and len(number) < 10):
        raise ValueError(f"{text!r} is no queue: write NIC:QUEUE, as in eth0:3")
    return device, int(number)


def _findings(found: list[Finding], ready: bool) -> None:
    for finding in found:
        word = "" if finding.blocks else "perhaps: "
        say(f"{word}{finding.message}" + (f": {finding.hint}" if finding.hint else ""))
    if ready:
        say("nothing stands in the way")


def _table(leases: list[Lease]) -> None:
    if not leases:
        note("there are no leases")
        return
    table(
        ["NETKIT", "QUEUE", "NETNS", "NIC", "NIC QUEUE", "NIC NETNS", "USER"],
        [
            [
                each.netkit.device or f"ifindex {each.netkit.ifindex}",
                each.netkit.queue,
                each.netkit.netns,
                each.nic.device if each.nic else "?",
                each.nic.queue if each.nic else "?",
                each.nic.netns if each.nic else "?",
                each.user or ("?" if each.nic is None else None),
            ]
            for each in leases
        ],
    )
