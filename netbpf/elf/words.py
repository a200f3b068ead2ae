"""Words for what a spec holds as numbers: types as C writes them, flags, values of variables."""

from __future__ import annotations

from typing import Any

from netbpf.bpf import macros, uapi
from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.btf.core_spec import KIND_NAMES, describe
from netbpf.btf.declare import Declarator
from netbpf.btf.errors import BtfFormatError
from netbpf.btf.ext import CoreRelo
from netbpf.btf.values import Values

_MAP_FLAGS = (
    "NO_PREALLOC",
    "NO_COMMON_LRU",
    "NUMA_NODE",
    "RDONLY",
    "WRONLY",
    "STACK_BUILD_ID",
    "ZERO_SEED",
    "RDONLY_PROG",
    "WRONLY_PROG",
    "CLONE",
    "MMAPABLE",
    "PRESERVE_ELEMS",
    "INNER_MAP",
    "LINK",
    "PATH_FD",
    "VTYPE_BTF_OBJ_FD",
    "TOKEN_FD",
    "SEGV_ON_FAULT",
    "NO_USER_CONV",
    "RB_OVERWRITE",
)
_PROG_FLAGS = {macros.BPF_F_SLEEPABLE: "sleepable", macros.BPF_F_XDP_HAS_FRAGS: "frags"}
# Larger variables are tables; their values are for another tool.
_MAX_LEAVES = 256
_MAX_DEPTH = 32


class Words:
    """Words for the types of one BTF; without one there are none."""

    def __init__(self, btf: Btf | None) -> None:
        self._btf = btf
        self._declarator = Declarator(btf) if btf is not None else None
        self._leaves: dict[int, int] = {}

    def type(self, type_id: int) -> str | None:
        """A type as C writes it; None where there is none (id 0), or it makes no sense."""
        if not type_id or self._declarator is None or self._btf is None:
            return None
        try:
            found = self._btf.type(type_id)
            if isinstance(found, t.DataSec):
                return None
            if isinstance(found, t.Func | t.Var):
                type_id = found.type_id
            return self._declarator.declare(type_id)
        except BtfFormatError:
            return None

    def core(self, relo: CoreRelo) -> str:
        """A CO-RE relocation: ``byte_off struct sk_buff.len``."""
        assert self._btf is not None
        try:
            return f"{KIND_NAMES[relo.kind]} {describe(self._btf, relo)}"
        except BtfFormatError:
            return f"{KIND_NAMES[relo.kind]} type {relo.type_id}"

    def value(self, contents: bytes, offset: int, type_id: int) -> Any:
        """The value of a variable; None where it is too large to be read, or makes no sense."""
        if self._btf is None:
            return None
        try:
            if self._count(type_id, 0) > _MAX_LEAVES:
                return None
            return _plain(Values(self._btf).read(contents, offset, type_id))
        except (BtfFormatError, ValueError, RecursionError):
            return None

    def _count(self, type_id: int, depth: int) -> int:
        # How many numbers a value is made of, at most; the types of a file may be a maze.
        assert self._btf is not None
        type_id, found = self._btf.resolve(type_id)
        if type_id in self._leaves:
            return self._leaves[type_id]
        if depth > _MAX_DEPTH:
            return _MAX_LEAVES + 1
        count = 1
        if isinstance(found, t.Array):
            _, element = self._btf.resolve(found.type_id)
            if not (isinstance(element, t.Int) and element.size == 1):
                count = found.length * self._count(found.type_id, depth + 1)
            elif element.name != "char":
                count = found.length
            if found.length > 1 << 16:
                count = _MAX_LEAVES + 1
        elif isinstance(found, t.Struct | t.Union):
            count = 1 + sum(self._count(m.type_id, depth + 1) for m in found.members)
        self._leaves[type_id] = min(count, _MAX_LEAVES + 1)
        return self._leaves[type_id]


def _plain(value: Any) -> Any:
    # JSON has no bytes and no infinity.
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))):
        return str(value)
    return value


def map_flags(flags: int) -> list[str]:
    """The flags of a map in the kernel's words; what has none as a number."""
    found = []
    for name in _MAP_FLAGS:
        bit = getattr(uapi, f"BPF_F_{name}", 0)
        if bit and flags & bit:
            found.append(name.lower())
            flags &= ~bit
    return [*found, hex(flags)] if flags else found


def prog_flags(flags: int) -> list[str]:
    """The flags of a program in a word each."""
    return [word for bit, word in _PROG_FLAGS.items() if flags & bit]


def attach_type(section: str, number: int) -> str | None:
    """The attach type in the kernel's word; None where a section's name says none."""
    # Zero is one of them, and stands for none as well.
    if not number and section.removeprefix("?") != "cgroup_skb/ingress":
        return None
    return uapi.ATTACH_TYPE_NAMES.get(number, str(number))
