"""``prog run``, ``tcx run`` and ``netkit run``: packets through programs, without traffic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, replace
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from netbpf import captures
from netbpf.cli import chain as shared
from netbpf.cli import references
from netbpf.cli.output import note, say
from netbpf.cli.program_options import Variables
from netbpf.cli.settings import settings
from netbpf.errors import BpfError
from netbpf.plumbing.packet_path import ifindex_of

if TYPE_CHECKING:
    from netbpf.bpf.chain_run import ChainResult, ChainRunner
    from netbpf.bpf.prog import Program, ProgramInfo
    from netbpf.bpf.test_run import Context, SkbContext
    from netbpf.cli.run_report import Report

Data = Annotated[
    str | None,
    typer.Option("--data", metavar="HEX", help="One packet: an Ethernet frame in hexadecimal."),
]
Pcap = Annotated[
    str | None,
    typer.Option(
        "--pcap", metavar="FILE", help="The packets of a pcap or pcapng file; - is stdin."
    ),
]
Out = Annotated[
    str | None,
    typer.Option(
        "--out",
        metavar="FILE",
        help="Write the packets that pass, as they come out: pcap, or pcapng by that suffix; - is "
        "stdout.",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", metavar="N", min=1, help="Only the first N packets."),
]
Mark = Annotated[
    int | None,
    typer.Option("--mark", metavar="N", min=0, max=2**32 - 1, help="The mark of each packet."),
]


def prog_run(
    ref: Annotated[
        str,
        typer.Argument(
            metavar="REF",
            help="id:N, name:NAME, tag:HEX or pin:PATH; or FILE.o, FILE.o:NAME, builtin:NAME.",
        ),
    ],
    data: Data = None,
    pcap: Pcap = None,
    repeat: Annotated[
        int,
        typer.Option(metavar="N", min=1, max=2**32 - 1, help="Runs per packet, for a better time."),
    ] = 1,
    lookup: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS:PORT", help="Ask an sk_lookup program: what a connection here gets."
        ),
    ] = None,
    remote: Annotated[
        str | None,
        typer.Option("--from", metavar="ADDRESS:PORT", help="Where that connection comes from."),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(metavar="tcp|udp", help="The protocol of that connection, tcp if not said."),
    ] = None,
    out: Out = None,
    limit: Limit = None,
    mark: Mark = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--dev",
            metavar="DEV",
            help="The packets are at this device.",
            autocompletion=shared.devices,
        ),
    ] = None,
    variables: Variables = None,
) -> None:
    """Run a program over packets, without traffic.

    What it does to maps is done. With --repeat each run gets the packet as the run before left it.
    """
    if lookup is not None:
        if any(each is not None for each in (data, pcap, out, limit, mark, device)):
            raise ValueError("--lookup: there is no packet; only --from, --protocol and --repeat")
        from netbpf.cli import run_lookup

        run_lookup.run(ref, variables or [], lookup, remote, protocol or "tcp", repeat)
        return
    if remote is not None or protocol is not None:
        raise ValueError("--from and --protocol go with --lookup")
    _check(data, pcap, out)
    ifindex = ifindex_of(device) if device is not None else 0
    with references.program(ref, variables or [], None) as program:
        info = program.info()
        context = _context(info, ifindex, mark)
        _check_out(info, out)
        columns = ["PACKET", "LENGTH", "VERDICT", "RETVAL", "OUT", "NS"]
        if _dissects(info):
            columns.append("KEYS")
        with _packets(data, pcap, out, limit, columns) as (packets, report, writer):
            for packet in packets:
                _run_one(program, info, packet, context, repeat, report, writer, data is not None)


def chain_run(
    ctx: typer.Context,
    device: shared.Device,
    hook: shared.HookName,
    data: Data = None,
    pcap: Pcap = None,
    out: Out = None,
    limit: Limit = None,
    mark: Mark = None,
) -> None:
    """Run packets through a chain, without traffic, as far as the kernel would take them.

    What programs do to maps is done. A packet and its mark go from one program to the next.
    """
    _check(data, pcap, out)
    shared.hooks_of(ctx).hook(hook)
    with _runner(ctx, ifindex_of(device), hook) as runner:
        runner.context = replace(runner.context, mark=mark or 0)
        names = [
            f"{position} {info.name or f'id:{info.id}'}"
            for position, info in enumerate(runner.infos)
        ]
        columns = ["PACKET", "LENGTH", *names, "VERDICT"]
        with _packets(data, pcap, out, limit, columns) as (packets, report, writer):
            for packet in packets:
                _chain_one(runner, packet, report, writer, data is not None)


def _runner(ctx: typer.Context, ifindex: int, hook: str) -> AbstractContextManager[ChainRunner]:
    if ctx.parent is not None and ctx.parent.info_name == "netkit":
        from netbpf import netkit

        return netkit.runner(ifindex, hook)
    from netbpf import tcx

    return tcx.runner(ifindex, hook)


def _check(data: str | None, pcap: str | None, out: str | None) -> None:
    if (data is None) == (pcap is None):
        raise ValueError("which packets? one of --data HEX and --pcap FILE is needed")
    if out == "-" and settings.json:
        raise ValueError("standard output cannot take both the capture and JSON: name a file")


@contextmanager
def _packets(
    data: str | None, pcap: str | None, out: str | None, limit: int | None, columns: list[str]
) -> Iterator[tuple[Iterable[captures.Packet], Report, captures.Writer | None]]:
    """The packets that were asked for, the report of what becomes of them, and the capture."""
    from netbpf.cli.run_report import reported

    with ExitStack() as stack:
        packets: Iterable[captures.Packet]
        capture = None
        if data is not None:
            frame = _frame(data)
            packets = [captures.Packet(0, 0, frame, len(frame))]
        else:
            packets = capture = stack.enter_context(captures.reading(pcap or ""))
        writer = stack.enter_context(captures.writing(out)) if out is not None else None
        report = stack.enter_context(reported(columns, silent=out == "-"))
        yield islice(packets, limit), report, writer
        if capture is not None and capture.framed:
            note(f"{capture.framed} IP packets were given an Ethernet header with zero addresses")
    if report.unfit:
        raise typer.Exit(1)


def _frame(data: str) -> bytes:
    """The bytes of ``--data``: hexadecimal digits, with spaces or colons between them if one likes.

    :raises ValueError: it is something else.
    """
    digits = data.removeprefix("0x").replace(":", " ")
    try:
        return bytes.fromhex(digits)
    except ValueError:
        raise ValueError("--data: a packet is written in hexadecimal, two digits a byte") from None


def _dissects(info: ProgramInfo) -> bool:
    from netbpf.bpf import uapi

    return info.type == uapi.BPF_PROG_TYPE_FLOW_DISSECTOR


def _check_out(info: ProgramInfo, out: str | None) -> None:
    if out is not None and _dissects(info):
        raise ValueError(f"--out: a {info.type_name} reads packets and lets none pass")


def _context(info: ProgramInfo, ifindex: int, mark: int | None) -> Context | None:
    """The context for a program of this type, with what was asked for."""
    from netbpf.bpf import test_run, uapi

    if info.type in test_run.SKB_TYPES:
        return test_run.SkbContext(mark=mark or 0, ifindex=ifindex, ingress_ifindex=ifindex)
    if mark is not None:
        raise ValueError(f"--mark: a program of type {info.type_name} sees no mark")
    if info.type == uapi.BPF_PROG_TYPE_XDP:
        return test_run.XdpContext(ingress_ifindex=ifindex) if ifindex else None
    if ifindex:
        raise ValueError(f"--dev: a program of type {info.type_name} sees no device")
    return None


def _run_one(
    program: Program,
    info: ProgramInfo,
    packet: captures.Packet,
    context: Context | None,
    repeat: int,
    report: Report,
    writer: captures.Writer | None,
    alone: bool,
) -> None:
    from netbpf.bpf.flow_keys import FlowKeys
    from netbpf.bpf.test_run import SkbContext, passes, verdict
    from netbpf.cli.run_report import write_out

    try:
        result = program.test_run(packet.data, context=context, repeat=repeat)
    except BpfError as error:
        document = {
            "retval": None,
            **_not_run(packet, error, alone),
            "duration_ns": None,
            "flow_keys": None,
        }
        cells = [packet.number, len(packet.data), "not run", None, None, None]
        report.add(document, cells + [None] * _dissects(info))
        return
    word = verdict(info.type, result.retval)
    after = result.context if isinstance(result.context, SkbContext) else None
    keys = FlowKeys.parse(result.data_out) if _dissects(info) else None
    size = len(result.data_out)
    report.add(
        {
            "packet": packet.number,
            "retval": result.retval,
            "verdict": word,
            "data_out": result.data_out.hex(),
            "duration_ns": result.duration,
            **_after(after),
            "flow_keys": asdict(keys) if keys else None,
            "cut": packet.cut,
            "error": None,
        },
        [packet.number, len(packet.data), word, result.retval, size, result.duration]
        + [keys] * (keys is not None),
    )
    if alone and not settings.json and writer is None and keys is None:
        say(f"out: {result.data_out.hex()}")
    if passes(info.type, result.retval):
        write_out(writer, packet, result.data_out)


def _chain_one(
    runner: ChainRunner,
    packet: captures.Packet,
    report: Report,
    writer: captures.Writer | None,
    alone: bool,
) -> None:
    from netbpf.cli.run_report import write_out

    places = len(runner.infos)
    try:
        result = runner.run(packet.data)
    except BpfError as error:
        document = {**_not_run(packet, error, alone), "programs": []}
        report.add(document, [packet.number, len(packet.data), *[None] * places, "not run"])
        return
    report.add(
        {
            "packet": packet.number,
            "verdict": result.verdict,
            "data_out": result.data_out.hex(),
            **_after(result.context),
            "cut": packet.cut,
            "error": None,
            "programs": _steps(result),
        },
        [
            packet.number,
            len(packet.data),
            *(step.verdict for step in result.steps),
            *[None] * (places - len(result.steps)),
            result.verdict,
        ],
    )
    if alone and not settings.json and writer is None:
        say(f"out: {result.data_out.hex()}")
    if result.passes:
        write_out(writer, packet, result.data_out)


def _steps(result: ChainResult) -> list[dict[str, Any]]:
    return [
        {
            "position": step.position,
            "prog": {"id": step.prog_id, "name": step.name},
            "retval": step.retval,
            "verdict": step.verdict,
            "duration_ns": step.duration,
        }
        for step in result.steps
    ]


def _after(context: SkbContext | None) -> dict[str, int | None]:
    """What of the context a packet takes along."""
    return {
        "mark": context.mark if context else None,
        "priority": context.priority if context else None,
    }


def _not_run(packet: captures.Packet, error: BpfError, alone: bool) -> dict[str, Any]:
    """The document of a packet of a capture that the kernel does not take; else the error."""
    if alone or error.code != "unfit_packet":
        raise error
    note(f"packet {packet.number}: {error.message}")
    return {
        "packet": packet.number,
        "verdict": None,
        "data_out": None,
        **_after(None),
        "cut": packet.cut,
        "error": error.message,
    }
