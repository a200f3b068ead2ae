"""Probes that a program's own source has set (USDT): where in an executable or a library they are.

Each place that the compiler made of one is told in a note of the section ``.note.stapsdt``:
https://sourceware.org/systemtap/wiki/UserSpaceProbeImplementation
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from netbpf.elf.executable import opened
from netbpf.errors import NotFoundError, ObjectFileError
from netbpf.records import record

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

NOTES = ".note.stapsdt"
# Where this section was when the file was linked is told in each note: what moves all addresses
# of a file afterwards (prelink) leaves the notes alone.
_BASE = ".stapsdt.base"
_OWNER = b"stapsdt\0"
_TYPE = 3
_EXECUTABLE = 1
# A program with thousands of probes has some hundred kilobytes of them. Each note is looked at.
_MAX_NOTES = 8 << 20
_MACHINES = {
    "EM_X86_64": "x86_64",
    "EM_AARCH64": "aarch64",
    "EM_RISCV": "riscv64",
    "EM_S390": "s390x",
}


class Note(NamedTuple):
    """A note as it is written: addresses as of linking, the arguments in the assembler's words."""

    provider: str
    name: str
    arguments: str
    address: int
    base: int
    semaphore: int


class Site(NamedTuple):
    """A place of a probe.

    ``offset`` is in the file; so is ``semaphore``, 0 where there is none: the program counts there
    who is looking, and skips the probe for nobody. ``address`` is where a file that is not moved
    when it is loaded has it in memory.
    """

    offset: int
    address: int
    semaphore: int
    arguments: str


@record(slots=True, frozen=True)
class Probe:
    """All places of a probe in the file at ``path``.

    ``machine`` is in the words of ``uname -m``; ``fixed`` whether the file is always loaded at the
    addresses that it was linked for.
    """

    path: str
    machine: str
    byteorder: str
    fixed: bool
    sites: tuple[Site, ...]


def find(path: str | os.PathLike[str], provider: str, name: str) -> Probe:
    """The probe ``provider:name`` in the file.

    :raises NotFoundError: there is no such file, or no such probe in it.
    :raises ObjectFileError: it is no 64-bit executable or library, or its notes are malformed.
    """
    path = os.fspath(path)
    with opened(path) as elf:
        kind = elf.header["e_type"]
        if elf.elfclass != 64 or kind not in ("ET_EXEC", "ET_DYN"):
            raise ObjectFileError(path, "not a 64-bit executable or library")
        order = "little" if elf.little_endian else "big"
        base = elf.get_section_by_name(_BASE)
        moved_to = base["sh_addr"] if base is not None else 0
        segments = [s.header for s in elf.iter_segments() if s["p_type"] == "PT_LOAD"]
        found = list(notes(path, _content(path, elf), "<" if order == "little" else ">"))
        machine = str(elf.header["e_machine"])
    wanted = [note for note in found if (note.provider, note.name) == (provider, name)]
    if not wanted:
        known = sorted({f"{note.provider}:{note.name}" for note in found})
        shown = ", ".join(known[:8]) + (", …" if len(known) > 8 else "")
        raise NotFoundError(
            "probe",
            f"{provider}:{name}",
            where=f"in {path}",
            hint=f"there are {shown}" if known else f"its section {NOTES} is missing or empty",
        )
    return Probe(
        path=path,
        machine=_MACHINES.get(machine, machine.removeprefix("EM_").lower()),
        byteorder=order,
        fixed=kind == "ET_EXEC",
        sites=tuple(_site(path, note, moved_to, segments) for note in wanted),
    )


def notes(path: str, data: bytes, prefix: str) -> Iterator[Note]:
    """The notes in the content of ``.note.stapsdt``.

    :param prefix: the byte order, as the module struct has it.
    :raises ObjectFileError: one is malformed.
    """
    at = number = 0
    while at < len(data):
        try:
            yield _note(data, at, prefix)
        except (ValueError, struct.error) as error:
            reason = str(error) if isinstance(error, ValueError) else "it is not all there"
            raise ObjectFileError(path, f"note {number}: {reason}", section=NOTES) from error
        owner, size = struct.unpack_from(prefix + "II", data, at)
        at += 12 + _padded(owner) + _padded(size)
        number += 1


def _note(data: bytes, at: int, prefix: str) -> Note:
    owner, size, kind = struct.unpack_from(prefix + "III", data, at)
    start = at + 12 + _padded(owner)
    if start + size > len(data):
        raise ValueError("it is not all there")
    if data[at + 12 : at + 12 + owner] != _OWNER or kind != _TYPE:
        raise ValueError("it is none of a probe")
    address, base, semaphore = struct.unpack_from(prefix + "QQQ", data[start : start + size])
    provider, name, arguments = _strings(data[start + 24 : start + size])
    if not name:
        raise ValueError("the probe has no name")
    if arguments.startswith(":"):
        arguments = ""
    return Note(provider, name, arguments, address, base, semaphore)


def _strings(data: bytes) -> list[str]:
    *found, _ = data.split(b"\0", 3)
    if len(found) < 3:
        raise ValueError("provider, name and arguments do not end")
    return [text.decode("utf-8", "surrogateescape") for text in found]


def _padded(size: int) -> int:
    return -(-size // 4) * 4


def _content(path: str, elf: ELFFile) -> bytes:
    section = elf.get_section_by_name(NOTES)
    if section is None:
        return b""
    if section["sh_type"] != "SHT_NOTE":
        raise ObjectFileError(path, "it is of another type than notes", section=NOTES)
    size = section["sh_size"]
    if size > _MAX_NOTES:
        raise ObjectFileError(path, f"{size} bytes are too many", section=NOTES)
    elf.stream.seek(section["sh_offset"])
    data = bytes(elf.stream.read(size))
    if len(data) < size:
        raise ObjectFileError(path, "truncated: it is not all there", section=NOTES)
    return data


def _site(path: str, note: Note, moved_to: int, segments: list[Any]) -> Site:
    address = note.address
    if moved_to and note.base:
        address += moved_to - note.base
    called = f"{note.provider}:{note.name}"
    code = _segment(segments, address)
    if code is None or not code["p_flags"] & _EXECUTABLE:
        raise ObjectFileError(
            path, f"{called} is at {address:#x}, where the file has no instructions", section=NOTES
        )
    semaphore = 0
    if note.semaphore:
        data = _segment(segments, note.semaphore)
        if data is None or data["p_flags"] & _EXECUTABLE:
            raise ObjectFileError(
                path,
                f"the semaphore of {called} is at {note.semaphore:#x}, where the file has no data",
                section=NOTES,
            )
        semaphore = note.semaphore - data["p_vaddr"] + data["p_offset"]
    return Site(address - code["p_vaddr"] + code["p_offset"], address, semaphore, note.arguments)


def _segment(segments: list[Any], address: int) -> Any | None:
    for segment in segments:
        if segment["p_vaddr"] <= address < segment["p_vaddr"] + segment["p_memsz"]:
            return segment
    return None
