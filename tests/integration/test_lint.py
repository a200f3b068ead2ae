"""What netbpf says of a program before an attach is what the kernel then does with packets."""

from __future__ import annotations

import errno
import random
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from netbpf import Program, loader, progs
from netbpf.bpf import prog, uapi
from netbpf.lint import insns as i
from netbpf.lint import xlated
from netbpf.lint.insns import Code
from netbpf.lint.paths import explore
from netbpf.lint.rules import findings, warnings
from netbpf.loader import code as loader_code
from tests.netns_fixtures import hooks, objects, programs
from tests.netns_fixtures.cli import Result, netbpf, ok
from tests.netns_fixtures.clsact import Clsact
from tests.netns_fixtures.hooks import Site
from tests.netns_fixtures.packets import Sniffer, UdpSink

Load = Callable[..., Program]
Compiled = Callable[[str], Path]

# RECLASSIFY, PIPE, STOLEN, QUEUED, REPEAT, TRAP, GOTO_CHAIN to 1, and what is nothing at all.
NO_VERDICTS = [1, 3, 4, 5, 6, 8, 0x20000001, 9, 4711, -2]


@pytest.fixture
def lint(compiled: Compiled) -> Iterator[loader.Object]:
    """tests/bpf/lint.c, read but not loaded."""
    with loader.open(compiled("lint")) as obj:
        yield obj


def one(obj: loader.Object, name: str) -> Program:
    obj.load(only=[name])
    return obj.programs[name]


def words(site: Site, verb: str, *rest: object) -> Result:
    return netbpf("-j", site.noun, verb, "-n", site.ns.name, site.device, site.hook, *rest)


@pytest.mark.parametrize("code", NO_VERDICTS)
def test_no_verdict(site: Site, load: Load, code: int) -> None:
    other, decides = load(code, "other"), load(programs.DROP, "decides")
    (finding,) = warnings(other, site.hooks.hook(site.hook))
    assert f"({code})" in finding.message or f"returns {code}," in finding.message
    known = code in (1, 3, 4, 5, 6, 8, 0x20000001)
    assert finding.code == ("not_a_verdict" if known else "unknown_code")
    if site.noun == "tcx":
        # The next program would drop, and does where it is asked.
        site.attach(decides, link=False)
        assert site.drops()
        site.attach(other, first=True, link=False)
        assert "the rest of the chain is skipped" in finding.message
        assert site.passes()
    else:
        site.attach(load(programs.PASS, "passes"), link=False)
        assert site.passes()
        site.attach(other, first=True, link=False)
        assert finding.message.endswith("the chain ends and the packet is dropped")
        assert site.drops()


@pytest.mark.parametrize("kind", ["tcx-ingress", "tcx-egress"])
@pytest.mark.needs("tcx")
def test_no_verdict_leaves_it_to_cls_bpf(kind: str, load: Load, bpffs: Path) -> None:
    with hooks.site(kind) as site:
        site.attach(load(4, "stolen"), link=False)
        assert site.passes()
        clsact = Clsact(site, bpffs)
        clsact.qdisc()
        clsact.add(load(programs.DROP, "decides"))
        assert site.drops()


def test_next_at_the_end_passes(site: Site, load: Load) -> None:
    following = load(programs.NEXT, "following")
    found = findings(following, site.hooks.hook(site.hook))
    assert [(each.code, each.severity) for each in found] == (
        [] if site.noun == "tcx" else [("next_passes", "info")]
    )
    site.attach(following, link=False)
    assert site.passes()


