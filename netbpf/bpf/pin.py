"""Pins: names on a bpffs, which keep an object alive."""

from __future__ import annotations

import errno
import os
import stat

from netbpf.bpf import syscall, uapi
from netbpf.bpf.bpffs import FOLDER, MOUNT, BpfFs, is_bpffs, mounts, refused
from netbpf.bpf.fd import FD, kind_of
from netbpf.errors import BpfError
from netbpf.interrupts import held as uninterrupted
from netbpf.records import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from netbpf.bpf.link_info import LinkInfo
    from netbpf.bpf.pin_name import OwnName

    _Held = tuple[str, int, LinkInfo | None]

_NAME_MAX = 255
# ENOENT: in the folder of sysfs on which none is mounted (fs/libfs.c: empty_dir_lookup).
_ELSEWHERE = (errno.EPERM, errno.ENOENT)


def create(fd: int, path: str, kind: str) -> None:
    """Pin what ``fd`` refers to at ``path``, whose folder exists.

    :raises BpfError: refused; the reason says which of the kernel's rules applied.
    """
    try:
        syscall.obj_pin(fd, path)
    except OSError as error:
        if error.errno == errno.EACCES:
            raise refused(f"pin {kind} at {path}", error) from error
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
    if not is_bpffs(existing):
        raise _refused(operation, errno.EPERM, path)
    if "." in path[len(existing) :]:
        raise _dotted(operation)
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


def is_dotted(path: str) -> bool:
    """Whether ``path`` has a dot where a bpffs takes none, so that nothing can be there."""
    path = os.path.abspath(path)
    folder = os.path.dirname(path)
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return "." in path[len(folder) :] and is_bpffs(folder)


def _refused(operation: str, number: int, path: str) -> BpfError:
    """The condition of kernel/bpf/inode.c (bpf_obj_do_pin, bpf_lookup) that held."""
    folder = os.path.dirname(path)
    reason = hint = code = None
    if number == errno.EEXIST:
        reason, hint = "something is there already", "choose another path or remove that pin"
    elif number in _ELSEWHERE and os.path.isdir(folder) and not is_bpffs(folder):
        reason, code = f"{folder} is not on a bpffs", "not_bpffs"
        hint = f"pin below {MOUNT}" if is_bpffs(MOUNT) else f"mount -t bpf bpf {MOUNT}"
    elif number == errno.ENOENT:
        reason, hint = f"there is no folder {folder}", f"mkdir -p {folder}"
    elif number == errno.EPERM and "." in os.path.basename(path):
        return _dotted(operation)
    elif number == errno.EPERM:
        reason, code = f"no part of {folder} is on a bpffs", "not_bpffs"
        hint = f"pin below {MOUNT}"
    return BpfError(operation, number, reason, hint=hint, code=code)


def _dotted(operation: str) -> BpfError:
    # kernel/bpf/inode.c: bpf_lookup
    reason = "a name on a bpffs cannot contain a dot"
    return BpfError(operation, errno.EPERM, reason, code="invalid_name")


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
            raise refused(f"make folder {path}", error) from error
    return made


def remove_folders(folders: Collection[str]) -> None:
    """Remove these folders, innermost first, as far as they are empty."""
    for path in sorted(folders, key=len, reverse=True):
        try:
            os.rmdir(path)
        except OSError:
            # Somebody else's pin is in it, or somebody else removed it: both are fine.
            return


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
        raise refused(f"remove pin {path}", error) from error
    folder = os.path.dirname(path)
    if os.path.basename(folder) == FOLDER:
        remove_folders([folder])


@record(frozen=True, slots=True)
class Pin:
    """A pin, and what it was seen to hold.

    ``path`` leads there for this process, ``shown`` in the bpffs' own mount namespace. ``own``: it
    lies below netbpf's own folder. ``id`` is that of a program or link; of another ``kind`` it is
    not asked for, and 0.
    """

    path: str
    shown: str
    own: bool
    kind: str
    id: int
    link: LinkInfo | None

    @property
    def name(self) -> OwnName | None:
        """What its name says, where netbpf has made it; None where something else did."""
        from netbpf.bpf.pin_name import OwnName

        return OwnName.parse(os.path.basename(self.path)) if self.own else None


def scan(*, own: bool = False) -> Iterator[Pin]:
    """Every pin on every bpffs within reach; with ``own`` only those below netbpf's own folder."""
    for fs in own_folders() if own else mounts():
        for path in walk(fs.folder if own else fs.path):
            if (held := _held(path)) is not None:
                yield _pin(path, fs, held)


def own_folders() -> Iterator[BpfFs]:
    """Every bpffs within reach that has a folder of netbpf's own, which is no way elsewhere."""
    for fs in mounts():
        try:
            found = os.lstat(fs.folder)
            if stat.S_ISDIR(found.st_mode) and found.st_dev == os.stat(fs.path).st_dev:
                yield fs
        except OSError:
            continue


def _held(path: str) -> _Held | None:
    """What is pinned at ``path``: kind, id, link; None: nothing that we may open."""
    try:
        with FD(syscall.obj_get(path)) as fd:
            kind = kind_of(fd.fileno())
            if kind == "link":
                from netbpf.bpf.link_info import LinkInfo

                link = LinkInfo.of(syscall.obj_get_info(fd.fileno(), uapi.LinkInfo()))
                return kind, link.id, link
            if kind == "program":
                return kind, syscall.obj_get_info(fd.fileno(), uapi.ProgInfo()).id, None
            return kind, 0, None
    except OSError:
        return None


