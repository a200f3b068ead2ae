"""What is found in programs, and what is not: made by hand, by clang, and by chance."""

from __future__ import annotations

import random
import struct
import time
from pathlib import Path

import pytest

from netbpf import loader, netkit, progs, tcx
from netbpf.bpf.hook import Hook
from netbpf.lint import insns as i
from netbpf.lint.insns import Code, Insn, Place
from netbpf.lint.paths import explore
from netbpf.lint.rules import Finding, findings, warnings
from netbpf.loader import code as loader_code
from tests.netns_fixtures import objects, programs

INGRESS, EGRESS = tcx.HOOKS.hook("ingress"), tcx.HOOKS.hook("egress")
PRIMARY, PEER = netkit.HOOKS.hook("primary"), netkit.HOOKS.hook("peer")
HOOKS = [INGRESS, EGRESS, PRIMARY, PEER]

SOURCE = (programs.SOURCES / "lint.c").read_text()

# One instruction each: opcode, destination, source, offset, immediate.
Raw = tuple[int, int, int, int, int]
EXIT: Raw = (0x95, 0, 0, 0, 0)


def ret(value: int) -> Raw:
    return 0xB7, 0, 0, 0, value


def made(*insns: Raw) -> Code:
    return Code("made", [Insn(*insn) for insn in insns])


def returned(*insns: Raw) -> list[int]:
    """The codes that a program returns for certain, once each."""
    return sorted({value for value, _ in explore(made(*insns)).returns})


@pytest.fixture(scope="module", params=["v1", "v2", "v3"])
def compiled(request: pytest.FixtureRequest) -> Path:
    return objects.build(SOURCE, f"-mcpu={request.param}", name="lint", head="")


def found(path: Path, name: str, hook: Hook, **variables: object) -> tuple[Finding, ...]:
    with loader.open(path) as obj:
        for variable, value in variables.items():
            obj.set(variable, value)
        return findings(loader_code.of(obj, obj.spec.program(name)), hook)


def codes(path: Path, name: str, **variables: object) -> list[int]:
    with loader.open(path) as obj:
        for variable, value in variables.items():
            obj.set(variable, value)
        outcome = explore(loader_code.of(obj, obj.spec.program(name)))
    assert outcome.complete
    return sorted({value for value, _ in outcome.returns})


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("ternary", [-1, 4]),
        ("a_bit", [0, 4]),
        ("a_switch", [-1, 0, 1, 2, 3, 4711]),
        ("by_function", [0, 3]),
        ("closed_function", [2]),
        ("deep_function", [-1, 0, 5]),
        ("a_loop", [0, 8]),
        ("spilled", [4]),
        ("overwritten", []),
        ("constant", [0]),
        ("variable", []),
        ("from_map", [-1]),
        ("correlated", [-1, 0]),
        ("checked", [7]),
        ("redirect_peer", [7]),
        ("redirect_in", [7]),
        ("sk_assign", [0]),
    ],
)
def test_what_compiled_programs_return(compiled: Path, name: str, values: list[int]) -> None:
    assert codes(compiled, name) == values


def test_constants_are_as_they_were_set(compiled: Path) -> None:
    assert codes(compiled, "constant", mode=2) == [4]
    assert found(compiled, "constant", EGRESS) == ()
    (peer,) = found(compiled, "constant", EGRESS, mode=3)
    assert peer.code == "redirect_peer"


def test_a_finding_says_where(compiled: Path) -> None:
    (stolen,) = warnings_of(compiled, "ternary", INGRESS)
    line = 1 + SOURCE[: SOURCE.index("TC_ACT_STOLEN : NEXT")].count("\n")
    assert (stolen.code, stolen.severity, stolen.line) == ("not_a_verdict", "warning", line)
    assert stolen.file is not None and stolen.file.endswith("/lint.c")
    assert stolen.message == (
        f"returns STOLEN (4) at instruction {stolen.instruction}, line {line} of lint.c: no "
        "verdict of tcx: the rest of the chain is skipped, and unless cls_bpf decides the packet "
        "passes"
    )
    with loader.open(compiled) as obj:
        code = loader_code.of(obj, obj.spec.program("ternary"))
    assert code.insns[stolen.instruction].imm == 4


def warnings_of(path: Path, name: str, hook: Hook) -> tuple[Finding, ...]:
    return tuple(each for each in found(path, name, hook) if each.severity == "warning")


