"""Reading captures, one packet at a time, from whoever wrote them."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from netbpf.captures.packet import LINK_TYPES, MOST, Packet, ethernet_header, link_type_name
from netbpf.errors import CaptureError

_SECTION = b"\x0a\x0d\x0d\x0a"
# A packet's block has options too; nothing but padding and comments makes them long.
_BLOCK_MOST = MOST + (1 << 20)
_INTERFACE_MOST = 1 << 16
_INTERFACES_MOST = 1 << 16
_STEP = 1 << 16

_FOREIGN = {
    b"\x1f\x8b": ("is compressed with gzip", "gunzip it first"),
    b"\x28\xb5\x2f\xfd": ("is compressed with zstd", "unzstd it first"),
    b"\xfd7zX": ("is compressed with xz", "unxz it first"),
    b"\x7fELF": ("is an ELF file", None),
}


@contextmanager
def reading(path: str) -> Iterator[Capture]:
    """The capture at ``path``, open within the block; ``-`` is standard input.

    :raises CaptureError: it cannot be read, or is none that netbpf can use.
    """
    if path == "-":
        yield Capture("standard input", sys.stdin.buffer)
        return
    try:
        file = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise CaptureError(path, error.strerror or "cannot be opened") from error
    with file:
        yield Capture(path, file)


class Capture:
    """A capture that is open: iterating it once gives its packets.

    ``path`` is its name, ``framed`` counts the IP packets so far that came without an Ethernet
    header and were given one.

    :raises CaptureError: the file is no capture, damaged, cut off, or of a link type that is not
        Ethernet or IP; packets before the damage have been given by then.
    """

    def __init__(self, path: str, file: BinaryIO) -> None:
        self.path = path
        self.framed = 0
        self._source = _Source(path, file)
        self._packets = self._read()

    def __iter__(self) -> Iterator[Packet]:
        return self._packets

    def _read(self) -> Iterator[Packet]:
        source = self._source
        magic = source.read(4)
        found = _sections(source) if magic == _SECTION else _classic(source, magic)
        for link_type, time, data, length in found:
            if link_type not in LINK_TYPES:
                raise _wrong_link_type(source, link_type, source.packet)
            header = ethernet_header(link_type, data)
            self.framed += bool(header)
            size = len(data) + len(header)
            yield Packet(source.packet, time, header + data, max(length + len(header), size))
            source.packet += 1


_Raw = tuple[int, int, bytes, int]
"""Link type, nanoseconds since 1970, what was captured, and how long it was."""


class _Source:
    """A file that is read forwards in pieces of a size that was looked at first."""

    def __init__(self, path: str, file: BinaryIO) -> None:
        self.path = path
        self.packet = 0
        self._file = file

    def read(self, size: int) -> bytes:
        """``size`` bytes, or what is left of the file."""
        try:
            # A pipe gives what it has.
            parts = []
            while size and (part := self._file.read(size)):
                parts.append(part)
                size -= len(part)
            return b"".join(parts)
        except OSError as error:
            raise CaptureError(self.path, error.strerror or "cannot be read") from error

    def exactly(self, size: int) -> bytes:
        """``size`` bytes; the file must hold them."""
        data = self.read(size)
        if len(data) < size:
            raise CaptureError(
                self.path,
                "the file ends within it",
                packet=self.packet,
                hint="it was cut off, or is still being written",
            )
        return data

    def skip(self, size: int) -> None:
        """Pass over ``size`` bytes, which the file must hold."""
        while size:
            size -= len(self.exactly(min(size, _STEP)))

    def damaged(self, reason: str) -> CaptureError:
        return CaptureError(self.path, reason, packet=self.packet, hint="the file is damaged")


def _wrong_link_type(source: _Source, link_type: int, packet: int | None) -> CaptureError:
    hint = "netbpf reads captures of Ethernet frames and of IP packets"
    if link_type in (113, 276):
        hint = "capture on one device, not on all of them (any)"
    return CaptureError(source.path, link_type_name(link_type), packet=packet, hint=hint)


def _no_capture(source: _Source, start: bytes) -> CaptureError:
    for magic, (words, hint) in _FOREIGN.items():
        if start.startswith(magic):
            return CaptureError(source.path, words, hint=hint)
    if not start:
        return CaptureError(source.path, "is empty, not a capture")
    return CaptureError(source.path, "is neither pcap nor pcapng")


def _classic(source: _Source, magic: bytes) -> Iterator[_Raw]:
    """The packets of a pcap file: microseconds or nanoseconds, either byte order."""
    from dpkt import pcap

    kinds = {
        b"\xa1\xb2\xc3\xd4": (pcap.FileHdr, 1000),
        b"\xd4\xc3\xb2\xa1": (pcap.LEFileHdr, 1000),
        b"\xa1\xb2\x3c\x4d": (pcap.FileHdr, 1),
        b"\x4d\x3c\xb2\xa1": (pcap.LEFileHdr, 1),
        b"\xa1\xb2\xcd\x34": (pcap.FileHdr, 1000),
        b"\x34\xcd\xb2\xa1": (pcap.LEFileHdr, 1000),
    }
    if magic not in kinds:
        raise _no_capture(source, magic)
    kind, unit = kinds[magic]
    rest = source.read(kind.__hdr_len__ - 4)
    if len(rest) < kind.__hdr_len__ - 4:
        raise CaptureError(source.path, "the file ends within its header")
    head = kind(magic + rest)
    if head.v_major != 2:
        raise CaptureError(source.path, f"is pcap of version {head.v_major}.{head.v_minor}, not 2")
    # The upper bits tell of checksums at a frame's end.
    link_type = head.linktype & 0x03FFFFFF
    if link_type not in LINK_TYPES:
        raise _wrong_link_type(source, link_type, None)
    packet_head = pcap.MAGIC_TO_PKT_HDR[int.from_bytes(magic, "big")]
    size = packet_head.__hdr_len__
    while start := source.read(1):
        found = packet_head(start + source.exactly(size - 1))
        if found.caplen > MOST:
            raise source.damaged(f"claims {found.caplen} bytes, and none is longer than {MOST}")
        data = source.exactly(found.caplen)
        yield link_type, found.tv_sec * 10**9 + found.tv_usec * unit, data, found.len


@dataclass(frozen=True, slots=True)
class _Interface:
    """What a section of pcapng says of a device that was captured on."""

    link_type: int
    snaplen: int
    units: int
    offset: int

    def time(self, high: int, low: int) -> int:
        """A packet's time in nanoseconds."""
        return (high << 32 | low) * 10**9 // self.units + self.offset * 10**9


