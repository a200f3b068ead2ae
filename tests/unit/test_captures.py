"""Captures: bytes made by hand are read and written as the formats say; hostile ones are errors."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netbpf import captures
from netbpf.captures import Capture, Packet
from netbpf.errors import CaptureError, NetbpfError

FRAME = bytes.fromhex("020000000001020000000002 0800") + b"\x45" + bytes(45)
IP6 = b"\x60" + bytes(39)
NAMES = {"<": "little", ">": "big"}


def classic(
    order: str = "<",
    packets: tuple[tuple[int, int, bytes, int], ...] = ((7, 8, FRAME, 60),),
    *,
    nano: bool = False,
    link_type: int = 1,
    version: int = 2,
) -> bytes:
    magic = 0xA1B23C4D if nano else 0xA1B2C3D4
    made = struct.pack(f"{order}IHHiIII", magic, version, 4, 0, 0, 65535, link_type)
    for seconds, part, data, length in packets:
        made += struct.pack(f"{order}IIII", seconds, part, len(data), length) + data
    return made


def block(order: str, kind: int, body: bytes) -> bytes:
    size = 12 + len(body)
    return struct.pack(f"{order}II", kind, size) + body + struct.pack(f"{order}I", size)


def section(order: str) -> bytes:
    return block(order, 0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1))


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def option(order: str, code: int, value: bytes) -> bytes:
    return struct.pack(f"{order}HH", code, len(value)) + padded(value)


def interface(order: str, link_type: int = 1, options: bytes = b"", snaplen: int = 0) -> bytes:
    return block(order, 1, struct.pack(f"{order}HHI", link_type, 0, snaplen) + options)


def enhanced(order: str, device: int, time: int, data: bytes, length: int) -> bytes:
    head = struct.pack(f"{order}IIIII", device, time >> 32, time & 0xFFFFFFFF, len(data), length)
    return block(order, 6, head + padded(data))


def packets(data: bytes) -> list[Packet]:
    return list(Capture("it", io.BytesIO(data)))


def refused(data: bytes) -> CaptureError:
    with pytest.raises(CaptureError) as caught:
        packets(data)
    return caught.value


@pytest.mark.parametrize("order", "<>", ids=NAMES.get)
@pytest.mark.parametrize(("nano", "time"), [(False, 7_000_008_000), (True, 7_000_000_008)])
def test_pcap_in_both_byte_orders_and_units(order: str, nano: bool, time: int) -> None:
    two = ((7, 8, FRAME, 60), (9, 0, FRAME[:20], 1514))
    first, second = packets(classic(order, two, nano=nano))
    assert first == Packet(0, time, FRAME, 60)
    assert not first.cut
    assert (second.number, second.data, second.length) == (1, FRAME[:20], 1514)
    assert second.cut


@pytest.mark.parametrize("order", "<>", ids=NAMES.get)
def test_pcapng_with_devices_options_and_unknown_blocks(order: str) -> None:
    made = section(order)
    made += block(order, 0xBAD, b"what is this" * 3)
    made += interface(order)
    made += interface(order, 101, option(order, 9, b"\x09") + option(order, 0, b""))
    shifted = option(order, 9, b"\x8a") + option(order, 14, struct.pack(f"{order}q", 100))
    made += interface(order, 1, option(order, 1, b"\xff not utf-8 \xfe") + shifted, snaplen=16)
    made += enhanced(order, 0, 5_000_001, FRAME, 60)
    made += block(order, 5, bytes(20))
    made += enhanced(order, 1, 5_000_000_001, IP6, 40)
    made += enhanced(order, 2, 1536, FRAME[:16], 60)
    one, two, three = packets(made)
    assert one == Packet(0, 5_000_001_000, FRAME, 60)
    assert two == Packet(1, 5_000_000_001, bytes(12) + b"\x86\xdd" + IP6, 54)
    assert three == Packet(2, 101_500_000_000, FRAME[:16], 60)


def test_pcapng_of_two_sections_in_different_byte_orders() -> None:
    little = section("<") + interface("<") + enhanced("<", 0, 1, FRAME, 60)
    big = section(">") + interface(">", 229) + enhanced(">", 0, 2, IP6, 40)
    assert [packet.time for packet in packets(little + big)] == [1000, 2000]
    # The second section's devices are its own.
    assert "device 1" in refused(little + section(">") + enhanced(">", 1, 2, IP6, 40)).message


@pytest.mark.parametrize("order", "<>", ids=NAMES.get)
def test_simple_and_obsolete_packet_blocks(order: str) -> None:
    simple = block(order, 3, struct.pack(f"{order}I", 60) + FRAME[:20])
    obsolete = struct.pack(f"{order}HHIIII", 0, 0, 0, 3, 60, 60) + FRAME
    made = section(order) + interface(order, snaplen=20) + simple + block(order, 2, obsolete)
    assert packets(made) == [Packet(0, 0, FRAME[:20], 60), Packet(1, 3000, FRAME, 60)]


@pytest.mark.parametrize(
    ("link_type", "data", "kind"),
    [
        (101, b"\x45" + bytes(19), "0800"),
        (101, IP6, "86dd"),
        (12, IP6, "86dd"),
        (14, b"", "0800"),
        (228, b"\x45" + bytes(19), "0800"),
        (229, IP6, "86dd"),
    ],
)
def test_ip_packets_get_an_ethernet_header(link_type: int, data: bytes, kind: str) -> None:
    capture = Capture(
        "it", io.BytesIO(classic(packets=((0, 0, data, len(data)),), link_type=link_type))
    )
    (packet,) = capture
    assert packet.data == bytes(12) + bytes.fromhex(kind) + data
    assert (packet.length, packet.cut, capture.framed) == (len(data) + 14, False, 1)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (b"", "is empty"),
        (b"GET / HTTP/1.1", "neither pcap nor pcapng"),
        (b"\x1f\x8b\x08\x00", "gzip: gunzip it first"),
        (b"\x7fELF", "is an ELF file"),
        (classic()[:20], "ends within its header"),
        (classic(version=9), "version 9.4"),
        (classic(link_type=113), "link type 113 (Linux cooked): capture on one device"),
        (classic(link_type=147), "link type 147"),
        (classic()[:-1], "packet 0: the file ends within it: it was cut off"),
        (classic()[:30], "packet 0: the file ends within it"),
        (classic() + b"\0", "packet 1: the file ends within it"),
        (classic() + struct.pack("<IIII", 0, 0, 0xFFFFFFFF, 60), "packet 1: claims 4294967295"),
        (section("<")[:16], "ends within it"),
        (b"\x0a\x0d\x0d\x0a" + bytes(24), "tells no byte order"),
        (section("<").replace(b"\x01\0\0\0", b"\x02\0\0\0", 1), "version 2.0"),
        (section("<")[:-4] + b"\0\0\0\0", "two lengths"),
        (section("<") + struct.pack("<II", 6, 0xFFFFFFFC), "claims 4294967292 bytes"),
        (section("<") + struct.pack("<II", 0xBAD, 0xFFFFFFFC), "ends within it"),
        (section("<") + struct.pack("<II", 0xBAD, 8), "claims 8 bytes"),
        (section("<") + struct.pack("<III", 0xBAD, 13, 0), "claims 13 bytes"),
        (section("<") + enhanced("<", 0, 0, FRAME, 60), "device 0, which the file does not"),
        (section("<") + block("<", 3, struct.pack("<I", 0)), "device 0, which the file does not"),
        (section("<") + block("<", 1, b""), "too short for its type"),
        (section("<") + interface("<") + block("<", 6, bytes(16)), "too short for its type"),
        (section("<") + interface("<") + block("<", 3, b""), "too short for its type"),
        (
            section("<") + interface("<") + block("<", 3, struct.pack("<I", 99)),
            "claims 99 bytes, which its block does not hold",
        ),
        (
            section("<") + interface("<") + block("<", 6, struct.pack("<IIIII", 0, 0, 0, 99, 99)),
            "packet 0: claims 99 bytes, which its block does not hold",
        ),
        (
            section("<") + interface("<", 105) + enhanced("<", 0, 0, FRAME, 60),
            "packet 0: link type 105 (802.11)",
        ),
    ],
)
def test_what_cannot_be_read_is_told(made: bytes, words: str) -> None:
    error = refused(made)
    assert words in str(error)
    assert error.path == "it"
    assert error.code == "capture"


def test_packets_before_the_damage_are_given() -> None:
    found = iter(Capture("it", io.BytesIO(classic() + b"\0")))
    assert next(found).data == FRAME
    with pytest.raises(CaptureError) as caught:
        next(found)
    assert caught.value.packet == 1


ORDERS = st.sampled_from("<>")
NUMBERS = st.sampled_from([0, 1, 3, 12, 60, 0xFFFF, 262144, 262145, 0x7FFFFFFF, 0xFFFFFFFF])


@st.composite
def hostile(draw: st.DrawFn) -> bytes:
    """A capture of which pieces are wrong, and which may end anywhere."""
    order = draw(ORDERS)
    if draw(st.booleans()):
        made = classic(order, (), nano=draw(st.booleans()), link_type=draw(NUMBERS))
        for _ in range(draw(st.integers(0, 3))):
            made += struct.pack(f"{order}IIII", *(draw(NUMBERS) for _ in range(4)))
            made += draw(st.binary(max_size=80))
    else:
        made = section(order)
        for _ in range(draw(st.integers(0, 5))):
            kind = draw(st.sampled_from([1, 2, 3, 5, 6, 0x0A0D0D0A, 0xBAD]))
            words = draw(st.lists(NUMBERS, max_size=12))
            made += block(order, kind, struct.pack(f"{order}{len(words)}I", *words))
    changed = bytearray(made)
    for at, value in draw(
        st.lists(st.tuples(st.integers(4, 200), st.integers(0, 255)), max_size=4)
    ):
        if at < len(changed):
            changed[at] = value
    return bytes(changed[: draw(st.integers(0, len(changed)))])


@given(st.one_of(hostile(), st.binary(max_size=200)))
@settings(max_examples=400, deadline=None)
def test_any_bytes_are_packets_or_an_error(made: bytes) -> None:
    found = []
    try:
        for packet in Capture("it", io.BytesIO(made)):
            found.append(packet)
            assert len(packet.data) <= packet.length
    except NetbpfError as error:
        assert isinstance(error, CaptureError)
    assert sum(len(packet.data) - 14 for packet in found) <= len(made)


FRAMES = st.lists(
    st.tuples(st.integers(0, 2**63), st.binary(max_size=100), st.integers(0, 3000)), max_size=6
)


@given(FRAMES, st.sampled_from(["out.pcap", "out.pcapng"]))
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, frames: list[tuple[int, bytes, int]], name: str
) -> None:
    path = str(tmp_path_factory.mktemp("captures") / name)
    longest = 2**32 * 10**9 - 1 if name.endswith("pcap") else 2**64 - 1
    made = [
        Packet(number, min(time, longest), data, len(data) + more)
        for number, (time, data, more) in enumerate(frames)
    ]
    with captures.writing(path) as writer:
        for packet in made:
            writer.write(packet)
    assert writer.count == len(made)
    with captures.reading(path) as capture:
        assert list(capture) == made


def test_pcap_is_written_byte_by_byte_as_the_format_says(tmp_path: Path) -> None:
    path = tmp_path / "out.pcap"
    with captures.writing(str(path)) as writer:
        writer.write(Packet(0, 7_000_000_008, FRAME, 1514))
    expected = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)
    assert path.read_bytes() == expected + struct.pack("<IIII", 7, 8, 60, 1514) + FRAME


def test_pcapng_is_written_byte_by_byte_as_the_format_says(tmp_path: Path) -> None:
    path = tmp_path / "out.PCAPNG"
    with captures.writing(str(path)) as writer:
        writer.write(Packet(0, 7_000_000_008, FRAME[:59], 1514))
    options = option("<", 9, b"\x09") + option("<", 0, b"")
    expected = section("<") + interface("<", 1, options, snaplen=262144)
    assert path.read_bytes() == expected + enhanced("<", 0, 7_000_000_008, FRAME[:59], 1514)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out.pcap"
    path.write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt), captures.writing(str(path)) as writer:
        writer.write(Packet(0, 0, FRAME, 60))
        raise KeyboardInterrupt
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["out.pcap"]
    link = tmp_path / "link"
    link.symlink_to("out.pcap")
    with captures.writing(str(link)) as writer:
        assert path.read_bytes() == b"before"
    assert link.is_symlink()
    assert len(path.read_bytes()) == 24


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_only_files_are_replaced(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "out"
    make(path)
    with pytest.raises(CaptureError, match="not a file"), captures.writing(str(path)):
        pytest.fail("it is not written")
    with pytest.raises(CaptureError, match="not a file"), captures.writing("/dev/null"):
        pytest.fail("it is not written")


def test_what_the_system_refuses_is_told(tmp_path: Path) -> None:
    missing = str(tmp_path / "no" / "such")
    with pytest.raises(CaptureError, match="No such file"), captures.reading(missing):
        pytest.fail("it is not there")
    with pytest.raises(CaptureError, match="No such file"), captures.writing(missing):
        pytest.fail("it is not there")
    with captures.reading("/proc/self/mem") as capture, pytest.raises(CaptureError):
        list(capture)
    with pytest.raises(CaptureError, match="directory"), captures.reading(str(tmp_path)):
        pytest.fail("it is a folder")
    with pytest.raises(CaptureError, match="No space left"), open("/dev/full", "wb", 0) as full:
        captures.Writer("/dev/full", full)


def test_a_large_capture_is_never_in_memory_at_once() -> None:
    """50 MB of packets through a pipe, in a process that may have little memory."""
    code = (
        "import resource, sys\n"
        "from netbpf import captures\n"
        "import dpkt\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "with captures.reading('-') as capture:\n"
        "    count = sum(1 for _ in capture)\n"
        "print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    piece = struct.pack("<IIII", 0, 0, 60_000, 60_000) + bytes(60_000)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(classic(packets=()))
        for _ in range(800):
            process.stdin.write(piece)
        process.stdin.close()
        count, grown = map(int, process.stdout.read().split())
    assert count == 800
    assert grown < 8192, "KiB"
