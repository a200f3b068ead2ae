"""Object files, read without a kernel: pure file to ObjectSpec. The only importer of pyelftools."""

from __future__ import annotations

from netbpf.elf.object import open_object
from netbpf.elf.spec import Extern, Function, MapSpec, ObjectSpec, ProgramSpec, Relocation

__all__ = [
    "Extern",
    "Function",
    "MapSpec",
    "ObjectSpec",
    "ProgramSpec",
    "Relocation",
    "open_object",
]
