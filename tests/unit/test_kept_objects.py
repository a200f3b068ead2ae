"""The compiled objects that are kept in the repository belong to their sources."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SUMS = {
    "arena": ["tests/bpf/arena_*.c", "examples/arena-kv/arena_*.c"],
    "jumps": ["tests/bpf/jumps*.c"],
}


def listed(name: str) -> dict[str, str]:
    lines = (ROOT / f"tests/bpf/{name}.sha256").read_text().splitlines()
    return {file: wanted for wanted, file in (line.split("  ") for line in lines)}


@pytest.mark.parametrize("name", SUMS)
def test_objects_are_those_of_their_sources(name: str) -> None:
    """After a change of a source: scripts/build-arena, scripts/build-jumps."""
    known = listed(name)
    for file, wanted in known.items():
        assert hashlib.sha256((ROOT / file).read_bytes()).hexdigest() == wanted, file
    for pattern in SUMS[name]:
        sources = list(ROOT.glob(pattern))
        assert sources
        for source in sources:
            assert str(source.relative_to(ROOT)) in known
            assert str(source.with_suffix(".o").relative_to(ROOT)) in known


@pytest.mark.parametrize("name", SUMS)
def test_objects_name_no_folder_of_the_machine(name: str) -> None:
    for file in listed(name):
        if file.endswith(".o"):
            data = (ROOT / file).read_bytes()
            assert b"/usr/" not in data and str(ROOT).encode() not in data, file
