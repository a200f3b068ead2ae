"""The running kernel's types as a header, in which clang says where every member lies."""

from __future__ import annotations

import json
import re
import resource
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netbpf.btf import Btf
from netbpf.btf import types as t
from netbpf.elf.types import read_types
from tests.netns_fixtures.cli import netbpf, ok, process
from tests.netns_fixtures.programs import SOURCES

KERNEL = Path("/sys/kernel/btf/vmlinux")
# In the lab's guest the same work takes ten to twenty times as long: it gets a part of it.
EMULATED = "QEMU" in Path("/proc/cpuinfo").read_text()
PART = 20 if EMULATED else 1
CLANGS = [name for name in ("clang", "clang-19")[: 1 if EMULATED else 2] if shutil.which(name)]
# The whole kernel takes a tenth of that on a quiet machine.
CPU_SECONDS = 60 if EMULATED else 6


@pytest.fixture(scope="module")
def kernel() -> Btf:
    return Btf.parse(KERNEL.read_bytes())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the kernel's types as vmlinux.h."""
    folder = tmp_path_factory.mktemp("vmlinux")
    header = netbpf("btf", "dump")
    assert header.status == 0, header.err
    (folder / "vmlinux.h").write_text(header.out)
    return folder


def compiled(folder: Path, text: str, *flags: str, clang: str = "clang") -> Path:
    """``text`` compiled for BPF beside vmlinux.h, without a warning."""
    source = folder / "source.c"
    source.write_text(text)
    output = folder / "source.o"
    command = [clang, "-O2", "-g", "-Wall", "-Werror", *(flags or ["-target", "bpf"])]
    result = subprocess.run(
        [*command, "-c", source, "-o", output], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[:3000]
    return output


def records(btf: Btf) -> Iterator[tuple[str, t.Struct | t.Union]]:
    """Every struct and union with a name, as ``struct x``."""
    for _, found in btf:
        if isinstance(found, t.Struct | t.Union) and found.name:
            yield f"{'union' if isinstance(found, t.Union) else 'struct'} {found.name}", found


def shape(found: t.Struct | t.Union) -> tuple[object, ...]:
    """The size, and name, offset and width of each member; what fills a hole is none."""
    members = [
        (m.name, m.bit_offset, m.bit_size)
        for m in found.members
        if not re.fullmatch(r"__padding_\d+", m.name)
    ]
    return found.size, *members


def shapes(btf: Btf) -> dict[str, set[tuple[object, ...]]]:
    """The shapes of all structs of a name; ``x___2`` is one more ``x``."""
    found: dict[str, set[tuple[object, ...]]] = {}
    for name, record in records(btf):
        found.setdefault(re.sub(r"___\d+$", "", name), set()).add(shape(record))
    return found


def every_record(header: str) -> str:
    """A variable of each struct and union that a header defines at its top."""
    names = re.findall(r"^((?:struct|union) \w+) \{", header, re.MULTILINE)[::PART]
    lines = [f"{name} v{number};" for number, name in enumerate(names)]
    return "\n".join(['#include "vmlinux.h"', *lines, ""])


@pytest.mark.parametrize("clang", CLANGS)
def test_every_struct_lies_as_in_the_kernel(folder: Path, kernel: Btf, clang: str) -> None:
    text = every_record((folder / "vmlinux.h").read_text())
    seen = shapes(read_types(compiled(folder, text, clang=clang)))
    expected = shapes(kernel)
    assert len(seen) > 5000 / PART
    assert {name for name in seen if not seen[name] <= expected[name]} == set()
    if PART == 1:
        assert seen == expected


def test_static_assertions(folder: Path, kernel: Btf) -> None:
    lines = ['#include "vmlinux.h"']
    # The second of a name has another in C, also a struct behind an enum.
    counts = Counter(
        found.name for _, found in kernel if isinstance(found, t.Struct | t.Union | t.Enum)
    )
    for name, found in list(records(kernel))[:: 10 * PART]:
        members = [m for m in found.members if m.name and not m.bit_size]
        if counts[found.name] > 1 or not members:
            continue
        lines.append(f'_Static_assert(sizeof({name}) == {found.size}, "{name}");')
        lines += [
            f'_Static_assert(__builtin_offsetof({name}, {m.name}) == {m.offset}, "{name}");'
            for m in members
        ]
    assert len(lines) > 3000 / PART
    compiled(folder, "\n".join([*lines, ""]), "-target", "bpf")


def test_enumerators(folder: Path, kernel: Btf) -> None:
    text = (folder / "vmlinux.h").read_text()
    lines = ['#include "vmlinux.h"']
    for type_id, found in kernel:
        if isinstance(found, t.Enum) and not type_id % PART:
            for name, value in found.values:
                number = value if value >= 0 else value + (1 << 64)
                # A name that several have is known by its number; the first keeps it.
                if f"{name}___2" not in text:
                    lines.append(f'_Static_assert((__u64){name} == {number}ULL, "{name}");')
    assert len(lines) > 10_000 / PART
    compiled(folder, "\n".join([*lines, ""]))


@pytest.mark.parametrize("clang", CLANGS)
def test_programs(folder: Path, clang: str, bpffs: Path) -> None:
    """Programs on the kernel's own structs, and what libbpf makes of them on this kernel."""
    file = compiled(
        folder,
        (SOURCES / "types.c").read_text(),
        *("-target", "bpf", "-mcpu=v3", "-D__TARGET_ARCH_x86"),
        *(f"-I{path}" for path in sorted(Path("/usr/include").glob("*-linux-gnu"))),
        clang=clang,
    )
    subprocess.run(["bpftool", "prog", "loadall", file, bpffs / "types"], check=True)
    assert {path.name for path in (bpffs / "types").iterdir()} == {
        *("received", "ingress", "packets", "kernel_function", "sockets")
    }


def test_json_is_that_of_bpftool() -> None:
    # A module of the guest's, which has some hundred types.
    files = sorted(KERNEL.parent.iterdir(), key=lambda path: path.stat().st_size)
    file = files[0] if EMULATED else KERNEL
    command = ["bpftool", "--json", "--base-btf", KERNEL] if file != KERNEL else ["bpftool", "-j"]
    told = subprocess.run([*command, "btf", "dump", "file", file], capture_output=True, check=True)
    absent = {"(anon)", "(none)"}

    def plain(value: Any) -> Any:
        """Without what says that there is nothing, which bpftool writes in several ways."""
        if isinstance(value, list):
            return [plain(each) for each in value]
        if isinstance(value, dict):
            if "val" in value:
                # bpftool 7.1 takes unsigned values of four bytes for signed ones.
                value["val"] &= 0xFFFFFFFF
            return {
                key: plain(each)
                for key, each in value.items()
                if each is not None and str(each) not in absent and key != "attribute"
            }
        return value

    ours = ok("btf", "dump", file)["types"]
    assert len(ours) > 10_000 / PART
    theirs = json.loads(told.stdout)["types"]
    wrong = [(a, b) for a, b in zip(plain(ours), plain(theirs), strict=True) if a != b]
    assert wrong[:3] == []


def test_one_type_by_name(kernel: Btf) -> None:
    (shown,) = ok("btf", "show", "struct sk_buff")["types"]
    found = kernel.type(shown["id"])
    assert isinstance(found, t.Struct)
    assert shown["size"] == found.size
    rows = [(row["name"] or "", row["bit_offset"], row["bit_size"]) for row in shown["members"]]
    assert rows == [(m.name, m.bit_offset, m.bit_size or None) for m in found.members]


def test_loaded_types_are_those_of_the_file(folder: Path) -> None:
    told = subprocess.run(["bpftool", "--json", "btf", "show"], capture_output=True, check=True)
    (number,) = [each["id"] for each in json.loads(told.stdout) if each.get("name") == "vmlinux"]
    assert netbpf("btf", "dump", f"id:{number}").out == (folder / "vmlinux.h").read_text()


def test_modules(folder: Path, kernel: Btf, tmp_path: Path) -> None:
    # A kernel that can load modules has some here: the lab's guest has.
    modules = {path.name for path in KERNEL.parent.iterdir()} - {KERNEL.name}
    assert modules or not Path("/proc/modules").exists()
    for name in sorted(modules):
        header = netbpf("btf", "dump", name)
        assert header.status == 0, header.err
        (tmp_path / "vmlinux.h").write_text(header.out)
        seen = shapes(read_types(compiled(tmp_path, every_record(header.out))))
        expected = shapes(Btf.parse((KERNEL.parent / name).read_bytes(), kernel))
        # What it takes from the kernel comes with it.
        wrong = {each for each in expected.keys() & seen if not expected[each] <= seen[each]}
        assert wrong == set()
        assert PART > 1 or expected.keys() <= seen.keys()


def test_the_whole_kernel_takes_seconds_and_is_always_the_same(folder: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = process("btf", "dump")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 0, result.stderr
    taken = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert taken < CPU_SECONDS
    assert result.stdout == (folder / "vmlinux.h").read_text()
