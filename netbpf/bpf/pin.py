"""Pins: names on a bpffs, which keep an object alive."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Collection, Iterator

from netbpf.bpf import syscall, uapi
from netbpf.bpf.bpffs import FOLDER, MOUNT, BpfFs, is_bpffs, mounts
from netbpf.bpf.fd import FD, kind_of
from netbpf.errors import BpfError

_NAME_MAX = 255

# struct bpf_link_info starts both with the ifindex (include/uapi/linux/bpf.h).
_ON_DEVICE = (uapi.BPF_LINK_TYPE_TCX, uapi.BPF_LINK_TYPE_NETKIT)


def create(fd: int, path: str, kind: str) -> None:
    """Pin what ``fd`` refers to at ``path``, whose folder exists.

    :raises BpfError: refused; the reason says which of the kernel's rules applied.
    """
    try:
        syscall.obj_pin(fd, path)
    except OSError as error:
        raise _refused(f"pin {kind} at {path}", error.errno or errno.EIO, path) from error


def check(path: str) -> str:
    """``path`` made absolute, if a pin could be made there now.

    Folders may be missing: ``make_folder`` makes them. Asked before something is attached that
    would have to be detached again.

    :raises BpfError: a pin there would be refused.
    """
    path = os.path.abspath(path)
    operation = f"pin at {path}"
    existing = os.path.dirname(path)
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing)
    if not os.path.isdir(existing):
        raise BpfError(operation, errno.ENOTDIR, f"{existing} is not a folder", code="invalid")
    if os.path.lexists(path):
        raise _refused(operation, errno.EEXIST, path)
    if not is_bpffs(existing) or "." in path[len(existing) :]:
        raise _refused(operation, errno.EPERM, path)
    if len(os.fsencode(os.path.basename(path))) > _NAME_MAX:
        raise _refused(operation, errno.ENAMETOOLONG, path)
    check_writable(existing)
    return path


def check_writable(folder: str) -> None:
    """Asked before something is attached that would have to be detached again.

    :raises BpfError: the bpffs is mounted read-only.
    """
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        raise BpfError(f"pin in {folder}", errno.EROFS, "this bpffs is mounted read-only")


def _refused(operation: str, number: int, path: str) -> BpfError:
    """The condition of kernel/bpf/inode.c (bpf_obj_do_pin, bpf_lookup) that held."""
    folder = os.path.dirname(path)
    reason = hint = code = None
    if number == errno.EEXIST:
        reason, hint = "something is there already", "choose another path or remove that pin"
    elif number == errno.ENOENT:
        reason, hint = f"there is no folder {folder}", f"mkdir -p {folder}"
    elif number == errno.EPERM and os.path.isdir(folder) and not is_bpffs(folder):
        reason, hint, code = f"{folder} is not on a bpffs", f"pin below {MOUNT}", "not_bpffs"
    elif number == errno.EPERM and "." in os.path.basename(path):
        reason, code = "a name on a bpffs cannot contain a dot", "invalid_name"
    elif number == errno.EPERM:
        reason, code = f"no part of {folder} is on a bpffs", "not_bpffs"
        hint = f"pin below {MOUNT}"
    return BpfError(operation, number, reason, hint=hint, code=code)


def make_folder(folder: str) -> list[str]:
    """Make ``folder`` and what is missing above it; the folders made, outermost first."""
    made = []
    missing = []
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for path in reversed(missing):
        try:
            os.mkdir(path, 0o700)
            made.append(path)
        except FileExistsError:
            pass
        except OSError as error:
            remove_folders(made)
            raise BpfError(f"make folder {path}", error.errno or errno.EIO) from error
    return made


def remove_folders(folders: Collection[str]) -> None:
    """Remove these folders, innermost first, as far as they are empty."""
    for path in sorted(folders, key=len, reverse=True):
        try:
            os.rmdir(path)
        except OSError:
            # Somebody else's pin is in it, or somebody else removed it: both are fine.
            return


def name_for(netns_inode: int, device: str, ifindex: int, hook: str, prog: str, link: int) -> str:
    """The name of netbpf's own pin of a link.

    The namespace's inode and the ifindex tell equal device names apart and survive a rename; the
    device's and program's names are for people.
    """
    parts = (f"net{netns_inode}", device, str(ifindex), hook, prog, str(link))
    return "_".join(re.sub(r"[^A-Za-z0-9-]", "-", part) for part in parts)


def create_own(fd: int, fs: BpfFs, name: str, kind: str) -> str:
    """Pin below netbpf's own folder; the pin's path as it is shown."""
    path = f"{fs.folder}/{name}"
    while True:
        make_folder(fs.folder)
        try:
            create(fd, path, kind)
        except BpfError as error:
            # Another netbpf may just have removed the folder with the last pin in it.
            if error.errno == errno.ENOENT:
                continue
            remove_folders([fs.folder])
            raise
        return f"{fs.shown}/{FOLDER}/{name}"


def remove(path: str) -> None:
    """Remove one pin, and netbpf's own folder with the last one in it.

    :raises BpfError: it cannot be removed.
    """
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise BpfError(f"remove pin {path}", error.errno or errno.EIO) from error
    folder = os.path.dirname(path)
    if os.path.basename(folder) == FOLDER:
        remove_folders([folder])


def remove_defunct(netns_inode: int, ifindexes: Collection[int]) -> list[str]:
    """Remove netbpf's own pins of links on these devices, which are gone; those removed.

    Only pins of links that are defunct: the name alone could be another device's by now.
    """
    removed = []
    for fs in mounts():
        for path in _files(fs.folder):
            # As name_for made it: netINODE, device, ifindex, hook, program, link.
            parts = os.path.basename(path).split("_")
            if parts[0] != f"net{netns_inode}" or len(parts) < 3 or not parts[2].isdecimal():
                continue
            if int(parts[2]) in ifindexes and _is_defunct(path):
                remove(path)
                removed.append(fs.shown + path[len(fs.path) :])
    return removed


def is_own(path: str) -> bool:
    """Whether the pin lies in netbpf's own folder."""
    return os.path.basename(os.path.dirname(path)) == FOLDER


def link_pins(link_ids: Collection[int]) -> dict[int, list[str]]:
    """Where each of these links is pinned, on every bpffs within reach; every id has its list."""
    found: dict[int, list[str]] = {number: [] for number in link_ids}
    if not found:
        return {}
    for fs in mounts():
        for path in _files(fs.path):
            number = _pinned_link(path)
            if number in found:
                found[number].append(fs.shown + path[len(fs.path) :])
    return found


def _is_defunct(path: str) -> bool:
    try:
        with FD(syscall.obj_get(path)) as fd:
            if kind_of(fd.fileno()) != "link":
                return False
            info = syscall.obj_get_info(fd.fileno(), uapi.LinkInfo())
            return info.type in _ON_DEVICE and not info.tcx.ifindex
    except OSError:
        return False


def _files(folder: str) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_dir(follow_symlinks=False):
                    yield from _files(entry.path)
                elif stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
                    yield entry.path
    except OSError:
        # Folders come and go, and some are not ours to look into.
        return


def _pinned_link(path: str) -> int | None:
    try:
        with FD(syscall.obj_get(path)) as fd:
            if kind_of(fd.fileno()) != "link":
                return None
            with open(f"/proc/self/fdinfo/{fd.fileno()}") as lines:
                return next((int(x.split()[1]) for x in lines if x.startswith("link_id:")), None)
    except OSError:
        return None
