"""The way around the parser: only what it is for, light, and errors told by the parser's way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from netbpf.cli import chain_view, loading, quick
from netbpf.cli.settings import settings
from tests.netns_fixtures.cli import own_signals

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str | None, str | None]]:
    calls: list[tuple[str | None, str | None]] = []
    monkeypatch.setattr(chain_view, "show_tcx", lambda *names: calls.append(names))
    return calls


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("tcx show --json", (None, None)),
        ("-j tcx show", (None, None)),
        ("--json tcx show eth0", ("eth0", None)),
        ("tcx show eth0 ingress -j", ("eth0", "ingress")),
        ("tcx -j show eth0 --json", ("eth0", None)),
    ],
)
def test_what_it_is_for(
    line: str, names: tuple[str | None, str | None], shown: list[tuple[str | None, str | None]]
) -> None:
    try:
        assert quick.ran(line.split())
        assert settings.json
    finally:
        settings.reset()
    assert shown == [names]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--json",
        "tcx show",
        "tcx show eth0",
        "tcx show --json --help",
        "tcx show --json -n ns",
        "-n ns tcx show --json",
        "tcx show --json --all-netns",
        "tcx show --json --stats",
        "tcx show --json -- eth0",
        "tcx show --json a b c",
        "netkit show --json",
        "tcx --json",
    ],
)
def test_the_rest_is_the_parsers(line: str, shown: list[tuple[str | None, str | None]]) -> None:
    assert not quick.ran(line.split())
    assert (shown, settings.json) == ([], False)


def test_errors_are_the_parsers(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("no")

    monkeypatch.setattr(chain_view, "show_tcx", refuse)
    assert not quick.ran(["tcx", "show", "--json"])
    assert not settings.json


# What each of them imports takes longer than the work of a quick command.
HEAVY = [
    *("typer", "rich", "pyroute2", "elftools"),
    *("typing", "dataclasses", "re", "enum", "signal", "functools", "collections", "contextlib"),
    *("inspect", "socket", "pathlib", "threading", "logging", "importlib", "array"),
]


@pytest.mark.parametrize(
    ("modules", "allowed"),
    [
        (
            "netbpf.cli.quick, netbpf.cli.chain_view, netbpf.plumbing.packet_path",
            {"re", "enum", "functools", "collections", "contextlib"},
        ),
        (
            "netbpf.cli.quick, netbpf.cli.loading, netbpf.cli.interrupts, netbpf.loader.foresee, "
            "netbpf.loader.pinning",
            set(),
        ),
    ],
)
def test_it_is_light(modules: str, allowed: set[str]) -> None:
    # Without site, which may import anything.
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        f"import netbpf.__main__, {modules}\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True
    )
    assert set(result.stdout.split()) <= allowed


@pytest.mark.parametrize(
    ("line", "asked", "json"),
    [
        ("prog load a.o", ("a.o", None), False),
        ("prog load a.o --json", ("a.o", None), True),
        ("prog load a.o --pin dir", ("a.o", "dir"), False),
        ("prog load -j a.o --pin dir", ("a.o", "dir"), True),
        ("prog load --pin dir a.o -j", ("a.o", "dir"), True),
    ],
)
def test_loading_without_options(
    line: str, asked: tuple[str, str | None], json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def made(file: str, pin: str | None) -> dict[str, object]:
        calls.append((file, pin))
        return {}

    monkeypatch.setattr(loading, "made", made)
    monkeypatch.setattr(loading, "tell", lambda document, pinned: calls.append(settings.json))
    monkeypatch.delenv("NETBPF_LOG_LEVEL", raising=False)
    try:
        with own_signals():
            assert quick.ran(line.split())
    finally:
        settings.reset()
    assert calls == [asked, json]


@pytest.mark.parametrize(
    "line",
    [
        "prog load",
        "prog load --help",
        "prog load a.o b.o",
        "prog load a.o --pin",
        "prog load a.o --pin -j dir",
        "prog load a.o --pin dir --pin other",
        "prog load a.o --pin=dir",
        "prog load a.o --dry-run",
        "prog load a.o -v",
        "prog load a.o --set x=1",
        "prog load a.o --pin --json",
        "prog show",
        "-n ns prog load a.o",
    ],
)
def test_loading_with_options(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "made", lambda *asked: pytest.fail(f"{asked}"))
    assert not quick.ran(line.split())
