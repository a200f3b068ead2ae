"""The compiled objects of arenas belong to their sources."""

from __future__ import annotations

import hashlib
from pathlib import Path

from netbpf.elf.object import open_object
from netbpf.loader.object import Object

ROOT = Path(__file__).resolve().parents[2]
SUMS = ROOT / "tests/bpf/arena.sha256"


def test_objects_are_those_of_their_sources() -> None:
    """After a change of a source: scripts/build-arena."""
    lines = [line.split("  ") for line in SUMS.read_text().splitlines()]
    for wanted, name in lines:
        assert hashlib.sha256((ROOT / name).read_bytes()).hexdigest() == wanted, name
    names = {name for _, name in lines}
    for folder in ("tests/bpf", "examples/arena-kv"):
        for source in (ROOT / folder).glob("arena_*.c"):
            assert str(source.relative_to(ROOT)) in names
            assert str(source.with_suffix(".o").relative_to(ROOT)) in names


def test_objects_name_no_folder_of_the_machine() -> None:
    for _, name in (line.split("  ") for line in SUMS.read_text().splitlines()):
        if name.endswith(".o"):
            data = (ROOT / name).read_bytes()
            assert b"/usr/" not in data and str(ROOT).encode() not in data, name


def test_variables_before_anything_is_loaded() -> None:
    obj = Object(open_object(ROOT / "tests/bpf/arena_shared.o"))
    assert obj.get("counter") == 7
    assert obj.get("word") == "hello"
    obj.set("counter", 8)
    obj.set("pool[3].inner.port", 80)
    assert obj.get("counter") == 8
    assert obj.get("pool[3]")["inner"] == {"port": 80, "flags": [0, 0, 0]}
    assert obj.variables()["counter"] == ".addr_space.1"
    obj.close()
