"""The walls between the rooms: who imports whom, and who alone may import a package."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "netbpf"

# Each room may import those of lower levels, and itself. Rooms of one level leave each other alone.
LEVELS = [
    {"closing", "conditions", "errors", "records", "signals"},
    {"interrupts"},
    {"libc"},
    {"btf", "captures"},
    {"bpf"},
    {"elf", "features", "lint", "netns", "progs"},
    {"loader", "netlink"},
    {"netkit", "tcx"},
    {"plumbing"},
    {"skeleton"},
    {"cli"},
]
LEVEL = {room: number for number, rooms in enumerate(LEVELS) for room in rooms}
ALONE = {
    "dpkt": "captures",
    "elftools": "elf",
    "pyroute2": "netlink",
    "typer": "cli",
    "rich": "cli",
}
FORBIDDEN = {("bpf", "netlink"), ("netlink", "bpf"), ("tcx", "netkit"), ("netkit", "tcx")}


def imports() -> Iterator[tuple[str, str, str]]:
    """Each import in the package: the file, its room, and the dotted name that it imports."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).parts
        room = parts[0].removesuffix(".py")
        if room in ("__init__", "__main__"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Import(names=names):
                    yield from ((str(path), room, alias.name) for alias in names)
                case ast.ImportFrom(module="netbpf", names=names):
                    yield from ((str(path), room, f"netbpf.{alias.name}") for alias in names)
                case ast.ImportFrom(module=str(module)):
                    yield str(path), room, module


def test_every_room_has_a_level() -> None:
    rooms = {p.name.removesuffix(".py") for p in PACKAGE.iterdir() if not p.name.startswith("_")}
    assert rooms - {"py.typed"} <= set(LEVEL)


def test_arrows_point_down() -> None:
    seen = 0
    for path, room, name in imports():
        if not name.startswith("netbpf."):
            continue
        other = name.split(".")[1]
        seen += 1
        assert (room, other) not in FORBIDDEN, f"{path} imports {name}"
        assert room == other or LEVEL[other] < LEVEL[room], f"{path} imports {name}"
    assert seen > 100


def test_packages_have_one_importer() -> None:
    importers: dict[str, set[str]] = {package: set() for package in ALONE}
    for _, room, name in imports():
        if (package := name.split(".")[0]) in ALONE:
            importers[package].add(room)
    assert importers == {package: {room} for package, room in ALONE.items()}


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import netbpf", ["ctypes", "pyroute2", "typer", "rich", "elftools"]),
        ("from netbpf import tcx", ["pyroute2", "typer", "rich", "elftools"]),
        ("from netbpf import netkit", ["pyroute2", "typer", "rich", "elftools"]),
        ("from netbpf import netns", ["pyroute2", "typer", "rich", "elftools"]),
        ("import netbpf.captures", ["dpkt"]),
        ("import netbpf.cli.tcx", ["pyroute2", "rich", "elftools", "dpkt"]),
        ("import netbpf.cli.netkit", ["pyroute2", "rich", "elftools", "dpkt"]),
    ],
)
def test_weight_is_loaded_late(statement: str, absent: list[str]) -> None:
    code = f"{statement}\nimport sys\nprint(*[m for m in {absent!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == []


def test_files_stay_readable() -> None:
    long = {
        str(path): lines
        for path in PACKAGE.rglob("*.py")
        if path.name != "uapi.py" and (lines := len(path.read_text().splitlines())) > 420
    }
    assert not long


def test_modules_say_what_is_in_them() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} opens without a sentence"