def test_a_function_of_the_program_is_named_by_its_own_line(compiled: Path) -> None:
    (pipe,) = warnings_of(compiled, "by_function", PRIMARY)
    line = 1 + SOURCE[: SOURCE.index("TC_ACT_PIPE : TC")].count("\n")
    # The compiler may prepare the constant before the condition, and name its line.
    assert pipe.line in (line - 1, line)
    assert "returns PIPE (3)" in pipe.message
    assert pipe.message.endswith("the chain ends and the packet is dropped")


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.name)
def test_every_code_that_is_no_verdict(compiled: Path, hook: Hook) -> None:
    each = warnings_of(compiled, "a_switch", hook)
    assert {(f.code, f.message.split(" at ")[0]) for f in each} == {
        ("not_a_verdict", "returns PIPE (3)"),
        ("not_a_verdict", "returns RECLASSIFY (1)"),
        ("unknown_code", "returns 4711, which is no code of tc's"),
    }


@pytest.mark.parametrize("name", ["redirect_peer", "sk_assign"])
def test_helpers_of_ingress(compiled: Path, name: str) -> None:
    assert found(compiled, name, INGRESS) == ()
    for hook in (EGRESS, PRIMARY, PEER):
        (helper,) = found(compiled, name, hook)
        assert (helper.code, helper.severity) == (name, "warning")
        assert f"calls bpf_{name} at instruction" in helper.message
        assert f"at {hook.member} {hook.name}" in helper.message


def test_next_is_for_information_on_netkit_only(compiled: Path) -> None:
    assert found(compiled, "from_map", INGRESS) == ()
    (info,) = found(compiled, "from_map", PRIMARY)
    assert (info.code, info.severity) == ("next_passes", "info")
    with loader.open(compiled) as obj:
        assert warnings(loader_code.of(obj, obj.spec.program("from_map")), PRIMARY) == ()


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.name)
@pytest.mark.parametrize("name", progs.names())
def test_the_built_in_programs_are_clean(name: str, hook: Hook) -> None:
    with loader.open(progs.path(name)) as obj:
        (spec,) = obj.spec.programs
        assert warnings(loader_code.of(obj, spec), hook) == ()
        assert explore(loader_code.of(obj, spec)).complete


