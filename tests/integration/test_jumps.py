"""Programs that jump by tables: every way they can go, and what the kernel has of the tables."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from netbpf import loader
from netbpf.bpf.map import Map
from netbpf.bpf.prog import Program
from netbpf.bpf.test_run import SkbContext
from netbpf.errors import NotSupportedError, VerifierError
from tests.netns_fixtures import probes, programs
from tests.netns_fixtures.cli import netbpf
from tests.netns_fixtures.libbpf_core import version
from tests.netns_fixtures.libbpf_load import compared

FILE = programs.SOURCES / "jumps.o"
PACKET = bytes(64)
SWITCH = (100, 107, 103, 115, 101, 122, 133, 1, 108, 190, 111, 155, 144, 166, 177, 188)
LABELS = (1, 2, 3, 2)
MORE = {5: 50, 40: 400, 63: 630}


def run(program: Program, mark: int, priority: int = 0) -> int:
    return program.test_run(PACKET, context=SkbContext(mark=mark, priority=priority)).retval


def tables(program: Program) -> list[int]:
    """The ids of the jump tables that a program holds."""
    found = []
    for number in program.info().map_ids:
        with Map.from_id(number) as each:
            if each.info().type_name == "insn_array":
                found.append(number)
    return found


@pytest.mark.needs("insn-array")
def test_every_way_of_a_switch() -> None:
    with loader.open(FILE) as obj:
        obj.load()
        numbers = [*range(18), 1 << 31, (1 << 32) - 1]
        found = {n: run(obj.programs["by_switch"], n) for n in numbers}
        assert found == {n: SWITCH[n] if n < len(SWITCH) else 1 for n in numbers}
        # It went the ways, and did not look the results up.
        assert obj.get("ways")[:16] == [5, *[1] * 15]


@pytest.mark.needs("insn-array")
def test_two_tables_one_of_them_used_twice() -> None:
    with loader.open(FILE) as obj:
        obj.load()
        program = obj.programs["two_tables"]
        found = [run(program, mark, priority) for mark in (0, 1) for priority in (0, 1)]
        assert found == [11, 21, 12, 22]
        assert obj.get("ways")[40:44] == [2, 2, 2, 2]
        assert len(tables(program)) == 2


@pytest.mark.needs("insn-array")
def test_tables_of_functions_that_two_programs_share() -> None:
    with loader.open(FILE) as obj:
        obj.load()
        static, both = obj.programs["in_static"], obj.programs["in_both"]
        for number in range(8):
            other = number ^ 3
            wanted = LABELS[number & 3] * 10 + LABELS[other & 3]
            assert run(static, number, other) == wanted
        for number in (0, 4, 5, 6, 39, 40, 41, 62, 63):
            wanted = number + MORE.get(number, 10) * 1000 + LABELS[number & 3] * 100
            assert run(both, number, number) == wanted
        assert len(tables(static)) == 1 and len(tables(both)) == 2
        assert not set(tables(static)) & set(tables(both))


@pytest.mark.needs("insn-array")
def test_a_table_in_the_kernel() -> None:
    with loader.open(FILE) as obj:
        obj.load()
        assert list(obj.maps) == ["jumps.bss"], "they are the programs' own"
        program = obj.programs["in_static"]
        (number,) = tables(program)
        with Map.from_id(number) as table:
            told = Path(f"/proc/self/fdinfo/{table.fileno()}").read_text()
            assert "frozen:\t1" in told
            info = table.info()
            assert (info.name, info.max_entries, info.value_size) == (".jumptables", 4, 16)
            values = [table.lookup(struct.pack("=I", i)) for i in range(4)]
            one, two, three, again = (struct.unpack("=4I", value or b"") for value in values)
        assert two == again and len({one, two, three}) == 3
        # by_labels stands behind in_static: its table counts from the program's start.
        length = len(obj.spec.program("in_static").function.insns) // 8
        assert all(length < each[0] for each in (one, two, three))
        # Where the machine code is was filled in by the kernel.
        assert all(each[2] for each in (one, two, three))


@pytest.mark.needs("insn-array")
def test_one_that_the_verifier_refuses() -> None:
    before = set(Map.ids())
    with loader.open(FILE) as obj, pytest.raises(VerifierError) as caught:
        obj.load(only=["unchecked"])
    assert "jumps.c:" in str(caught.value)
    assert "R2 unbounded memory access" in str(caught.value)
    assert not set(Map.ids()) - before


def test_a_kernel_without() -> None:
    before = set(Map.ids())
    done = netbpf("prog", "load", FILE, "--json")
    if probes.has("insn-array"):
        assert done.status == 0
        return
    # The program before it was loaded already.
    assert done.status == 3
    error = done.json["error"]
    assert error["code"] == "not_supported"
    assert "gotox, in program by_switch" in error["message"] and "6.19" in error["message"]
    with loader.open(FILE) as obj:
        with pytest.raises(NotSupportedError):
            obj.load()
        assert not set(Map.ids()) - before
        obj.load(only=["first"])
        assert run(obj.programs["first"], 0) == 7


def test_what_libbpf_makes_of_it() -> None:
    _, theirs, found = compared(FILE)
    if version() < (1, 7):
        assert theirs.refused is not None, "it came with 1.7"
    else:
        assert not found, "netbpf, libbpf"
