"""Modules as files: made from an object file, and written only over what netbpf has made."""

from __future__ import annotations

import os
import stat

from netbpf.bpf.fd import FD
from netbpf.elf import file as elf_file
from netbpf.elf.object import open_object
from netbpf.errors import ConflictError, NetbpfError
from netbpf.interrupts import held
from netbpf.skeleton.generate import FIRST_WORDS, module


def of_file(path: str | os.PathLike[str]) -> str:
    """The text of a typed module for the object file at ``path``; no kernel is asked.

    The same for the same object under the same name, on every machine.

    :raises NotFoundError: there is no such file.
    :raises ObjectFileError: it is no BPF object, or a malformed one.
    """
    name = os.fspath(path)
    data = elf_file.read(name)
    return module(open_object(name, data), data)


def write(text: str, path: str | os.PathLike[str], *, force: bool = False) -> bool:
    """Put a module at ``path``, whole or not at all; False when it was there already, unchanged.

    :param force: also over a file that is no skeleton.
    :raises ConflictError: such a file is there. :raises NetbpfError: it cannot be written.
    """
    name = os.fspath(path)
    target = os.path.realpath(name)
    data = text.encode()
    try:
        there = _there(name, target)
        if there == data:
            return False
        if there is not None and not force and not there.startswith(FIRST_WORDS.encode()):
            raise ConflictError(
                f"{name} is there, and no skeleton that netbpf has made",
                hint="--force writes over it",
            )
        _replace(target, data, 0o666 & ~_umask() if there is None else os.stat(target).st_mode)
    except OSError as error:
        raise NetbpfError(
            f"{name} cannot be written: {error.strerror or error}", code="output"
        ) from error
    return True


def _there(name: str, target: str) -> bytes | None:
    try:
        # Without O_NONBLOCK opening a FIFO would wait for a writer for ever.
        fd = os.open(target, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    with FD(fd):
        # open() itself refuses a folder, and leaves its descriptor open then.
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise NetbpfError(
                f"{name} is something that is not a file", code="output", hint="- is stdout"
            )
        with open(fd, "rb", closefd=False) as file:
            return file.read()


def _replace(target: str, data: bytes, mode: int) -> None:
    part = os.path.join(os.path.dirname(target), f".{os.path.basename(target)}.{os.getpid()}.part")
    with held():
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb") as file:
                file.write(data)
                os.fchmod(fd, stat.S_IMODE(mode))
            os.replace(part, target)
        except BaseException:
            os.unlink(part)
            raise


def _umask() -> int:
    # The only way to learn it without changing it for other threads.
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o022
