"""Values of the running kernel's configuration, as the ``.kconfig`` variables of an object."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Collection, Iterator, Sequence

from netbpf.elf.externs import KCONFIG
from netbpf.elf.spec import Extern, ObjectSpec
from netbpf.errors import ObjectFileError

# In the order that libbpf looks into them.
BOOT = "/boot/config-{0}"
PROC = "/proc/config.gz"
KALLSYMS = "/proc/kallsyms"
# bpf_helpers.h: enum libbpf_tristate.
_TRISTATE = {"n": 0, "y": 1, "m": 2}
# Documentation/arch: how the kernel calls the functions of system calls.
_WRAPPERS = {
    "x86_64": "__x64",
    "aarch64": "__arm64",
    "s390x": "__s390x",
    "riscv64": "__riscv",
}
_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")
_PATCH_MAX = 255


def fill(spec: ObjectSpec, contents: bytearray, given: Collection[str]) -> list[Extern]:
    """Put the values into ``contents`` of ``.kconfig``; those that this kernel has not are told.

    :param given: the names of those that were set by hand: they are left alone.
    :raises ObjectFileError: a value does not fit the variable's type, or nobody knows the name.
    """
    open_ = {e.name: e for e in spec.externs if e.section == KCONFIG and e.name not in given}
    for name, extern in list(open_.items()):
        if name.startswith("CONFIG_"):
            continue
        value = _virtual(name)
        if value is not None:
            _number(spec, contents, extern, value)
        elif not name.startswith("LINUX_") or not extern.weak:
            raise _refused(
                spec,
                extern,
                "is no value of the kernel's configuration that anybody knows",
                hint="their names start with CONFIG_; besides there are LINUX_KERNEL_VERSION, "
                "LINUX_HAS_BPF_COOKIE and LINUX_HAS_SYSCALL_WRAPPER",
            )
        del open_[name]
    if open_:
        for name, text in settings():
            if name in open_ and text:
                _set(spec, contents, open_.pop(name), text)
                if not open_:
                    break
    return list(open_.values())


def settings(places: Sequence[str] = (BOOT, PROC)) -> Iterator[tuple[str, str]]:
    """The settings of the running kernel, from the first of ``places`` that can be read.

    None where there is no such file: CONFIG_IKCONFIG_PROC brings /proc/config.gz.
    """
    for place in places:
        try:
            with open(place.format(os.uname().release), "rb") as file:
                data = file.read()
        except OSError:
            continue
        if data[:2] == b"\x1f\x8b":
            # Imported only here: few objects ask for it.
            import zlib

            data = zlib.decompress(data, zlib.MAX_WBITS | 16)
        for line in data.decode(errors="surrogateescape").splitlines():
            name, separator, text = line.partition("=")
            if separator and name.startswith("CONFIG_"):
                yield name, text
        return


def version() -> int:
    """The kernel's version as LINUX_VERSION_CODE has it.

    Debian and Ubuntu tell the upstream release elsewhere than in ``uname -r``.
    """
    found = None
    try:
        with open("/proc/version_signature") as file:
            found = _VERSION.match(file.read().rpartition(" ")[2])
    except OSError:
        debian = os.uname().version.partition("Debian ")[2]
        found = _VERSION.match(debian)
    found = found or _VERSION.match(os.uname().release)
    if found is None:
        return 0
    major, minor, patch = (int(part or 0) for part in found.groups())
    return major << 16 | minor << 8 | min(patch, _PATCH_MAX)


def _virtual(name: str) -> int | None:
    if name == "LINUX_KERNEL_VERSION":
        return version()
    if name == "LINUX_HAS_BPF_COOKIE":
        from netbpf import features

        return int(features.probe("bpf_cookie") is True)
    if name == "LINUX_HAS_SYSCALL_WRAPPER":
        return int(_has_syscall_wrapper())
    return None


def _has_syscall_wrapper() -> bool:
    prefix = _WRAPPERS.get(os.uname().machine)
    if prefix is None:
        return False
    try:
        with open(KALLSYMS, "rb") as file:
            return f" {prefix}_sys_bpf\n".encode() in file.read()
    except OSError:
        return False


def _set(spec: ObjectSpec, contents: bytearray, extern: Extern, text: str) -> None:
    if text[0] in _TRISTATE:
        _letter(spec, contents, extern, text[0])
    elif text[0] == '"':
        _text(spec, contents, extern, text)
    else:
        try:
            number = int(text, 16 if text.lower().startswith("0x") else 10)
        except ValueError:
            raise _refused(spec, extern, f"is {text} here, which is no number") from None
        # As C reads it: a negative number is a large one.
        _number(spec, contents, extern, number & (1 << 64) - 1)


def _letter(spec: ObjectSpec, contents: bytearray, extern: Extern, letter: str) -> None:
    if extern.kconfig == "bool":
        if letter == "m":
            raise _refused(
                spec, extern, "is m here, which a bool cannot be", hint="it is a tristate"
            )
        _store(contents, extern, int(letter == "y"))
    elif extern.kconfig == "tristate":
        _store(contents, extern, _TRISTATE[letter])
    elif extern.kconfig == "char":
        _store(contents, extern, ord(letter))
    else:
        raise _refused(spec, extern, f"is {letter} here: it has to be a bool, a tristate or a char")


def _text(spec: ObjectSpec, contents: bytearray, extern: Extern, text: str) -> None:
    if extern.kconfig != "string":
        raise _refused(spec, extern, f"is {text} here: it has to be an array of char")
    if len(text) < 2 or text[-1] != '"':
        raise _refused(spec, extern, f"is {text} here, which does not end with a quotation mark")
    # What is too long is cut off, and a NUL always follows.
    data = text[1:-1].encode(errors="surrogateescape")[: extern.size - 1]
    contents[extern.offset : extern.offset + extern.size] = data.ljust(extern.size, b"\0")


def _number(spec: ObjectSpec, contents: bytearray, extern: Extern, value: int) -> None:
    if extern.kconfig not in ("integer", "char", "bool"):
        raise _refused(
            spec, extern, f"is {_signed(value)} here: it has to be an integer, a char or a bool"
        )
    bits = 8 * extern.size
    fits = value >> bits == 0
    if extern.kconfig == "bool":
        fits = value <= 1
    elif extern.signed and bits < 64:
        fits = (value + (1 << bits - 1) & (1 << 64) - 1) < 1 << bits
    if not fits:
        room = f"{extern.size} byte{'s' if extern.size > 1 else ''}"
        kind = "a bool" if extern.kconfig == "bool" else f"an integer of {room}"
        raise _refused(spec, extern, f"is {_signed(value)} here, which {kind} cannot hold")
    _store(contents, extern, value)


def _store(contents: bytearray, extern: Extern, value: int) -> None:
    data = struct.pack("=Q", value & (1 << 8 * extern.size) - 1)
    little = struct.pack("=H", 1)[0]
    data = data[: extern.size] if little else data[8 - extern.size :]
    contents[extern.offset : extern.offset + extern.size] = data


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _refused(
    spec: ObjectSpec, extern: Extern, reason: str, hint: str | None = None
) -> ObjectFileError:
    return ObjectFileError(spec.path, f"{extern.name} {reason}", section=KCONFIG, hint=hint)
