"""Objects with arenas before a kernel has seen them."""

from __future__ import annotations

from pathlib import Path

from netbpf.elf.object import open_object
from netbpf.loader.object import Object

ROOT = Path(__file__).resolve().parents[2]


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