def _sections(source: _Source) -> Iterator[_Raw]:
    """The packets of a pcapng file, after the first four bytes; each section is on its own."""
    from dpkt import pcapng

    order = _section_header(source)
    blocks = _blocks(pcapng, order)
    interfaces: list[_Interface] = []
    while start := source.read(1):
        kind = start + source.exactly(3)
        if kind == _SECTION:
            order = _section_header(source)
            blocks, interfaces = _blocks(pcapng, order), []
            continue
        number = struct.unpack(f"{order}I", kind)[0]
        head = kind + source.exactly(4)
        size = struct.unpack(f"{order}I", head[4:])[0]
        if size < 12 or size % 4:
            raise source.damaged(f"a block claims {size} bytes")
        if number == pcapng.PCAPNG_BT_IDB:
            if len(interfaces) >= _INTERFACES_MOST:
                raise source.damaged(f"more than {_INTERFACES_MOST} devices")
            block = _whole(source, order, head, size, _INTERFACE_MOST)
            interfaces.append(_interface(source, blocks[number], order, block))
        elif number in blocks:
            block = _whole(source, order, head, size, _BLOCK_MOST)
            yield _packet(source, blocks[number], interfaces, block)
        elif number == pcapng.PCAPNG_BT_SPB:
            block = _whole(source, order, head, size, _BLOCK_MOST)
            yield _simple_packet(source, order, interfaces, block)
        else:
            # Names, statistics, secrets, and what is not known yet.
            source.skip(size - 12)
            _check_end(source, order, source.exactly(4), size)


