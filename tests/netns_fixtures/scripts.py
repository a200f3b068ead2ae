"""Scripts run as a user runs them: in a session of their own, and what they leave behind."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from netbpf.bpf.link import Link
from netbpf.netns import list_names

ROOT = Path(__file__).resolve().parents[2]
BIN = ROOT / ".venv/bin"


def run_script(
    argv: Sequence[str | Path], *, path: Sequence[Path] = (), env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a script in a session of its own and check that none of its processes outlive it.

    :param path: folders to be looked into before PATH.
    """
    environment = {**os.environ, **(env or {})}
    environment["PATH"] = ":".join([*map(str, path), str(BIN), environment["PATH"]])
    process = subprocess.Popen(
        [str(word) for word in argv],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        out, err = process.communicate(timeout=300)
    assert not _session(process.pid), f"{argv} left processes: {_session(process.pid)}"
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def stand_in(folder: Path, name: str, script: str) -> Path:
    """A folder for ``run_script`` in which the program ``name`` is a shell script instead."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    return folder


def state() -> dict[str, object]:
    """What a script could leave on this machine: namespaces, links, pins, mounts of a bpffs."""
    bpffs = Path("/sys/fs/bpf")
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return {
        "namespaces": set(list_names()),
        "links": set(Link.ids()),
        "pins": {str(path) for path in bpffs.glob("**/*")},
        "mounts": sorted(line.split()[4] for line in mounts if " - bpf " in line),
    }


def _session(number: int) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            # It ended while we looked.
            continue
        # man 5 proc: state, ppid, pgrp, session. A zombie has ended.
        if fields[3] == str(number) and fields[0] != "Z":
            found.append((folder / "cmdline").read_text().replace("\0", " "))
    return found