def test_redirect_peer(site: Site, lint: loader.Object) -> None:
    """To the peer of the sender's side: it gets its packet back, or nobody gets anything."""
    # The device is looked for where the packet is: at egress that is still with the sender.
    here = site.sender if site.hook == "egress" else site.receiver
    lint.set("target", here.ifindex)
    lint.load(only=["redirect_peer", "redirect_in"])
    program = lint.programs["redirect_peer"]
    found = warnings(program, site.hooks.hook(site.hook))
    if site.noun == "netkit":
        # The device is found there: a plain redirect to it arrives.
        plain = lint.programs["redirect_in"]
        assert warnings(plain, site.hooks.hook(site.hook)) == ()
        site.attach(plain, link=False)
        assert site.passes()
        site.call("detach", plain)
    assert site.passes()
    site.attach(program, link=False)
    with Sniffer(site.sender.ns, site.sender.name, hooks.PAYLOAD) as sniffer:
        assert site.arrived(timeout=0.3) == 0
        seen = len(sniffer.receive(6, timeout=0.5))
    if site.hook == "ingress":
        # Each was seen on its way out, and again when it came back.
        assert (found, seen) == ((), 6)
    else:
        assert [each.code for each in found] == ["redirect_peer"]
        # A tap sees what leaves a device before tcx egress and netkit look at it, or not at all.
        assert seen <= 3


def test_sk_assign(site: Site, lint: loader.Object) -> None:
    program = one(lint, "sk_assign")
    found = warnings(program, site.hooks.hook(site.hook))
    site.attach(program, link=False)
    # The socket is looked for where the packet is: at egress that is still with the sender.
    with UdpSink(site.sender.ns, port=9):
        assert site.arrived() == 3
    if site.hook == "ingress":
        assert (found, lint.get("assigned")) == ((), 0)
    else:
        assert [each.code for each in found] == ["sk_assign"]
        assert lint.get("assigned") == -errno.EOPNOTSUPP


def test_a_loaded_program_is_seen_as_its_file(site: Site, lint: loader.Object) -> None:
    hook = site.hooks.hook(site.hook)
    before = {
        spec.name: [(each.code, each.line) for each in findings(loader_code.of(lint, spec), hook)]
        for spec in lint.spec.programs
    }
    lint.load()
    after = {
        name: [(each.code, each.line) for each in findings(program, hook)]
        for name, program in lint.programs.items()
    }
    assert after == before
    assert sum(map(len, after.values())) > 8


@pytest.mark.parametrize("mode", [1, 2, 3])
def test_constants_of_a_loaded_program(lint: loader.Object, mode: int) -> None:
    from netbpf import netkit

    lint.set("mode", mode)
    found = findings(one(lint, "constant"), netkit.HOOKS.hook("peer"))
    assert [each.code for each in found] == {1: [], 2: ["not_a_verdict"], 3: ["redirect_peer"]}[
        mode
    ]


def test_the_built_in_programs_are_clean(site: Site) -> None:
    hook = site.hooks.hook(site.hook)
    for name in progs.names():
        with loader.open(progs.path(name)) as obj:
            obj.load()
            (program,) = obj.programs.values()
            assert warnings(program, hook) == ()
        result = words(site, "attach", f"builtin:{name}", "--strict")
        assert (result.status, result.err) == (0, "")


def test_attach_notes_what_it_found(site: Site, compiled: Compiled) -> None:
    result = words(site, "attach", f"{compiled('lint')}:ternary")
    assert result.status == 0
    assert result.json["attached"]["prog"]["name"] == "ternary"
    (line,) = result.err.splitlines()
    assert line.startswith("netbpf: ternary returns STOLEN (4) at instruction ")
    assert "of lint.c: no verdict of" in line


def test_update_notes_what_it_found(site: Site, compiled: Compiled) -> None:
    assert words(site, "attach", "builtin:next").status == 0
    result = words(site, "update", "name:next", f"{compiled('lint')}:by_function")
    assert result.status == 0
    assert result.json["updated"]["prog"]["name"] == "by_function"
    assert "by_function returns PIPE (3)" in result.err


def test_strict_refuses_and_changes_nothing(site: Site, compiled: Compiled, load: Load) -> None:
    assert words(site, "attach", "builtin:next").status == 0
    before, pins = site.chain(), sorted(site.own_pins())
    loaded = load(5, "queued")
    file = f"{compiled('lint')}:ternary"
    for argument, verb in ((file, "attach"), (f"id:{loaded.id}", "attach"), (file, "update")):
        place = ["name:next"] if verb == "update" else []
        for more in ([], ["--dry-run"]):
            result = words(site, verb, *place, argument, "--strict", *more)
            assert (result.status, result.err) == (1, "")
            assert result.error["code"] == "lint"
            assert (
                "STOLEN (4)" in result.error["message"] or "QUEUED (5)" in result.error["message"]
            )
    assert site.chain() == before
    assert sorted(site.own_pins()) == pins
    assert site.passes()


