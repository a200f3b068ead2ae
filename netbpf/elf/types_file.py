"""The BTF of a file that holds a kernel's types: raw, or the .BTF section of any ELF file."""

from __future__ import annotations

import errno
import os
import stat
import struct

from netbpf.errors import NotFoundError, ObjectFileError

# A vmlinux with all its debug information has hundreds of megabytes, its BTF some of them.
_MAX_BTF = 256 << 20
_NAME = b".BTF\0"


def read(path: str | os.PathLike[str]) -> tuple[bytes, int]:
    """The BTF in the file, and the bytes of a pointer there (0 where only the types can tell).

    :raises NotFoundError: there is no such file.
    :raises ObjectFileError: it cannot be read, or holds no BTF.
    """
    name = os.fspath(path)
    try:
        # Without O_NONBLOCK opening a FIFO would wait for a writer for ever.
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError("file of types", name) from error
    except OSError as error:
        raise ObjectFileError(name, os.strerror(error.errno or errno.EIO)) from error
    except ValueError as error:
        raise ObjectFileError(repr(name), "is no possible file name") from error
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise ObjectFileError(name, "is not a regular file")
        if os.pread(fd, 4, 0) == b"\x7fELF":
            return _section(name, fd)
        return _bytes(name, fd, 0, found.st_size), 0
    except OSError as error:
        raise ObjectFileError(name, os.strerror(error.errno or errno.EIO)) from error
    finally:
        os.close(fd)


def _section(path: str, fd: int) -> tuple[bytes, int]:
    # Only the headers are read, and the one section.
    ident = os.pread(fd, 64, 0)
    if len(ident) < 64 or ident[4] not in (1, 2) or ident[5] not in (1, 2):
        raise ObjectFileError(path, "truncated: the ELF header is not complete")
    wide = ident[4] == 2
    prefix = "<" if ident[5] == 1 else ">"
    (start,) = struct.unpack_from(prefix + ("Q" if wide else "I"), ident, 40 if wide else 32)
    size, count, names = struct.unpack_from(prefix + "HHH", ident, 58 if wide else 46)
    header = struct.Struct(prefix + ("IIQQQQIIQQ" if wide else "10I"))
    if size != header.size or names >= count:
        raise ObjectFileError(path, "no sections in the file")
    table = os.pread(fd, size * count, start) if start < 1 << 62 else b""
    if len(table) < size * count:
        raise ObjectFileError(path, "truncated: the section headers lie outside of the file")
    headers = list(header.iter_unpack(table))
    strings = _bytes(path, fd, headers[names][4], headers[names][5])
    for section in headers:
        if strings.startswith(_NAME, section[0]):
            return _bytes(path, fd, section[4], section[5]), 8 if wide else 4
    raise ObjectFileError(path, "no section .BTF in it")


def _bytes(path: str, fd: int, offset: int, size: int) -> bytes:
    if size > _MAX_BTF or offset >= 1 << 62:
        raise ObjectFileError(path, f"{size} bytes at {offset} are no BTF")
    data = bytearray()
    # In pieces, because /sys/kernel/btf gives a page at a time.
    while piece := os.pread(fd, size - len(data), offset + len(data)):
        data += piece
    if len(data) < size:
        raise ObjectFileError(path, f"truncated: {size} bytes at {offset} are not all there")
    return bytes(data)
