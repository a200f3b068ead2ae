"""An executable or a library, opened for a look into it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from netbpf.errors import NotFoundError, ObjectFileError

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[ELFFile]:
    """The ELF file at ``path``; what stumbles over its bytes within the block finds it damaged.

    :raises NotFoundError: there is no such file.
    :raises ObjectFileError: it cannot be read, is no ELF file, or a damaged one.
    """
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    name = os.fspath(path)
    try:
        # Without O_NONBLOCK opening a FIFO would wait for a writer for ever.
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ObjectFileError(name, "is not a regular file")
            yield ELFFile(file)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError("file", name) from error
    except OSError as error:
        raise ObjectFileError(name, f"cannot be read: {error.strerror}") from error
    except (ELFError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # Some of these pyelftools leaves to Python where bytes make no sense.
        raise ObjectFileError(name, "not an ELF file, or a damaged one") from error
