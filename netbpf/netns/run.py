"""Running a command inside a namespace, as ``ip netns exec`` does: in place of this process."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from netbpf import libc
from netbpf.errors import KernelError, NotFoundError
from netbpf.netns.enter import enter_for_good
from netbpf.netns.handle import NetNS

ETC = Path("/etc")


def exec_in(ns: NetNS, argv: Sequence[str]) -> NoReturn:
    """Replace this process by the command ``argv`` inside ``ns``; signals and status are its own.

    The command gets what ``ip netns exec`` gives: a private mount namespace, a fresh /sys that
    shows the namespace's devices, and the files of /etc/netns/NAME mounted over those of /etc. The
    fresh /sys has an empty /sys/fs/bpf: a bpffs mounted there dies with the command.

    Only a command that cannot be found, or a refused first step, leaves this process as it was;
    after a later failure it stands half inside and should end.

    :raises ValueError: ``argv`` is empty.
    :raises NotFoundError: there is no such command.
    :raises KernelError: EPERM: it needs CAP_SYS_ADMIN. EACCES: the file is not executable.
    """
    if not argv:
        raise ValueError("a command is needed, as in `netbpf netns exec NAME -- ip link`")
    program = _found(argv[0])
    operation = f"exec in namespace {ns}"
    enter_for_good(ns)
    try:
        _private_mounts(str(ns))
    except OSError as error:
        hint = (
            "a private mount namespace needs CAP_SYS_ADMIN" if error.errno == errno.EPERM else None
        )
        raise KernelError(operation, error.errno or 0, hint=hint) from error
    if ns.name is not None:
        _bind_etc(ETC / "netns" / ns.name)
    sys.stdout.flush()
    sys.stderr.flush()
    # Python ignores these two; a command would inherit that and never see a closed pipe.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execv(program, list(argv))
    except OSError as error:
        if error.errno == errno.ENOEXEC:
            # A script that does not say of what: one of the shell's, as execvp(3) takes it.
            os.execv("/bin/sh", ["/bin/sh", program, *argv[1:]])
        hint = None
        if error.errno == errno.ENOENT:
            hint = "it is there, but not what runs it: a script's first line, or a binary's loader"
        raise KernelError(f"run {argv[0]}", error.errno or 0, hint=hint) from error


def _found(command: str) -> str:
    # Imported here: it costs more than the rest of this room together.
    import shutil

    program = shutil.which(command)
    if program is not None:
        return program
    if "/" in command and os.path.exists(command):
        what = "it is a folder" if os.path.isdir(command) else "it is not executable"
        raise KernelError(f"run {command}", errno.EACCES, what)
    hint = None if "/" in command else "it is looked for in PATH, as a shell would"
    raise NotFoundError("command", command, hint=hint)


def _private_mounts(label: str) -> None:
    libc.unshare(libc.CLONE_NEWNS)
    # Slave, not private: mounts made outside later still arrive here, ours never leave.
    libc.mount("", "/", "none", libc.MS_SLAVE | libc.MS_REC)
    flags = 0
    try:
        libc.umount("/sys", libc.MNT_DETACH)
    except OSError:
        # Not a mount, or locked by a user namespace: then it may be read-only and has to stay so.
        if os.statvfs("/sys").f_flag & os.ST_RDONLY:
            flags = libc.MS_RDONLY
    libc.mount(label, "/sys", "sysfs", flags)


def _bind_etc(folder: Path) -> None:
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for entry in entries:
        try:
            libc.mount(os.fspath(entry), os.fspath(ETC / entry.name), "none", libc.MS_BIND)
        except OSError as error:
            # As ip does: the command still runs, with a word about what it does not see.
            print(f"netbpf: {entry} is not mounted over /etc: {error.strerror}", file=sys.stderr)