@pytest.mark.parametrize(
    ("insns", "values"),
    [
        ([ret(4), EXIT], [4]),
        # -1 as a 32-bit move, and as one of 64 bits: the hook sees an int.
        ([(0xB4, 0, 0, 0, -1), EXIT], [-1]),
        ([(0x18, 0, 0, 0, -1), (0, 0, 0, 0, 0), EXIT], [-1]),
        # What comes in is not known.
        ([(0xBF, 0, 1, 0, 0), EXIT], []),
        ([EXIT], []),
        # r0 = 4; if r1 != 0 goto exit; r0 = -1
        ([ret(4), (0x55, 1, 0, 1, 0), ret(-1), EXIT], [-1, 4]),
        # Both ways lead to one: r0 = r1 >> 63 & 5, without a sign.
        ([(0xBF, 0, 1, 0, 0), (0xC7, 0, 0, 0, 63), (0x57, 0, 0, 0, 5), EXIT], [0, 5]),
        ([(0xBC, 0, 1, 0, 0), (0x74, 0, 0, 0, 31), EXIT], [0, 1]),
        # r0 = r1 & 3 could be anything of four: not certain.
        ([(0xBF, 0, 1, 0, 0), (0x57, 0, 0, 0, 3), EXIT], []),
        ([(0xAF, 0, 0, 0, 0), EXIT], [0]),
        # if r1 == 4 return r1
        ([(0x55, 1, 0, 2, 4), (0xBF, 0, 1, 0, 0), EXIT, ret(2), EXIT], [2, 4]),
        # The lower half of r1 is 4; of its upper half nothing is known, and it was not narrow.
        ([(0x56, 1, 0, 2, 4), (0xBF, 0, 1, 0, 0), EXIT, ret(2), EXIT], [2]),
        # A loop that counts to ten, and one that never ends.
        ([ret(0), (0x07, 0, 0, 0, 1), (0x55, 0, 0, -2, 10), EXIT], [10]),
        ([ret(4), (0x05, 0, 0, -1, 0), EXIT], []),
        # A spill: *(u32 *)(fp - 4) = 5, read as u32, as u64, and after a store over it.
        ([(0x62, 10, 0, -4, 5), (0x61, 0, 10, -4, 0), EXIT], [5]),
        ([(0x62, 10, 0, -8, 5), (0x79, 0, 10, -8, 0), EXIT], []),
        ([(0x62, 10, 0, -4, 5), (0x72, 10, 0, -3, 0), (0x61, 0, 10, -4, 0), EXIT], []),
        ([(0x62, 10, 0, -4, 5), (0xC3, 10, 1, -4, 0), (0x61, 0, 10, -4, 0), EXIT], []),
        # By another register: r2 = fp; r2 += -4; *(u32 *)r2 = r1
        (
            [
                (0x62, 10, 0, -4, 5),
                (0xBF, 2, 10, 0, 0),
                (0x07, 2, 0, 0, -4),
                (0x63, 2, 1, 0, 0),
                (0x61, 0, 10, -4, 0),
                EXIT,
            ],
            [],
        ),
        # A helper is given an address below the slot, and may write to it; above it, it may not.
        (
            [
                (0x62, 10, 0, -4, 5),
                (0xBF, 2, 10, 0, 0),
                (0x07, 2, 0, 0, -16),
                (0x85, 0, 0, 0, 26),
                (0x61, 0, 10, -4, 0),
                EXIT,
            ],
            [],
        ),
        (
            [
                (0x62, 10, 0, -24, 5),
                (0xBF, 2, 10, 0, 0),
                (0x07, 2, 0, 0, -16),
                (0x85, 0, 0, 0, 26),
                (0x61, 0, 10, -24, 0),
                EXIT,
            ],
            [5],
        ),
        # The stack's address is put away: any other may be the same.
        (
            [
                (0x7B, 10, 10, -16, 0),
                (0x62, 10, 0, -4, 5),
                (0x62, 1, 0, 0, 6),
                (0x61, 0, 10, -4, 0),
                EXIT,
            ],
            [],
        ),
        # Two conditions that belong together: where r6 is 4, r7 is 1, and then it is not returned.
        (
            [
                (0xB7, 6, 0, 0, 0),
                (0xB7, 7, 0, 0, 0),
                (0x55, 1, 0, 2, 7),
                (0xB7, 6, 0, 0, 4),
                (0xB7, 7, 0, 0, 1),
                (0x85, 0, 0, 0, 39),
                (0x55, 7, 0, 2, 0),
                (0xBF, 0, 6, 0, 0),
                EXIT,
                ret(-1),
                EXIT,
            ],
            [-1, 0],
        ),
        # A tail call may come back, with nothing in r0.
        ([ret(4), (0x85, 0, 0, 0, 12), EXIT], []),
        ([(0x85, 0, 0, 0, 12), ret(4), EXIT], [4]),
        # bpf_redirect with no flags, with flags that are not known, bpf_redirect_neigh.
        ([(0xB7, 2, 0, 0, 0), (0x85, 0, 0, 0, 23), EXIT], [7]),
        ([(0x85, 0, 0, 0, 23), EXIT], [2, 7]),
        ([(0x85, 0, 0, 0, 152), EXIT], [2, 7]),
        # gotol, may_goto, signed division, sign extension, bswap.
        ([(0x06, 0, 0, 0, 1), EXIT, ret(5), EXIT], [5]),
        ([ret(3), (0xE5, 0, 0, 1, 0), ret(5), EXIT], [3, 5]),
        ([ret(-7), (0x37, 0, 0, 1, 2), EXIT], [-3]),
        ([ret(0xFF), (0xBF, 0, 0, 8, 0), EXIT], [-1]),
        ([ret(4 << 24), (0xD7, 0, 0, 0, 32), EXIT], [4]),
        # An atomic exchange brings back what is not known; so does a load with acquire.
        ([ret(4), (0xDB, 1, 0, 0, 0xE1), EXIT], []),
        ([ret(4), (0xDB, 1, 2, 0, 0xF1), EXIT], []),
        ([ret(4), (0xDB, 0, 1, 0, 0x100), EXIT], []),
        # A cast between address spaces.
        ([ret(4), (0xBF, 0, 0, 1, 1), EXIT], []),
        # A function that returns 5 to whoever passes 1: it is passed 2, and then both.
        (
            [
                (0xB7, 1, 0, 0, 2),
                (0x85, 0, 1, 0, 1),
                EXIT,
                ret(0),
                (0x55, 1, 0, 1, 1),
                ret(5),
                EXIT,
            ],
            [0],
        ),
        ([(0x85, 0, 1, 0, 1), EXIT, ret(0), (0x55, 1, 0, 1, 1), ret(5), EXIT], [0, 5]),
        # One that calls itself, and one beyond the end.
        ([(0x85, 0, 1, 0, -1), EXIT], []),
        ([(0x85, 0, 1, 0, 77), EXIT], []),
        # The kernel's own register, with which it hides constants from a sprayer (bpf_jit_harden).
        (
            [
                (0xB7, 11, 0, 0, 0x5A5A),
                (0xA7, 11, 0, 0, 0x5A5A ^ 4),
                (0xBF, 0, 11, 0, 0),
                (0x55, 1, 0, 1, 0),
                (0x07, 0, 0, 0, 1),
                EXIT,
            ],
            [4, 5],
        ),
    ],
)
def test_made_by_hand(insns: list[Raw], values: list[int]) -> None:
    assert returned(*insns) == values


