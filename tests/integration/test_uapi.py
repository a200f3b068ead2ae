"""The generated classes lie in memory as the running kernel's own structs do."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import gen_uapi

from netbpf.bpf import uapi
from netbpf.btf import Btf
from netbpf.btf import types as t

KERNEL = Path("/sys/kernel/btf/vmlinux")


@pytest.fixture(scope="module")
def btf() -> Btf:
    return Btf.parse(KERNEL.read_bytes())


def newer_than_ours() -> bool:
    """Whether the kernel may have what uapi.py has not: it is of a later release than its source.

    The lab takes the newest one there is. What uapi.py does have has to be the same all the same.
    """
    source = re.search(r"the BTF of Linux (\d+)\.(\d+)", uapi.__doc__ or "")
    here = re.match(r"(\d+)\.(\d+)", os.uname().release)
    assert source is not None and here is not None
    return tuple(map(int, here.groups())) > tuple(map(int, source.groups()))


def leaves(btf: Btf, found: t.Struct | t.Union, prefix: str = "", base: int = 0) -> dict[str, int]:
    """Bit offset of each scalar by its dotted name; what has no name adds nothing to the name."""
    result: dict[str, int] = {}
    for member in found.members:
        _, inner = btf.resolve(member.type_id)
        name = prefix + member.name
        if isinstance(inner, t.Struct | t.Union):
            below = leaves(
                btf, inner, f"{name}." if member.name else prefix, base + member.bit_offset
            )
            result.update(below)
        else:
            result[name] = base + member.bit_offset
    return result


def fields(
    kind: type[ctypes.Structure] | type[ctypes.Union], prefix: str = "", base: int = 0
) -> dict[str, int]:
    result: dict[str, int] = {}
    for name, ctype, *bits in kind._fields_:
        field = getattr(kind, name)
        offset = base + 8 * field.offset
        if bits:
            offset += field.size & 0xFFFF
        if isinstance(ctype, type) and issubclass(ctype, ctypes.Structure | ctypes.Union):
            hidden = name in getattr(kind, "_anonymous_", ())
            result.update(fields(ctype, prefix if hidden else f"{prefix}{name}.", offset))
        else:
            result[prefix + name] = offset
    return result


def test_every_field_lies_where_the_kernel_has_it(btf: Btf) -> None:
    compared = 0
    for name, origin, found in gen_uapi.Generator(btf).classes():
        kind = getattr(uapi, name)
        ours = fields(kind)
        for field, offset in leaves(btf, found).items():
            if field not in ours and newer_than_ours():
                continue
            assert ours[field] == offset, f"{origin}: {name}.{field}"
            compared += 1
        # Of a newer kernel than this one a struct may be longer, never shorter.
        assert ctypes.sizeof(kind) >= found.size or newer_than_ours(), name
    assert compared > 200


def test_every_constant_of_the_kernel_is_there(btf: Btf) -> None:
    generator = gen_uapi.Generator(btf)
    list(generator.enums())
    list(generator.flags())
    assert len(generator.constants) > 250
    for name, value in generator.constants.items():
        if not hasattr(uapi, name) and newer_than_ours():
            continue
        assert getattr(uapi, name) == value, name
