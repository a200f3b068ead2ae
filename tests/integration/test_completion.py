"""`netbpf --install-completion` in a home of its own, and what the shells then complete."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from netbpf.cli.main import Nouns
from tests.netns_fixtures.namespaces import namespace
from tests.netns_fixtures.scripts import BIN

pytestmark = pytest.mark.skipif("NETBPF_LAB" in os.environ, reason="asks nothing of the kernel")
NOUNS = set(Nouns.nouns)


def shell(program: str | Path, home: Path, script: str, **env: str) -> str:
    """What a shell with that home says to a script."""
    environment = {**os.environ, "HOME": str(home), "PATH": f"{BIN}:{os.environ['PATH']}", **env}
    environment.pop("ZDOTDIR", None)
    done = subprocess.run(
        [program, "-c", script],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def bash_offers(home: Path, line: str) -> set[str]:
    """What bash offers at the end of a line, asked as bash asks: by the function it was given."""
    words = line.split(" ")
    quoted = " ".join(f"'{word}'" for word in words)
    script = f"""
        . ~/.bashrc
        function=$(complete -p netbpf | sed 's/.* -F \\([^ ]*\\) .*/\\1/')
        COMP_WORDS=({quoted}) COMP_CWORD={len(words) - 1} COMP_LINE='{line}' COMP_POINT={len(line)}
        $function netbpf '{words[-1]}' '{words[-2]}'
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    return set(shell("bash", home, script).split())


def test_bash(tmp_path: Path) -> None:
    # After it another command, or bash would put netbpf in its own place and be no shell to detect.
    said = shell("bash", tmp_path, "netbpf --install-completion; echo installed")
    assert "installed" in said
    assert bash_offers(tmp_path, "netbpf ") == NOUNS
    assert bash_offers(tmp_path, "netbpf netn") == {"netns"}
    assert bash_offers(tmp_path, "netbpf tcx ") >= {"attach", "detach", "update", "show"}
    assert bash_offers(tmp_path, "netbpf tcx show --al") == {"--all-netns"}
    assert "lo" in bash_offers(tmp_path, "netbpf tcx show l")


def test_names_of_namespaces_are_offered(tmp_path: Path) -> None:
    shell("bash", tmp_path, "netbpf --install-completion; echo installed")
    with namespace() as place:
        assert place.name is not None
        assert bash_offers(tmp_path, f"netbpf netns del {place.name[:-1]}") == {place.name}


def test_zsh(tmp_path: Path) -> None:
    # A shell is told by the name of its process: where there is no zsh, bash stands in for it.
    zsh = shutil.which("zsh")
    program = tmp_path / "zsh"
    program.symlink_to(zsh or shutil.which("bash") or "")
    home = tmp_path / "home"
    home.mkdir()
    shell(program, home, "netbpf --install-completion; echo installed", SHELL=str(program))
    function = (home / ".zfunc/_netbpf").read_text()
    assert "compdef _netbpf_completion netbpf" in function
    assert "fpath+=~/.zfunc" in (home / ".zshrc").read_text()
    # What the function asks netbpf, and what zsh evaluates.
    assert "_NETBPF_COMPLETE=complete_zsh netbpf" in function
    asked = {"_NETBPF_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "netbpf n"}
    said = shell("bash", home, "netbpf", **asked)
    assert said.startswith("_arguments ")
    assert '"netkit"' in said and '"netns"' in said and '"tcx"' not in said
    if zsh:
        shell(zsh, home, ". ~/.zshrc; autoload -Uz _netbpf; whence -v _netbpf")
