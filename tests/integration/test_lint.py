"""What netbpf says of a program before an attach is what the kernel then does with packets."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from netbpf import Program, loader, progs
from netbpf.bpf import prog, uapi
from netbpf.bpf.lint import findings, warnings
from netbpf.loader import code as loader_code
from netbpf.netns import entered
from tests.netns_fixtures import hooks, programs
from tests.netns_fixtures.cli import Result, netbpf, ok
from tests.netns_fixtures.clsact import Clsact
from tests.netns_fixtures.hooks import Site
from tests.netns_fixtures.packets import Sniffer, UdpSink, send_udp

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
    assert site.passes()
    lint.set("target", site.ifindex)
    program = one(lint, "redirect_peer")
    found = warnings(program, site.hooks.hook(site.hook))
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


def test_looking_takes_nothing_from_the_caller(site: Site, compiled: Compiled) -> None:
    """A lint beside an attach loads nothing that stays."""
    with entered(site.ns):
        before = set(Program.ids())
        assert netbpf("prog", "lint", f"{compiled('lint')}:ternary", "--hook", "peer").status == 0
        assert set(Program.ids()) <= before
    send_udp(site.sender.ns, site.receiver.address, 9, hooks.PAYLOAD, 1)
