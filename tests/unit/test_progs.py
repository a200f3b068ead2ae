"""The built-in programs: the objects that are shipped are what their C source says."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from netbpf import progs
from netbpf.elf import ObjectSpec, open_object
from netbpf.errors import NotFoundError

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "netbpf" / "progs"


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("progs")
    subprocess.run([ROOT / "scripts/build-progs", folder], check=True)
    return folder


def substance(spec: ObjectSpec) -> object:
    """What the kernel would get of an object, without names of types and places in the source."""
    return (
        spec.license,
        [(p.name, p.section, p.type, p.function.insns) for p in spec.programs],
        [[(r.offset, r.kind, r.target) for r in p.function.relocations] for p in spec.programs],
        [(m.name, m.type, m.key_size, m.value_size, m.max_entries, m.flags) for m in spec.maps],
    )


def test_there_is_one_object_for_each_source() -> None:
    assert progs.names() == ["count", "drop", "next", "pass"]
    assert progs.names() == sorted(source.stem for source in FOLDER.glob("*.c"))


@pytest.mark.parametrize("name", progs.names())
def test_the_object_is_what_its_source_says(name: str, rebuilt: Path) -> None:
    shipped = open_object(progs.path(name))
    assert [program.name for program in shipped.programs] == [name]
    assert substance(shipped) == substance(open_object(rebuilt / f"{name}.o"))


def test_the_objects_name_no_path() -> None:
    for name in progs.names():
        content = Path(progs.path(name)).read_bytes()
        assert str(ROOT).encode() not in content
        assert b"/home" not in content


def test_an_unknown_one_lists_those_there_are() -> None:
    with pytest.raises(NotFoundError, match="there are: count, drop, next, pass"):
        progs.path("../../etc/passwd")
