"""Writing captures: whole files or none."""

from __future__ import annotations

import os
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from netbpf.captures.packet import ETHERNET, MOST, Packet
from netbpf.errors import CaptureError
from netbpf.interrupts import held

# The original length in an enhanced packet block, after type, size, device, time and what is held.
_LENGTH_AT = 24


class Writer:
    """Writes packets, with nanoseconds: pcapng, or pcap where that was not asked for."""

    def __init__(self, path: str, file: BinaryIO, *, pcapng: bool = False) -> None:
        self.path = path
        self.count = 0
        self._file = file
        self._block = _pcapng_block if pcapng else _pcap_record
        self._put(_pcapng_head() if pcapng else _pcap_head())

    def write(self, packet: Packet) -> None:
        """Add a packet.

        :raises CaptureError: it could not be written.
        """
        self._put(self._block(packet))
        self.count += 1

    def _put(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _unwritten(self.path, error) from error


@contextmanager
def writing(path: str) -> Iterator[Writer]:
    """A new capture at ``path``, which is there when the block ends well; ``-`` is standard output.

    A name that ends in ``.pcapng`` gets pcapng, any other pcap. A file that is there is replaced
    at the end, and stays as it is when the block fails.

    :raises CaptureError: it cannot be written, or something else than a file has the name.
    """
    if path == "-":
        yield Writer("standard output", sys.stdout.buffer)
        try:
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _unwritten("standard output", error) from error
        return
    target = os.path.realpath(path)
    _check_target(path, target)
    part = os.path.join(os.path.dirname(target), f".{os.path.basename(target)}.{os.getpid()}.part")
    unfinished = False
    try:
        with held():
            file = _new_file(path, part)
            unfinished = True
        with file:
            yield Writer(path, file, pcapng=path.lower().endswith(".pcapng"))
            try:
                file.flush()
            except OSError as error:
                raise _unwritten(path, error) from error
        with held():
            os.replace(part, target)
            unfinished = False
    finally:
        if unfinished:
            os.unlink(part)


def _new_file(path: str, part: str) -> BinaryIO:
    try:
        return open(part, "xb")
    except OSError as error:
        raise _unwritten(path, error) from error


def _check_target(path: str, target: str) -> None:
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unwritten(path, error) from error
    if not stat.S_ISREG(mode):
        raise CaptureError(
            path, "something that is not a file has this name", hint="- is standard output"
        )


def _unwritten(path: str, error: OSError) -> CaptureError:
    return CaptureError(path, f"cannot be written: {error.strerror or error}")


def _pcap_head() -> bytes:
    from dpkt import pcap

    return bytes(pcap.LEFileHdr(magic=pcap.TCPDUMP_MAGIC_NANO, snaplen=MOST, linktype=ETHERNET))


def _pcap_record(packet: Packet) -> bytes:
    from dpkt import pcap

    # The format has 32 bits for the seconds.
    seconds, nanoseconds = divmod(min(max(packet.time, 0), (1 << 32) * 10**9 - 1), 10**9)
    head: Any = pcap.LEPktHdr(
        tv_sec=seconds,
        tv_usec=nanoseconds,
        caplen=len(packet.data),
        len=min(packet.length, 0xFFFFFFFF),
    )
    return bytes(head) + packet.data


def _pcapng_head() -> bytes:
    from dpkt import pcapng

    nanoseconds = pcapng.PcapngOptionLE(code=pcapng.PCAPNG_OPT_IF_TSRESOL, data=b"\x09")
    device = pcapng.InterfaceDescriptionBlockLE(
        linktype=ETHERNET, snaplen=MOST, opts=[nanoseconds, pcapng.PcapngOptionLE()]
    )
    return bytes(pcapng.SectionHeaderBlockLE()) + bytes(device)


def _pcapng_block(packet: Packet) -> bytes:
    from dpkt import pcapng

    time = min(max(packet.time, 0), (1 << 64) - 1)
    block = bytearray(
        bytes(
            pcapng.EnhancedPacketBlockLE(
                ts_high=time >> 32, ts_low=time & 0xFFFFFFFF, pkt_data=packet.data
            )
        )
    )
    # dpkt takes the packet for whole.
    struct.pack_into("<I", block, _LENGTH_AT, min(packet.length, 0xFFFFFFFF))
    return bytes(block)
