"""`pip install .` into an empty environment gives a working netbpf outside the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.netns_fixtures import packets
from tests.netns_fixtures.devices import End
from tests.netns_fixtures.scripts import ROOT

pytestmark = pytest.mark.skipif("NETBPF_LAB" in os.environ, reason="the guest has no network")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an environment into which netbpf was installed, from a copy of the checkout."""
    folder = tmp_path_factory.mktemp("install")
    # A copy, as a build writes into its source and takes up what an earlier one left there.
    source = folder / "source"
    unwanted = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=unwanted)
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    pip = folder / "venv/bin/pip"
    run(pip, "--disable-pip-version-check", "install", "-qq", source, cwd=folder)
    shutil.rmtree(source)
    return folder / "venv"


def run(*argv: str | Path, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command away from the checkout and without what points to it."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(word) for word in argv],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def test_it_speaks(installed: Path) -> None:
    netbpf = installed / "bin/netbpf"
    assert run(netbpf, "--version", cwd=installed).stdout.startswith("netbpf ")
    assert "netkit" in run(netbpf, "--help", cwd=installed).stdout
    where = run(
        installed / "bin/python", "-c", "import netbpf; print(netbpf.__file__)", cwd=installed
    )
    assert where.stdout.startswith(f"{installed}/lib/")


def test_only_netbpf_is_installed_and_it_is_typed(installed: Path) -> None:
    (packages,) = installed.glob("lib/python3*/site-packages")
    assert not [name for name in ("lab", "tests", "bench", "tools") if (packages / name).exists()]
    assert (packages / "netbpf/py.typed").exists()
    (metadata,) = packages.glob("netbpf-*.dist-info/METADATA")
    needs = [line for line in metadata.read_text().splitlines() if line.startswith("Requires-Dist")]
    names = {
        line.split()[1].split(">")[0].split("<")[0] for line in needs if "extra ==" not in line
    }
    assert names == {"pyroute2", "pyelftools", "dpkt", "typer", "rich"}


def test_the_built_in_programs_are_there(installed: Path) -> None:
    lo = ("tcx", "attach", "lo", "ingress", "builtin:nonesuch", "--dry-run", "--json")
    done = run(installed / "bin/netbpf", *lo, cwd=installed, check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["hint"] == "there are: count, drop, next, pass"


@pytest.mark.needs("tcx")
def test_one_is_loaded_and_works(installed: Path, veth: tuple[End, End]) -> None:
    a, b = veth
    assert packets.ping(a.ns, b.address, timeout=5) == 1
    attach = ("tcx", "attach", b.name, "ingress", "builtin:drop", "--no-link")
    run(installed / "bin/netbpf", "--netns", str(b.ns.name), *attach, cwd=installed)
    assert packets.ping(a.ns, b.address) == 0
