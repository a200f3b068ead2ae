"""Kernel images as files: the release they hold, and the uncompressed kernel inside a bzImage."""

from __future__ import annotations

import ctypes
import gzip
import lzma
import re
import struct

_ELF = b"\x7fELF"


def release_of(image: bytes) -> str | None:
    """The release string of a bzImage or an uncompressed kernel, or None."""
    if _is_bzimage(image):
        # Documentation/arch/x86/boot.rst: kernel_version points to the text, less 0x200.
        (pointer,) = struct.unpack_from("<H", image, 0x20E)
        text = image[pointer + 0x200 :].split(b"\0", 1)[0]
        return text.split(b" ", 1)[0].decode(errors="replace") if pointer else None
    found = re.search(rb"Linux version (\S+) ", image)
    return found[1].decode(errors="replace") if found else None


def extract_vmlinux(image: bytes) -> bytes | None:
    """The uncompressed kernel inside a bzImage, or None when it cannot be had.

    Its place is in the boot header (payload_offset and payload_length since boot protocol 2.08,
    Documentation/arch/x86/boot.rst).
    """
    if image.startswith(_ELF):
        return image
    if not _is_bzimage(image):
        return None
    (version,) = struct.unpack_from("<H", image, 0x206)
    if version < 0x0208:
        return None
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start : start + length]
    if len(payload) < 8:
        return None
    vmlinux = _decompress(payload)
    return vmlinux if vmlinux is not None and vmlinux.startswith(_ELF) else None


def _is_bzimage(image: bytes) -> bool:
    return len(image) > 0x260 and image[0x202:0x206] == b"HdrS"


def _decompress(payload: bytes) -> bytes | None:
    # The build appends the unpacked size to every format but gzip, which ends with it itself
    # (scripts/Makefile.lib, size_append).
    (size,) = struct.unpack_from("<I", payload, len(payload) - 4)
    try:
        if payload.startswith(b"\x1f\x8b"):
            return gzip.decompress(payload)
        if payload.startswith(b"\xfd7zXZ\0"):
            return lzma.LZMADecompressor().decompress(payload[:-4])
        if payload.startswith(b"\x28\xb5\x2f\xfd"):
            return _unzstd(payload[:-4], size)
    except (OSError, EOFError, lzma.LZMAError):
        return None
    return None


def _unzstd(payload: bytes, size: int) -> bytes | None:
    # dpkg needs this library, so it is on every Debian; Python has zstd only since 3.14.
    try:
        zstd = ctypes.CDLL("libzstd.so.1")
    except OSError:
        return None
    zstd.ZSTD_decompress.restype = ctypes.c_size_t
    out = ctypes.create_string_buffer(size)
    got = zstd.ZSTD_decompress(out, ctypes.c_size_t(size), payload, ctypes.c_size_t(len(payload)))
    return out.raw if got == size else None
