"""Object files made to cost time or memory: refused, or read soon enough."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from netbpf.elf import open_object
from netbpf.elf.show import document
from netbpf.errors import ObjectFileError

GOOD = (Path(__file__).resolve().parents[1] / "fuzz" / "seeds" / "more.o").read_bytes()
STRINGS = b"\0a\0"


@contextmanager
def soon() -> Iterator[None]:
    start = time.process_time()
    yield
    assert time.process_time() - start < 2


def header(name: str) -> int:
    """Where the header of a section stands."""
    (start,) = struct.unpack_from("<Q", GOOD, 40)
    count, names = struct.unpack_from("<HH", GOOD, 60)
    (at,) = struct.unpack_from("<Q", GOOD, start + 64 * names + 24)
    for place in range(start, start + 64 * count, 64):
        (offset,) = struct.unpack_from("<I", GOOD, place)
        if GOOD[at + offset :].split(b"\0", 1)[0].decode() == name:
            return place
    raise LookupError(name)


def content(name: str) -> bytes:
    offset, size = struct.unpack_from("<QQ", GOOD, header(name) + 24)
    return GOOD[offset : offset + size]


def replaced(name: str, data: bytes) -> bytes:
    """The good file with other contents of one section, at its end."""
    changed = bytearray(GOOD)
    struct.pack_into("<QQ", changed, header(name) + 24, len(changed), len(data))
    return bytes(changed + data)


def btf(types: bytes, strings: bytes = STRINGS) -> bytes:
    sizes = (24, 0, len(types), len(types), len(strings))
    return struct.pack("<HBB5I", 0xEB9F, 1, 0, *sizes) + types + strings


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        (".symtab", bytes(24 * 300_000), "300000 symbols are too many"),
        (".reltc", struct.pack("<QQ", 0, 1 << 32 | 1) * 300_000, "relocations are too many"),
        (".BTF", btf(struct.pack("<III", 0, 2 << 24, 1) * 800_000), "bytes are too many"),
        (".BTF.ext", bytes(9 << 20), "bytes are too many"),
        (".BTF", btf(struct.pack("<III", 0, 2 << 24, 1) * 250_000), "says nothing of the maps"),
        (".BTF", btf(struct.pack("<III", 1, 15 << 24, 1) * 250_000), "section a: the BTF desc"),
        (".BTF", btf(struct.pack("<III", 1, 12 << 24, 1) * 9), "a function without a prototype"),
        (".BTF", btf(struct.pack("<III", 0, 2 << 24, 10)), "type 1 refers to type 10, which"),
        (".BTF", btf(struct.pack("<III", 99, 2 << 24, 1)), "string offset 99 lies outside"),
        (".BTF", btf(b"", b"\0" + b"a" * (5 << 20) + b"\0"), "says nothing of the maps"),
    ],
)
def test_refused_soon(name: str, data: bytes, reason: str) -> None:
    with soon(), pytest.raises(ObjectFileError, match=reason):
        open_object("large.o", replaced(name, data))


def test_a_pointer_to_a_pointer_without_end() -> None:
    # What is behind it is looked for only when asked for, and then so far and no further.
    types = content(".BTF")
    length, _, size, _, strings = struct.unpack_from("<5I", types, 4)
    chain = b"".join(struct.pack("<III", 0, 2 << 24, n) for n in range(62, 100_062))
    made = btf(types[length : length + size] + chain, types[length + size :][:strings])
    with soon():
        assert document(open_object("large.o", replaced(".BTF", made)))["programs"]


def test_many_lines() -> None:
    ext = content(".BTF.ext")
    (start,) = struct.unpack_from("<I", ext, 4)
    (section,) = struct.unpack_from("<I", ext, start + 4)
    lines = struct.pack("<III", 16, section, 200_000) + struct.pack("<4I", 0, 1, 1, 1) * 200_000
    data = struct.pack("<HBB7I", 0xEB9F, 1, 0, 32, 0, 0, 0, len(lines), 0, 0) + lines
    with soon():
        assert document(open_object("large.o", replaced(".BTF.ext", data)))["programs"]


def test_variables_that_take_all_memory() -> None:
    changed = bytearray(GOOD)
    place = header(".data")
    struct.pack_into("<I", changed, place + 4, 8)
    struct.pack_into("<Q", changed, place + 32, 1 << 31)
    with soon(), pytest.raises(ObjectFileError, match=r"large\.o: section"):
        open_object("large.o", bytes(changed))


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    with open(tmp_path / "sparse.o", "wb") as file:
        file.write(GOOD)
        file.truncate(65 << 20)
    with soon(), pytest.raises(ObjectFileError, match="are too many for a BPF object"):
        open_object(tmp_path / "sparse.o")
