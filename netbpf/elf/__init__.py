"""Object files, read without a kernel: pure file to ObjectSpec. The only importer of pyelftools."""

from __future__ import annotations

from netbpf.elf.object import open_object
from netbpf.elf.spec import (
    Arena,
    Extern,
    Function,
    Global,
    MapSpec,
    ObjectSpec,
    ProgramSpec,
    Relocation,
    StructOps,
)

__all__ = [
    "Arena",
    "Extern",
    "Function",
    "Global",
    "MapSpec",
    "ObjectSpec",
    "ProgramSpec",
    "Relocation",
    "StructOps",
    "open_object",
]
