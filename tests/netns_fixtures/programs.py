"""Programs for a test: two instructions, or compiled from tests/bpf."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

from netbpf.bpf import prog, uapi
from netbpf.bpf.prog import Program

NEXT, PASS, DROP, REDIRECT = -1, 0, 2, 7
"""What a tcx or netkit program may return (include/uapi/linux/bpf.h)."""

SOURCES = Path(__file__).resolve().parents[1] / "bpf"


def returning(code: int) -> bytes:
    """The two instructions ``r0 = code; exit``."""
    return struct.pack("=BBhi", 0xB7, 0, 0, code) + struct.pack("=BBhi", 0x95, 0, 0, 0)


def load_returning(code: int, name: str = "two_insns") -> Program:
    """A loaded tc program that returns ``code``; the caller closes it."""
    return prog.load(uapi.BPF_PROG_TYPE_SCHED_CLS, returning(code), name=name)


def compile_source(source: Path, folder: Path) -> Path:
    """Compile a C source of tests/bpf with clang into ``folder``; once for each folder."""
    clang = shutil.which("clang")
    assert clang is not None, "the tests need clang"
    output = folder / source.with_suffix(".o").name
    if output.exists():
        return output
    # Debian keeps asm/ in the multiarch folder, which a bpf target does not look into.
    includes = [f"-I{path}" for path in sorted(Path("/usr/include").glob("*-linux-gnu"))]
    flags = ["-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-mcpu=v3", *includes]
    subprocess.run([clang, *flags, "-c", source, "-o", output], check=True)
    return output
