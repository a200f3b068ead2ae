"""Attaching programs at the probes that a program's own source has set (USDT)."""

from __future__ import annotations

import errno
import os
import re
import sys
from contextlib import ExitStack
from functools import partial

from netbpf import features
from netbpf.bpf import link_create, perf_event, uapi
from netbpf.bpf.fd import FD
from netbpf.bpf.link import Link
from netbpf.bpf.prog import Program
from netbpf.closing import Several
from netbpf.elf import usdt, usdt_args
from netbpf.elf.spec import ProgramSpec
from netbpf.errors import BpfError, NetbpfError, NotFoundError, NotSupportedError, ObjectFileError
from netbpf.plumbing import attach_tracing as tracing
from netbpf.plumbing.attachment import Attachment, Where, wanted
from netbpf.plumbing.usdt_maps import Maps

_SEMAPHORES = "/sys/bus/event_source/devices/uprobe/format/ref_ctr_offset"
# Of a kernel that has no such link, or of a program that was loaded without its attach type.
_NO_LINK = (errno.EINVAL, errno.EOPNOTSUPP)


def attach(spec: ProgramSpec, program: Program, where: Where) -> Attachment:
    """To every place of a probe in a file, in all processes that run it or in one.

    The program finds its arguments and ``cookie`` by way of the maps of libbpf's usdt.bpf.h, which
    are those of ``object``, or found by the program; one that has not got them finds ``cookie`` as
    at other places.
    """
    text = where.function or spec.extra
    path, provider, name = _named(spec, text)
    probe = usdt.find(tracing.file_of(spec, path), provider, name)
    if (probe.machine, probe.byteorder) != (os.uname().machine, sys.byteorder):
        raise ObjectFileError(
            probe.path, f"it is made for {probe.machine}, this machine is {os.uname().machine}"
        )
    with ExitStack() as undo:
        of = where.object
        maps = undo.enter_context(Maps.of_object(of) if of is not None else Maps.of(program))
        cookies = [where.cookie for _ in probe.sites]
        if maps.known:
            cookies = maps.take(_arguments(probe, text), where.cookie, text)
            if features.probe("bpf_cookie") is False:
                maps.place(_addresses(probe, where.pid), cookies, text)
                cookies = [0 for _ in probe.sites]
        made = _attached(spec, program, probe, cookies, text, where.pid)
        undo.pop_all()
    link = made[0].link if len(made) == 1 else None
    return Attachment(spec.name, link, partial(_end, made, maps))


def _named(spec: ProgramSpec, text: str) -> tuple[str, str, str]:
    path, _, rest = text.partition(":")
    provider, _, name = rest.partition(":")
    if not (path and provider and name) or ":" in name:
        raise wanted(spec, "function: path:provider:name of the probe")
    return path, provider, name


def _arguments(probe: usdt.Probe, text: str) -> list[list[usdt_args.Argument]]:
    try:
        return [usdt_args.parse(site.arguments, probe.machine) for site in probe.sites]
    except ValueError as error:
        raise ObjectFileError(probe.path, f"probe {text}: {error}", section=usdt.NOTES) from error


def _attached(
    spec: ProgramSpec,
    program: Program,
    probe: usdt.Probe,
    cookies: list[int],
    text: str,
    pid: int | None,
) -> list[Attachment]:
    """All places by one link, since Linux 6.6; before, each by a perf event."""
    try:
        made = link_create.uprobe_multi(
            program.fileno(),
            uapi.BPF_TRACE_UPROBE_MULTI,
            probe.path,
            [site.offset for site in probe.sites],
            cookies=cookies,
            semaphores=[site.semaphore for site in probe.sites],
            pid=pid or 0,
        )
    except OSError as error:
        if error.errno not in _NO_LINK:
            reasons = {errno.ESRCH: (f"there is no process {pid}", None)}
            raise tracing.refusal(spec, error, text, reasons) from error
        return _events(spec, program, probe, cookies, text, pid)
    return [Attachment(spec.name, Link(FD(made)))]


def _events(
    spec: ProgramSpec,
    program: Program,
    probe: usdt.Probe,
    cookies: list[int],
    text: str,
    pid: int | None,
) -> list[Attachment]:
    if any(site.semaphore for site in probe.sites) and not os.path.exists(_SEMAPHORES):
        raise NotSupportedError(f"the semaphore of probe {text}", since="4.20")
    made: list[Attachment] = []
    with ExitStack() as undo:
        for site, cookie in zip(probe.sites, cookies, strict=True):
            try:
                number = perf_event.probe(
                    "uprobe",
                    probe.path,
                    site.offset,
                    pid=-1 if pid is None else pid,
                    semaphore=site.semaphore,
                )
            except OSError as error:
                raise tracing.refusal(spec, error, text) from error
            each = tracing.at_event(spec, program, FD(number), text, cookie)
            made.append(undo.enter_context(each))
        undo.pop_all()
    return made


def _end(made: list[Attachment], maps: Maps) -> None:
    """Detach, and then give back what the program read: until it is detached it may be running."""
    with maps, Several() as all_of_them:
        for each in made:
            all_of_them.add(each)
        links = [each.link.id for each in made if each.link is not None]
        all_of_them.close()
        if any(_lives(number) for number in links):
            # By a pin, or somebody else's descriptor.
            maps.leave()


def _lives(number: int) -> bool:
    try:
        Link.from_id(number).close()
    except NotFoundError:
        return False
    except BpfError:
        # Nobody may be asked.
        return True
    return True


def _addresses(probe: usdt.Probe, pid: int | None) -> list[int]:
    """Where the places are in memory: before Linux 5.15 a program knows one from another by it."""
    if probe.fixed:
        return [site.address for site in probe.sites]
    if not pid:
        raise NetbpfError(
            f"{probe.path} is not loaded at the same place in each process, and this kernel tells "
            "programs no cookie to know the places by",
            hint="say pid, of a process that has loaded it",
            code="not_supported",
        )
    try:
        with open(f"/proc/{pid}/maps", errors="surrogateescape") as lines:
            text = lines.read()
    except FileNotFoundError as error:
        raise NotFoundError("process", str(pid)) from error
    found = [in_memory(text, os.path.realpath(probe.path), site.offset) for site in probe.sites]
    if None in found:
        raise NotFoundError("file", probe.path, where=f"in the memory of process {pid}")
    return [address for address in found if address is not None]


def in_memory(maps: str, path: str, offset: int) -> int | None:
    """The address of what is at ``offset`` of a file, by what /proc/PID/maps says of code."""
    pattern = r"^([0-9a-f]+)-([0-9a-f]+) ..x. ([0-9a-f]+) \S+ \d+ +(.*)$"
    for line in re.finditer(pattern, maps, re.MULTILINE):
        start, end, at = (int(number, 16) for number in line.group(1, 2, 3))
        if line[4] == path and at <= offset < at + end - start:
            return start + offset - at
    return None
