"""Types by name of their source: the running kernel, a module, loaded BTF, a file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from netbpf.btf.blob import Btf
from netbpf.btf.errors import BtfFormatError
from netbpf.elf.types import read_types
from netbpf.errors import NotFoundError, NotSupportedError, ObjectFileError

KERNEL = Path("/sys/kernel/btf/vmlinux")
_LOADED = re.compile(r"id:(\d+)", re.ASCII)
_MODULE = re.compile(r"\w[\w-]*", re.ASCII)


def kernel() -> Btf:
    """The running kernel's types.

    Since Linux 5.4 (kernel/bpf/sysfs_btf.c), with CONFIG_DEBUG_INFO_BTF.

    :raises NotSupportedError: the kernel has none.
    """
    try:
        return read_types(KERNEL)
    except NotFoundError as error:
        raise NotSupportedError(
            "types of the kernel", since="5.4", config="CONFIG_DEBUG_INFO_BTF"
        ) from error


def read(source: str | None = None, base: str | None = None) -> Btf:
    """The types of ``source``: a file, a kernel module's name, ``id:N``, or by default the kernel.

    :param base: a source for what the types of a split BTF go on from. A module's go on from the
        kernel's without it.
    :raises NotFoundError: there is none. :raises NotSupportedError: the kernel has no types.
    :raises ObjectFileError: a file without types, or with malformed ones.
    :raises BpfError: loaded BTF may not be read.
    """
    if source is None:
        return kernel()
    loaded = _LOADED.fullmatch(source)
    if loaded:
        # Imported only here: a file needs no kernel.
        from netbpf.bpf import btf_object

        with told_of(source):
            return btf_object.read(int(loaded[1]), kernel)
    below = None if base is None else read(base)
    path = Path(source)
    if not os.path.lexists(path) and _MODULE.fullmatch(source):
        module = KERNEL.parent / source.replace("-", "_")
        if not module.exists():
            raise NotFoundError(
                "file or module with types called", source, hint="is the module loaded?"
            )
        path = module
    if below is None and path.parent == KERNEL.parent and path != KERNEL:
        below = kernel()
    return read_types(path, base=below)


@contextmanager
def told_of(source: str | None) -> Iterator[None]:
    """Within it malformed types are an ObjectFileError that names ``source``.

    Types are read when they are asked for, so that a mistake may show late.
    """
    try:
        yield
    except BtfFormatError as error:
        path = str(KERNEL) if source is None else source
        raise ObjectFileError(path, str(error), section=".BTF") from error