def _pin(path: str, fs: BpfFs, held: _Held) -> Pin:
    return Pin(path, fs.shown + path[len(fs.path) :], path.startswith(f"{fs.folder}/"), *held)


def remove_exactly(pin: Pin) -> bool:
    """Remove the pin if it still holds what was seen, and as defunct; whether it was removed.

    Anybody may put another pin in its place at any moment. So it is renamed first, which nobody
    can come between, looked at again, and goes back if it has become another one.

    :raises BpfError: it cannot be removed.
    """
    if not _same(_held(pin.path), pin):
        return False
    folder = os.path.dirname(pin.path)
    aside = f"{folder}/netbpf-going-{os.urandom(8).hex()}"
    with uninterrupted():
        try:
            os.rename(pin.path, aside)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise refused(f"remove pin {pin.path}", error) from error
        if not _same(_held(aside), pin):
            # A hard link refuses where a rename would replace what came there by now.
            try:
                os.link(aside, pin.path)
                os.unlink(aside)
            except FileExistsError:
                pass
            return False
        try:
            os.unlink(aside)
        except FileNotFoundError:
            return False
    if pin.own:
        _remove_own_folders(folder)
    return True


def _same(now: _Held | None, seen: Pin) -> bool:
    if now is None or now[:2] != (seen.kind, seen.id):
        return False
    return seen.link is None or not seen.link.defunct or bool(now[2] and now[2].defunct)


def _remove_own_folders(folder: str) -> None:
    """Remove the folder and those above it, up to netbpf's own, as far as they are empty."""
    above = [folder]
    while os.path.basename(folder) != FOLDER and folder != "/":
        folder = os.path.dirname(folder)
        above.append(folder)
    remove_folders(above)


def remove_defunct(netns_inode: int, ifindexes: Collection[int] | None = None) -> list[str]:
    """Remove netbpf's own pins of links in that namespace whose device is gone; those removed.

    Only pins of links that are defunct: the name alone could be another device's by now.

    :param ifindexes: only these devices; None is all, with links of the namespace itself.
    """
    removed = []
    for pin in own_in({netns_inode}):
        gone = pin.link is not None and pin.link.defunct
        of_these = ifindexes is None or (pin.name is not None and pin.name.ifindex in ifindexes)
        if gone and of_these and remove_exactly(pin):
            removed.append(pin.shown)
    return removed


def own_in(netns_inodes: Collection[int]) -> Iterator[Pin]:
    """netbpf's own pins of links that were attached in these namespaces, as their names say."""
    if not netns_inodes:
        return
    from netbpf.bpf.pin_name import OwnName

    for fs in own_folders():
        for path in walk(fs.folder):
            # Opened only where the name fits: there may be many others.
            named = OwnName.parse(os.path.basename(path))
            if named is None or named.netns_inode not in netns_inodes:
                continue
            if (held := _held(path)) is not None and held[0] == "link":
                yield _pin(path, fs, held)


def is_own(path: str) -> bool:
    """Whether the pin lies in netbpf's own folder."""
    folder = os.path.dirname(path)
    return any(folder in (fs.folder, f"{fs.shown}/{FOLDER}") for fs in mounts())


def link_pins(link_ids: Collection[int]) -> dict[int, list[str]]:
    """Where each of these links is pinned, on every bpffs within reach; every id has its list."""
    found: dict[int, list[str]] = {number: [] for number in link_ids}
    if not found:
        return {}
    for pin in scan():
        if pin.link is not None and pin.id in found:
            found[pin.id].append(pin.shown)
    return found


def walk(folder: str) -> Iterator[str]:
    """The files below a folder, in order of their names, on its own filesystem only."""
    yield from (path for path, is_folder in _walk(folder) if not is_folder)


def empty_folders(folder: str) -> list[str]:
    """The folders below ``folder`` in which there are none but empty folders; innermost first."""
    folders, full = [], set()
    for path, is_folder in _walk(folder, everything=True):
        if is_folder:
            folders.append(path)
            continue
        while path != folder and path not in full:
            path = os.path.dirname(path)
            full.add(path)
    return [path for path in reversed(folders) if path not in full]


def _walk(folder: str, *, everything: bool = False) -> Iterator[tuple[str, bool]]:
    """The folders and files below a folder; with ``everything`` also what is neither."""
    try:
        device = os.lstat(folder).st_dev
    except OSError:
        return
    # No recursion: somebody's folders may be nested deeper than Python's stack.
    waiting = [(folder, True)]
    while waiting:
        path, is_folder = waiting.pop()
        if path != folder:
            yield path, is_folder
        if not is_folder:
            continue
        below = []
        try:
            with os.scandir(path) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    found = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(found.st_mode) and found.st_dev == device:
                        below.append((entry.path, True))
                    elif everything or stat.S_ISREG(found.st_mode):
                        below.append((entry.path, False))
        except OSError:
            # Folders come and go, and some are not ours to look into.
            if everything:
                # Nobody can say that it is empty: as if something were in it.
                yield f"{path}/", False
            continue
        waiting += reversed(below)
