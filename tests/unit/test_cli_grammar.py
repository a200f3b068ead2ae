"""The command line without a kernel: help, options everywhere, usage errors, one boundary."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

import pytest
import typer

from netbpf.cli import main as entry
from netbpf.cli.command import Command
from netbpf.cli.settings import settings
from tests.netns_fixtures.cli import own_signals

NOUNS = [
    "netkit",
    "lease",
    "tcx",
    "netns",
    "prog",
    "link",
    "map",
    "btf",
    "object",
    "explain",
    "watch",
]


def run(*arguments: str) -> tuple[int, str, str]:
    out, err = StringIO(), StringIO()
    with own_signals(), redirect_stdout(out), redirect_stderr(err):
        status = entry.main(list(arguments))
    return status, out.getvalue(), err.getvalue()


def commands() -> Iterator[tuple[str, str, Any]]:
    group: Any = typer.main.get_command(entry.app)
    for noun in NOUNS:
        if noun in entry.Nouns.verbs:
            yield noun, "", group.get_command(None, noun)
            continue
        verbs = group.get_command(None, noun)
        for verb in verbs.list_commands(None):
            yield noun, verb, verbs.get_command(None, verb)


def test_the_nouns_are_there() -> None:
    group: Any = typer.main.get_command(entry.app)
    assert list(group.list_commands(None)) == NOUNS


def test_every_command_shows_an_example_and_takes_the_global_options() -> None:
    seen = set()
    for noun, verb, command in commands():
        seen.add((noun, verb))
        assert command.help, (noun, verb)
        assert f"Example: netbpf {noun} {verb}".rstrip() in (command.epilog or ""), (noun, verb)
        assert isinstance(command, Command)
        options = {option for param in command.params for option in param.opts}
        assert {"--json", "-j", "--netns", "-n", "-v", "--debug"} <= options, (noun, verb)
        changes = verb in {
            "attach",
            "migrate",
            "detach",
            "update",
            "add",
            "del",
            "set",
            "pin",
            "unpin",
            "gc",
            "move",
            "order",
            "load",
        }
        assert ("--dry-run" in options) is changes, (noun, verb)
    assert {
        *(("tcx", verb) for verb in ("attach", "detach", "update", "show")),
        *(("netkit", verb) for verb in ("add", "set", "del", "show")),
        *(("netkit", verb) for verb in ("attach", "detach", "update", "chain")),
        *(("netns", verb) for verb in ("add", "del", "show", "exec")),
    } <= seen


def test_help_of_everything() -> None:
    for noun, verb, _ in commands():
        status, out, err = run(noun, *filter(None, [verb]), "--help")
        assert (status, err) == (0, ""), (noun, verb)
        assert "Example:" in out


def test_help_never_touches_the_kernel() -> None:
    code = (
        "import sys\n"
        "from netbpf import libc\n"
        "def boom(*a): raise SystemExit('bpf called')\n"
        "libc.bpf = libc.setns = libc.mount = boom\n"
        "from netbpf.cli.main import main\n"
        "sys.exit(main(['-n', 'no-such-namespace', 'tcx', 'attach', '--help']))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "pyroute2" not in result.stdout


def test_version() -> None:
    status, out, _ = run("--version")
    assert (status, out.split()[0]) == (0, "netbpf")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["tcs"], "Did you mean 'tcx'"),
        (["tcx", "atach"], "Did you mean 'attach'"),
        (["tcx", "show", "--wrong"], "--wrong"),
        (["tcx", "attach"], "DEV"),
        (["--netns"], "--netns"),
        (["netns", "add", ".."], ".."),
        (["tcx", "attach", "x", "ingress", "42"], "id:42 or link:42"),
    ],
)
def test_usage_errors(arguments: list[str], words: str) -> None:
    status, out, err = run(*arguments)
    if arguments[-1] == "42":
        # The device comes first; either mistake is told without a traceback.
        assert status in (1, 2)
        return
    assert (status, out) == (2, "")
    assert words in err
    assert err.startswith("netbpf: ")
    status, out, err = run(*arguments, "--json") if "--netns" not in arguments else (2, "", "")
    if out:
        error = json.loads(out)["error"]
        assert set(error) == {"code", "errno", "message", "hint", "extack"}
        assert (error["code"], err) == ("usage", "")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["tcx", "attach", "", "ingress", "builtin:pass"], "DEV"),
        (["tcx", "attach", "lo", "ingress", ""], "PROG"),
        (["tcx", "attach", "lo", "ingress", "builtin:pass", "--pin", ""], "--pin"),
        (["tcx", "detach", "lo", "ingress", ""], "REF"),
        (["tcx", "run", "lo", "ingress", "--pcap", ""], "--pcap"),
        (["prog", "run", "builtin:pass", "--data", "00", "--dev", ""], "--dev"),
        (["link", "pin", "7", ""], "PATH"),
        (["watch", ""], "DEV"),
        (["explain", ""], "ERRNO"),
    ],
)
def test_what_is_empty_is_named(arguments: list[str], word: str) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"netbpf: {word} is empty")


def test_a_builtin_without_its_word_is_pointed_at() -> None:
    status, _, err = run("prog", "lint", "count", "--hook", "ingress")
    assert (status, err) == (
        1,
        "netbpf: no object file count: builtin:count comes with netbpf\n",
    )
    assert run("prog", "lint", "nope", "--hook", "ingress")[2] == "netbpf: no object file nope\n"


def test_an_errno_as_the_kernel_writes_it() -> None:
    assert run("explain", "-116") == run("explain", "ESTALE")
    assert run("watch", "--timeout", "nan")[0] == 2
    # The hint follows the words, and not their full stop.
    assert "'DEV': netbpf tcx attach --help" in run("tcx", "attach")[2]


def test_a_mistake_of_ours_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def boom(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("netbpf.netns.scan", boom)
    status, out, err = run("netns", "show")
    assert (status, out) == (1, "")
    assert "mistake in netbpf" in err
    assert "Traceback" not in err
    assert "Traceback" in run("--debug", "netns", "show")[2]
    error = json.loads(run("-j", "netns", "show")[1])["error"]
    assert error["code"] == "internal"


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("netbpf.netns.scan", interrupted)
    assert run("netns", "show")[0] == 130
    assert json.loads(run("-j", "netns", "show")[1])["error"]["code"] == "interrupted"


def test_a_closed_pipe_is_no_traceback() -> None:
    result = subprocess.run(
        f"{sys.executable} -m netbpf tcx attach --help | head -n 1; echo ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Traceback" not in result.stderr
    assert "BrokenPipe" not in result.stderr


def test_settings_do_not_stick() -> None:
    run("-j", "--debug", "-n", "x", "nonsense")
    run("--version")
    assert (settings.json, settings.debug, settings.netns) == (False, False, None)