@pytest.mark.parametrize(
    ("insns", "values"),
    [
        ([ret(4), EXIT], []),
        # Which way a branch leads is not certain, neither is what stands behind it.
        ([(0xB7, 6, 0, 0, 1), (0x15, 6, 0, 1, 0), ret(4), EXIT], []),
        ([(0xB7, 6, 0, 0, 1), (0xBC, 7, 6, 0, 0), (0x5D, 1, 7, 1, 0), ret(4), EXIT], []),
        ([(0x62, 10, 0, -4, 5), (0x61, 1, 10, -4, 0), (0x15, 1, 0, 1, 0), ret(4), EXIT], []),
        # What is read from a place that only the loader knows is like all that is read.
        ([(0x61, 6, 1, 0, 0), (0x15, 6, 0, 2, 0), ret(4), EXIT, ret(2), EXIT], [2, 4]),
        # A number that is not used says nothing about the rest.
        ([(0xB7, 6, 0, 0, 1), ret(4), EXIT], [4]),
    ],
)
def test_what_a_loader_still_changes_is_not_known(insns: list[Raw], values: list[int]) -> None:
    code = Code("core", [Insn(*insn) for insn in insns], opaque=frozenset({0}))
    assert sorted({value for value, _ in explore(code).returns}) == values


OF_THE_KERNEL = """
extern int bpf_some_kfunc(struct __sk_buff *skb) __ksym;
extern int CONFIG_HZ __kconfig __weak;
struct sk_buff { int len; } __attribute__((preserve_access_index));
SEC("tc") int kfunc(struct __sk_buff *skb) { return bpf_some_kfunc(skb); }
SEC("tc") int before(struct __sk_buff *skb) { return bpf_some_kfunc(skb) ? 4 : 0; }
SEC("tc") int config(struct __sk_buff *skb) { return CONFIG_HZ == 100 ? 4 : 0; }
SEC("tc") int exists(struct __sk_buff *skb) {
  return bpf_core_field_exists(((struct sk_buff *)0)->len) ? 4 : 0;
}
"""


def test_what_only_the_kernel_can_tell() -> None:
    head = objects.HEAD + "#include <bpf/bpf_core_read.h>\n"
    path = objects.build(OF_THE_KERNEL, name="kernel", head=head)
    with loader.open(path) as obj:
        outcomes = {p.name: explore(loader_code.of(obj, p)) for p in obj.spec.programs}
    values = {
        name: sorted({value for value, _ in outcome.returns}) for name, outcome in outcomes.items()
    }
    assert values == {"kfunc": [], "before": [0, 4], "config": [], "exists": []}
    assert [name for name, outcome in outcomes.items() if outcome.complete] == ["kfunc", "before"]


def test_where_a_register_says_is_not_known() -> None:
    with loader.open(programs.SOURCES / "jumps.o") as obj:
        outcomes = {p.name: explore(loader_code.of(obj, p)) for p in obj.spec.programs}
    assert [name for name, outcome in outcomes.items() if outcome.complete] == ["first"]


def test_helpers_that_are_not_known_by_number_are_silent() -> None:
    code = Code("dumped", [Insn(0x85, 0, 0, 0, 155), Insn(*EXIT)], helpers={})
    assert findings(code, PRIMARY) == ()
    known = Code("dumped", code.insns, helpers={155: 155})
    assert [each.code for each in findings(known, PRIMARY)] == ["redirect_peer"]