def test_strict_takes_what_works(site: Site, compiled: Compiled) -> None:
    file = compiled("lint")
    assert words(site, "attach", f"{file}:constant", "--strict").status == 0
    result = words(site, "attach", f"{file}:constant", "--strict", "--set", "mode=2")
    assert (result.status, result.error["code"]) == (1, "lint")


WEAK = """
extern const int no_such_symbol __ksym __weak;
SEC("tc") int weak(struct __sk_buff *skb) { return &no_such_symbol ? 4 : 5; }
"""


def test_what_depends_on_the_kernel_is_told_once_it_is_loaded(site: Site) -> None:
    file = objects.build(WEAK, name="weak")
    assert lint_of(file, site.hook)["findings"] == []
    before = site.chain()
    refused = words(site, "attach", file, "--strict")
    assert (refused.status, refused.error["code"]) == (1, "lint")
    assert site.chain() == before
    assert site.own_pins() == []
    result = words(site, "attach", file)
    assert result.status == 0
    (line,) = result.err.splitlines()
    assert "weak returns QUEUED (5)" in line


def lint_of(program: object, hook: str, *more: object) -> Any:
    return ok("prog", "lint", program, "--hook", hook, *more)


def test_prog_lint(compiled: Compiled, load: Load) -> None:
    file = compiled("lint")
    found = lint_of(f"{file}:ternary", "primary")
    assert set(found) == {"schema_version", "program", "hook", "findings"}
    assert (found["program"], found["hook"]) == ({"id": None, "name": "ternary"}, "primary")
    stolen, following = found["findings"]
    keys = {"code", "severity", "message", "instruction", "file", "line"}
    assert set(stolen) == set(following) == keys
    assert (stolen["code"], stolen["severity"]) == ("not_a_verdict", "warning")
    assert (following["code"], following["severity"]) == ("next_passes", "info")
    assert lint_of(f"{file}:constant", "egress")["findings"] == []
    assert lint_of(f"{file}:constant", "egress", "--set", "mode=3")["findings"] != []
    loaded = load(4, "stolen")
    (finding,) = lint_of(f"id:{loaded.id}", "ingress")["findings"]
    assert (finding["instruction"], finding["file"], finding["line"]) == (0, None, None)


def test_prog_lint_in_words_and_its_status(compiled: Compiled) -> None:
    file = compiled("lint")
    told = netbpf("prog", "lint", f"{file}:ternary", "--hook", "peer")
    assert (told.status, told.err) == (0, "")
    assert [line.split(":")[0] for line in told.out.splitlines()] == ["warning", "info"]
    assert netbpf("prog", "lint", f"{file}:ternary", "--hook", "peer", "--strict").status == 1
    # What is for information refuses nothing.
    for name in ("builtin:next", f"{file}:constant"):
        assert netbpf("prog", "lint", name, "--hook", "peer", "--strict").status == 0
    assert netbpf("prog", "lint", file, "--hook", "nowhere").status == 2
    assert netbpf("prog", "lint", f"{file}:none", "--hook", "peer").status == 1


def test_another_type_is_no_program_for_a_hook() -> None:
    with prog.load(uapi.BPF_PROG_TYPE_XDP, programs.returning(2), name="xdp_pass") as program:
        result = netbpf("-j", "prog", "lint", f"id:{program.id}", "--hook", "ingress")
    assert (result.status, result.error["code"]) == (1, "wrong_type")
    assert "xdp" in result.error["message"]


