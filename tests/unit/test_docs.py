"""What the documents say of commands, options, features and files is so."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from netbpf import progs
from netbpf.cli import exit_status, main
from netbpf.netns.hooks import HOOKS
from tests.netns_fixtures import probes
from tests.unit.test_architecture import LEVELS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
EXAMPLES = sorted(p for p in ROOT.glob("examples/**/*") if p.suffix in (".c", ".py", ".sh"))
TEXTS = [*DOCUMENTS, *EXAMPLES, ROOT / "scripts/demo"]


@cache
def commands() -> dict[str, Any]:
    """Every command by what is typed for it, ``tcx show``."""
    root: Any = typer.main.get_command(main.app)
    found: dict[str, Any] = {}
    for noun in main.Nouns.nouns:
        group = root.get_command(None, noun)
        if noun in main.Nouns.verbs:
            found[noun] = group
            continue
        assert hasattr(group, "commands"), f"{noun} is no group: with one verb it needs a callback"
        found.update({f"{noun} {verb}": command for verb, command in group.commands.items()})
    return found


def options(command: Any) -> set[str]:
    """The options that a command takes, as they are typed."""
    return {"--help"}.union(*(param.opts + param.secondary_opts for param in command.params))


def rows(document: str, heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without its own."""
    text = (ROOT / document).read_text().split(f"## {heading}\n", 1)[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines[2:]]


def command_lines(text: str) -> Iterator[list[str]]:
    """The words of each command line of netbpf in a text, from the noun on."""
    pattern = (
        r'(?:\brun|[#$`*]|:|^)\s*(?:sudo )?(?:"\$NETBPF"|netbpf|run|\.venv/bin/netbpf) ([^`\n]+)'
    )
    for match in re.finditer(pattern, text.replace("\\\n", " "), re.MULTILINE):
        line = re.split(r" \||;|\)|  #", match[1])[0]
        try:
            words = shlex.split(line)
        except ValueError:
            words = line.split()
        while words and words[0].startswith("-"):
            words = words[2 if words[0] in ("-n", "--netns") else 1 :]
        if len(words) >= 2 and words[0] in main.Nouns.nouns:
            yield words


def name_of(words: list[str]) -> str:
    """The command that a line begins with: a noun and its verb, or a verb by itself."""
    return words[0] if words[0] in main.Nouns.verbs else " ".join(words[:2])


def test_the_table_of_commands_is_whole() -> None:
    listed = [row[0].strip("`").removeprefix("netbpf ") for row in rows("README.md", "Commands")]
    assert sorted(listed) == sorted(commands())


def test_the_table_of_json_documents_is_whole() -> None:
    listed = [name for row in rows("docs/cli.md", "JSON") for name in re.findall("`(.*?)`", row[0])]
    # What a command inside a namespace prints is its own.
    assert sorted([*listed, "netns exec"]) == sorted(commands())


@pytest.mark.parametrize("file", TEXTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_command_lines_are_of_this_grammar(file: Path) -> None:
    for words in command_lines(file.read_text()):
        name = name_of(words)
        assert name in commands(), f"{file.name}: netbpf {name}"
        own = words[: words.index("--")] if "--" in words else words
        used = {word.split("=")[0] for word in own if re.fullmatch(r"--?[a-z][^ ]*", word)}
        assert used <= options(commands()[name]), f"{file.name}: {name} {own}"


def test_command_lines_are_found() -> None:
    text = 'x `netbpf tcx show` y\n# netbpf -n a tcx show d0 --json | jq .\nrun -n "$X" tcx show\n'
    assert [words[:2] for words in command_lines(text)] == [["tcx", "show"]] * 3


def test_every_help_shows_an_example_of_its_own() -> None:
    for name, command in commands().items():
        assert command.help, name
        assert command.epilog and command.epilog.startswith("Example: netbpf "), name
        (found,) = command_lines(command.epilog)
        assert name_of(found) == name
        own = found[: found.index("--")] if "--" in found else found
        used = {word for word in own if word.startswith("--")}
        assert used <= options(command), name


def test_the_global_options_are_those_of_every_command() -> None:
    listed = set(
        re.findall(r"`(--?[a-z-]+)", " ".join(r[0] for r in rows("docs/cli.md", "Everywhere")))
    )
    everywhere = set.intersection(*(options(command) for command in commands().values()))
    assert listed - {"--dry-run"} == everywhere - {"--help", "-h"}
    changing = [name for name, command in commands().items() if "--dry-run" in options(command)]
    assert changing


def test_the_exit_statuses() -> None:
    listed = [int(row[0]) for row in rows("docs/cli.md", "Exit status")]
    defined = [
        value for name, value in vars(exit_status).items() if name.isupper() and name[0] != "_"
    ]
    assert listed == sorted(defined)


def test_the_built_in_programs() -> None:
    for document in ("README.md", "docs/cli.md"):
        text = (ROOT / document).read_text()
        assert all(f"`{name}`" in text for name in progs.names()), document


def test_the_releases_are_those_of_the_hooks_and_probes() -> None:
    listed = [row[1] for row in rows("README.md", "Kernels")]
    hooks = [hook.since for hook in HOOKS.values()]
    # No test has to ask for arenas: every kernel that is tested on has them.
    known = [*hooks, *probes.SINCE.values(), "6.9"]
    assert listed == sorted(known, key=lambda since: [int(part) for part in since.split(".")])


def test_what_can_be_run_is_listed() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    runs = [file for file in ROOT.glob("scripts/*") if file.suffix != ".sh"]
    runs += [file for file in ROOT.glob("bench/*.py") if file.name != "common.py"]
    runs += [file for file in ROOT.glob("tools/*.py") if file.name != "__init__.py"]
    for file in runs:
        assert f"{file.relative_to(ROOT)}`" in text, file.name


def test_the_arrows_are_those_of_the_walls() -> None:
    text = " ".join((ROOT / "CONTRIBUTING.md").read_text().split())
    assert f"`{' < '.join(', '.join(sorted(rooms)) for rooms in LEVELS)}`" in text


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.name)
def test_links_lead_to_files(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.name)
def test_lines_are_short(document: Path) -> None:
    text = re.sub(r"(?ms)^```.*?^```$", "", document.read_text())
    assert not [line for line in text.splitlines() if len(line) > 120 and line[0] != "|"]
