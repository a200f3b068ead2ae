"""Jump tables: where their entries are in a program that has been put together."""

from __future__ import annotations

from pathlib import Path

import pytest

from netbpf.elf import ObjectSpec, open_object
from netbpf.errors import ObjectFileError
from netbpf.loader import jump_tables, relocate
from netbpf.loader.jump_tables import Table
from tests.netns_fixtures.objects import build

SOURCES = Path(__file__).resolve().parents[1] / "bpf"


def tables(spec: ObjectSpec, name: str) -> tuple[Table, ...]:
    program = spec.program(name)
    sections = {m.section: 9 for m in spec.maps}
    return jump_tables.find(spec, program, relocate.link(spec, program, sections))


def test_of_a_program_and_its_functions() -> None:
    spec = open_object(SOURCES / "jumps.o")
    assert tables(spec, "first") == ()
    (switch,) = tables(spec, "by_switch")
    assert len(switch.entries) == 16 and switch.uses == (3 * 8,)
    left, right = tables(spec, "two_tables")
    assert (len(left.entries), left.uses) == (2, (4 * 8,))
    assert (len(right.entries), right.uses) == (2, (20 * 8, 35 * 8))
    # The same function's table, as much further on as the function stands.
    (own,) = tables(spec, "in_static")
    _, shared = tables(spec, "in_both")
    assert own.entries[1] == own.entries[3] != own.entries[0]
    assert {b - a for a, b in zip(own.entries, shared.entries, strict=True)} == {6 + 4 + 37}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("__u64 table[3] AT = {16, 32, 88}", "jumps by a table, and its table at 0 leads"),
        ("__u64 table[2] AT = {24, 28}", "function jumps .* leads out of it, to 28"),
        ("__u64 table[2] AT = {8, 16}", "leads out of it, to 8"),
        ("char table[12] AT, rest[4] AT", "12 bytes at 0 are no table of offsets"),
    ],
)
def test_that_lead_nowhere(table: str, message: str) -> None:
    text = f"""
    #define AT SEC(".jumptables")
    {table};
    SEC("tc") int first(struct __sk_buff *skb) {{ return 1; }}
    SEC("tc") int jumps(struct __sk_buff *skb) {{ return (long)&table; }}
    """
    with pytest.raises(ObjectFileError, match=message):
        tables(open_object(build(text)), "jumps")
