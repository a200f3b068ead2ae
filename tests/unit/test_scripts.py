"""The scripts know what the machine must have."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lab.netdevsim import BUILD_PACKAGES

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = [ROOT / f"scripts/{name}" for name in ("setup", "check", "test", "demo", "build-progs")]


def lib(script: str) -> list[str]:
    """The words that the functions of scripts/lib.sh print."""
    done = subprocess.run(
        ["bash", "-euc", f". scripts/lib.sh; {script}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_what_the_lab_builds_with_is_installed() -> None:
    assert set(BUILD_PACKAGES) <= set(lib("needed_packages")[::2])


def test_missing_is_what_neither_path_nor_headers_show() -> None:
    needs = "echo 'one bash'; echo 'two no-such-program'; echo 'three no/such.h'"
    assert lib(f"needed_packages() {{ {needs}; }}; missing_packages") == ["two", "three"]


def test_python_is_new_enough() -> None:
    (python,) = lib("find_python")
    check = "import sys; assert sys.version_info >= (3, 11)"
    assert subprocess.run([python, "-c", check]).returncode == 0


@pytest.mark.parametrize("script", [*SCRIPTS, ROOT / ".ci/run"], ids=lambda script: script.name)
def test_scripts_can_be_run(script: Path) -> None:
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)