def test_a_helper_that_no_path_reaches_is_no_finding() -> None:
    assert findings(made(ret(0), EXIT, (0x85, 0, 0, 0, 155), EXIT), PRIMARY) == ()


def test_one_line_is_told_once() -> None:
    insns = [Insn(0x55, 1, 0, 2, 0), Insn(*ret(4)), Insn(*EXIT), Insn(*ret(4)), Insn(*EXIT)]
    twice = Code("twice", insns)
    assert len(findings(twice, INGRESS)) == 2
    once = Code("twice", insns, places=(Place(0, "/src/a.c", 33),))
    (finding,) = findings(once, INGRESS)
    assert "at instruction 1, line 33 of a.c: " in finding.message
    # The compiler's line 0 is none.
    assert len(findings(Code("twice", insns, places=(Place(0, "a.c", 0),)), INGRESS)) == 2


def _many(*insns: Raw) -> bytes:
    return b"".join(struct.pack("<BBhi", o, d | s << 4, f, m) for o, d, s, f, m in insns)


def _pathological() -> dict[str, bytes]:
    chance = random.Random(4)
    diamonds = [
        each
        for k in range(4000)
        for each in ((0x15, 1, 0, 1, k), (0x07, 6, 0, 0, k), (0x0F, 7, 6, 0, 0))
    ]
    mesh = [(0x15, 1, 0, chance.randint(-k - 1, 15998 - k), k) for k in range(16000)]
    calls = [each for k in range(4000) for each in ((0x85, 0, 1, 0, 5), (0x15, 0, 0, 1, k))]
    bits = [each for _ in range(5000) for each in ((0x57, 6, 0, 0, 1), (0x0F, 7, 6, 0, 0))]
    slots = [
        each
        for k in range(3000)
        for each in (
            (0x15, 1, 0, chance.randint(-4 * k - 1, 0), k),
            (0x07, k % 10, 0, 0, k),
            (0x7B, 10, k % 10, -8 * (k % 60 + 1), 0),
            (0x79, (k + 3) % 10, 10, -8 * (k * 7 % 60 + 1), 0),
        )
    ]
    return {
        "straight": _many(ret(4)) * 16000 + _many(EXIT),
        "diamonds": _many((0xB7, 6, 0, 0, 0), *diamonds, (0xBF, 0, 7, 0, 0), EXIT),
        "mesh": _many(*mesh, EXIT),
        "calls": _many(*calls, EXIT),
        "bits": _many(*bits, (0xBF, 0, 7, 0, 0), EXIT),
        "slots": _many(*slots, EXIT),
        "endless": _many((0x07, 6, 0, 0, 1), (0x05, 0, 0, -2, 0)),
    }


@pytest.mark.parametrize(("name", "data"), _pathological().items(), ids=_pathological())
def test_the_bound(name: str, data: bytes) -> None:
    before = time.process_time()
    findings(Code(name, i.decode(data, "little")), PRIMARY)
    # Some 0.2 s on an idle machine; emulated and shared ones are slower.
    assert time.process_time() - before < 2


def test_a_million_instructions_are_not_looked_at() -> None:
    code = Code("large", [Insn(*ret(4))] * 1_000_000)
    before = time.process_time()
    assert findings(code, PRIMARY) == ()
    assert not explore(code).complete
    assert time.process_time() - before < 0.2


def test_chance_raises_nothing() -> None:
    likely = [0xB7, 0xBF, 0x07, 0x0F, 0x85, 0x95, 0x15, 0x1D, 0x05, 0x06, 0x61, 0x79, 0x7B, 0x63]
    likely += [0x18, 0x57, 0x77, 0xDB, 0xC3, 0xE5, 0xDC, 0xD7, 0x16, 0x66, 0xB4, 0xBC, 0x30, 0x3F]
    for seed in range(250):
        chance = random.Random(seed)
        if seed % 2:
            data = chance.randbytes(8 * chance.choice([1, 2, 5, 40]))
        else:
            data = b"".join(
                struct.pack(
                    "<BBhi",
                    chance.choice(likely),
                    chance.randrange(256),
                    chance.randint(-6, 6),
                    chance.choice([0, 1, 2, -1, 4, 8, 16, 32, 63, 31, 155, 23, 124, -(1 << 31)]),
                )
                for _ in range(50)
            )
        for hook in (EGRESS, PRIMARY):
            findings(Code("chance", i.decode(data, "little")), hook)
            findings(Code("chance", i.decode(data, "big"), "big", calls_by_offset=True), hook)