# Opcodes of arithmetic with a number or a register, of both widths; their shifts and divisions take
# only what the verifier takes.
_OPERATIONS = [i.ADD, i.SUB, i.MUL, i.OR, i.AND, i.XOR, i.DIV, i.MOD, i.LSH, i.RSH, i.ARSH]
_CONDITIONS = [i.JEQ, i.JNE, i.JGT, i.JGE, i.JLT, i.JLE, i.JSET, i.JSGT, i.JSGE, i.JSLT, i.JSLE]
_NUMBERS = [1, 2, 3, 7, 63, 255, 0x7FFFFFFF, -1, -2, -128, -(1 << 31), 0x12345678]


def by_chance(chance: random.Random) -> bytes:
    """A program of arithmetic, moves, swaps, spills and branches on constants."""
    registers = [0, 2, 3, 4, 5]
    insns: list[tuple[int, int, int, int, int]] = []
    for register in registers:
        low, high = chance.choice(_NUMBERS), chance.choice([0, -1, chance.choice(_NUMBERS)])
        insns += [(i.LD_IMM64, register, 0, 0, low), (0, 0, 0, 0, high)]
        insns.append((0x7B, i.FRAME, register, -8 * (register + 1), 0))
    for _ in range(25):
        dst, src = chance.choice(registers), chance.choice(registers)
        wide = chance.random() < 0.5
        kind, bits = (i.ALU64, 64) if wide else (i.ALU, 32)
        match chance.randrange(7):
            case 0 | 1:
                op, number = chance.choice(_OPERATIONS), chance.choice(_NUMBERS)
                if op in (i.LSH, i.RSH, i.ARSH):
                    number = chance.randrange(bits)
                off = chance.choice([0, 1]) if op in (i.DIV, i.MOD) else 0
                insns.append((kind | op, dst, 0, off, number))
            case 2:
                op = chance.choice(_OPERATIONS)
                off = chance.choice([0, 1]) if op in (i.DIV, i.MOD) else 0
                insns.append((kind | op | i.X, dst, src, off, 0))
            case 3:
                off = chance.choice([0, 8, 16, 32] if wide else [0, 8, 16])
                insns.append((kind | i.MOV | i.X, dst, src, off, 0))
            case 4:
                swap = chance.choice([i.ALU | i.END, i.ALU | i.END | i.X, i.ALU64 | i.END])
                size = chance.choice([16, 32, 64])
                insns.append(chance.choice([(swap, dst, 0, 0, size), (kind | i.NEG, dst, 0, 0, 0)]))
            case 5:
                size = chance.choice([0x18, 0x18, 0x00, 0x08, 0x10])
                place = -8 * (chance.choice(registers) + 1)
                mode = i.MEMSX if size != 0x18 and chance.random() < 0.5 else i.MEM
                insns.append((i.STX | i.MEM | size, i.FRAME, src, place, 0))
                insns.append((i.LDX | mode | size, dst, i.FRAME, place, 0))
            case 6:
                jump = i.JMP if wide else i.JMP32
                op, number = chance.choice(_CONDITIONS), chance.choice(_NUMBERS)
                branch = [(jump | op, dst, 0, 1, number), (jump | op | i.X, dst, src, 1, 0)]
                insns.append(chance.choice(branch))
                insns.append((i.ALU64 | i.MOV, dst, 0, 0, chance.choice(_NUMBERS)))
    insns.append((i.JMP | i.EXIT, 0, 0, 0, 0))
    return b"".join(struct.pack("=BBhi", c, d | s << 4, o, m) for c, d, s, o, m in insns)


def test_constants_are_followed_as_the_kernel_runs_them() -> None:
    assert sys.byteorder == "little", "the programs are put together for little-endian machines"
    values = set()
    for seed in range(300):
        insns = by_chance(random.Random(seed))
        with prog.load(uapi.BPF_PROG_TYPE_SCHED_CLS, insns, name="by_chance") as program:
            returned = program.test_run(bytes(64)).retval
            for code in (Code("made", i.decode(insns, "little")), xlated.code(program)):
                (known,) = explore(code).returns
                assert known[0] == returned, f"seed {seed}"
        values.add(returned)
    assert len(values) > 50