def _blocks(pcapng: Any, order: str) -> dict[int, Any]:
    little = order == "<"
    return {
        pcapng.PCAPNG_BT_IDB: (
            pcapng.InterfaceDescriptionBlockLE if little else pcapng.InterfaceDescriptionBlock
        ),
        pcapng.PCAPNG_BT_EPB: pcapng.EnhancedPacketBlockLE
        if little
        else pcapng.EnhancedPacketBlock,
        pcapng.PCAPNG_BT_PB: pcapng.PacketBlockLE if little else pcapng.PacketBlock,
    }


def _section_header(source: _Source) -> str:
    """Pass over a section's header and return the byte order of its numbers."""
    head = source.exactly(12)
    order = {b"\x1a\x2b\x3c\x4d": ">", b"\x4d\x3c\x2b\x1a": "<"}.get(head[4:8])
    if order is None:
        raise source.damaged("a section tells no byte order")
    size, _, major, minor = struct.unpack(f"{order}IIHH", head)
    if major != 1:
        raise CaptureError(source.path, f"is pcapng of version {major}.{minor}, not 1")
    if size < 28 or size % 4:
        raise source.damaged(f"a section's header claims {size} bytes")
    source.skip(size - 20)
    _check_end(source, order, source.exactly(4), size)
    return order


def _whole(source: _Source, order: str, head: bytes, size: int, most: int) -> bytes:
    """The block that begins with ``head``."""
    if size > most:
        raise source.damaged(f"a block claims {size} bytes")
    block = head + source.exactly(size - 8)
    _check_end(source, order, block[-4:], size)
    return block


def _check_end(source: _Source, order: str, end: bytes, size: int) -> None:
    if struct.unpack(f"{order}I", end)[0] != size:
        raise source.damaged("a block says two lengths")


def _header(source: _Source, kind: Any, block: bytes) -> Any:
    """The fixed part of a block. Options stay unread: they are anybody's, and may be many."""
    if len(block) < kind.__hdr_len__:
        raise source.damaged(f"a block of {len(block)} bytes is too short for its type")
    head = kind()
    head.unpack_hdr(block[: kind.__hdr_len__])
    return head


def _interface(source: _Source, kind: Any, order: str, block: bytes) -> _Interface:
    head = _header(source, kind, block)
    units, offset = 10**6, 0
    at = kind.__hdr_len__ - 4
    while at + 4 <= len(block) - 4:
        code, size = struct.unpack_from(f"{order}HH", block, at)
        value = block[at + 4 : at + 4 + size]
        if code == 0:
            break
        if code == 9 and size == 1:
            units = (2 if value[0] & 0x80 else 10) ** (value[0] & 0x7F)
        elif code == 14 and size == 8:
            offset = struct.unpack(f"{order}q", value)[0]
        at += 4 + (size + 3) // 4 * 4
    return _Interface(head.linktype, head.snaplen, units, offset)


def _packet(source: _Source, kind: Any, interfaces: list[_Interface], block: bytes) -> _Raw:
    head = _header(source, kind, block)
    if head.iface_id >= len(interfaces):
        raise source.damaged(f"is of device {head.iface_id}, which the file does not describe")
    start = kind.__hdr_len__ - 4
    if head.caplen > min(MOST, len(block) - kind.__hdr_len__):
        raise source.damaged(f"claims {head.caplen} bytes, which its block does not hold")
    interface = interfaces[head.iface_id]
    data = block[start : start + head.caplen]
    return interface.link_type, interface.time(head.ts_high, head.ts_low), data, head.pkt_len


def _simple_packet(source: _Source, order: str, interfaces: list[_Interface], block: bytes) -> _Raw:
    """A packet of the first device, without a time; cut at the snaplen and filled up to 4 bytes."""
    if not interfaces:
        raise source.damaged("is of device 0, which the file does not describe")
    if len(block) < 16:
        raise source.damaged(f"a block of {len(block)} bytes is too short for its type")
    length = struct.unpack_from(f"{order}I", block, 8)[0]
    held = min(length, interfaces[0].snaplen or length, MOST)
    if held > len(block) - 16:
        raise source.damaged(f"claims {length} bytes, which its block does not hold")
    return interfaces[0].link_type, 0, block[12 : 12 + held], length
