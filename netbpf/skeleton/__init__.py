"""Skeletons: typed modules that hold an object file, and what those modules lean on.

``netbpf object skeleton counter.o -o counter.py`` makes one, and so do ``of_file`` and ``write``.
The other names here are those that a made module uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from netbpf.skeleton.classes import Struct, Union, Variant, layout, struct, union, variant
from netbpf.skeleton.codecs import (
    Array,
    Bits,
    Boolean,
    Chars,
    Enum,
    Enumerated,
    Integer,
    Raw,
    boolean,
    f32,
    f64,
    s8,
    s16,
    s32,
    s64,
    u8,
    u16,
    u32,
    u64,
)
from netbpf.skeleton.maps import (
    Map,
    MapOf,
    Maps,
    MissingKeyError,
    PlainMap,
    map_of,
    per_cpu,
    plain_map,
)
from netbpf.skeleton.places import Place
from netbpf.skeleton.runtime import (
    FORMAT,
    Constant,
    Prog,
    Progs,
    Section,
    Skeleton,
    Variable,
    constant,
    prog,
    variable,
)

if TYPE_CHECKING:
    from netbpf.skeleton.file import of_file, write


def __getattr__(name: str) -> Any:
    # What makes modules is not wanted by those that are made.
    if name in ("of_file", "write"):
        from netbpf.skeleton import file

        return getattr(file, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "FORMAT",
    "Array",
    "Bits",
    "Boolean",
    "Chars",
    "Constant",
    "Enum",
    "Enumerated",
    "Integer",
    "Map",
    "MapOf",
    "Maps",
    "MissingKeyError",
    "Place",
    "PlainMap",
    "Prog",
    "Progs",
    "Raw",
    "Section",
    "Skeleton",
    "Struct",
    "Union",
    "Variable",
    "Variant",
    "boolean",
    "constant",
    "f32",
    "f64",
    "layout",
    "map_of",
    "of_file",
    "per_cpu",
    "plain_map",
    "prog",
    "s8",
    "s16",
    "s32",
    "s64",
    "struct",
    "u8",
    "u16",
    "u32",
    "u64",
    "union",
    "variable",
    "variant",
    "write",
]
