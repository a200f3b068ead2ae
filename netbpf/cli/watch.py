"""``netbpf watch``: a line for each change of chains and devices."""

from __future__ import annotations

import time
from math import isnan
from typing import Annotated

import typer

from netbpf.cli.chain import devices as known_devices
from netbpf.cli.command import Command
from netbpf.cli.namespaces import left_out
from netbpf.cli.output import emit, note, say
from netbpf.cli.settings import settings

app = typer.Typer(add_completion=False)


@app.command(cls=Command, epilog="Example: netbpf watch eth0 --json")
def watch(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DEV]...",
            help="Only these devices, also those to come.",
            autocompletion=known_devices,
        ),
    ] = None,
    all_netns: Annotated[
        bool, typer.Option("--all-netns", help="In every namespace that can be found.")
    ] = False,
    count: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="End after so many lines.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(metavar="S", min=0, help="End after so many seconds.")
    ] = None,
) -> None:
    """Tell of each change of chains and devices, until Ctrl-C.

    With --json each line is a document.
    """
    from netbpf.plumbing.watch import Watch

    if "" in (names or ()):
        raise ValueError("DEV is empty")
    if timeout is not None and isnan(timeout):
        raise ValueError("--timeout is no number of seconds")
    told = 0
    try:
        with Watch(
            names or (), everywhere=all_netns, here=settings.netns, left_out=left_out
        ) as watching:
            count_of = f"{watching.devices} device{'' if watching.devices == 1 else 's'}"
            note(f"watching {watching.chains} chains of {count_of}")
            for event in watching.events(timeout):
                now = time.time()
                stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
                stamp += f".{int(now % 1 * 1000):03}Z"
                emit({"time": stamp, **event.as_json()}, lambda: say(f"{stamp} {event}"))  # noqa: B023
                told += 1
                if told == count:
                    return
    except KeyboardInterrupt:
        # That is how a watch ends.
        return
