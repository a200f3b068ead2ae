"""Where a bpffs is that outlives the command.

Every ``mount -t bpf`` is an instance of its own. ``ip netns exec`` gives its command a mount
namespace with a fresh /sys, in which nothing is mounted on /sys/fs/bpf: a bpffs mounted there would
go when the command ends, and its pins and links with it.
"""

from __future__ import annotations

import errno
import os

from netbpf import libc
from netbpf.bpf.macros import BPF_FS_MAGIC
from netbpf.errors import BpfError, NetbpfError
from netbpf.records import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MOUNT = "/sys/fs/bpf"
"""Where a bpffs is mounted by custom."""

FOLDER = "netbpf"
"""The folder on it for netbpf's own pins."""


@record(frozen=True, slots=True)
class BpfFs:
    """A bpffs.

    ``path`` leads there for this process, ``shown`` is where its own mount namespace has it: they
    differ when an ancestor's is borrowed. ``mounted``: it was mounted just now. ``holder``: it goes
    when that process ends (None: it stays).
    """

    path: str
    shown: str
    mounted: bool = False
    holder: int | None = None

    @property
    def folder(self) -> str:
        """The folder for netbpf's own pins, as this process reaches it."""
        return f"{self.path}/{FOLDER}"


def is_bpffs(path: str) -> bool:
    """Whether ``path`` lies on a bpffs."""
    try:
        return libc.filesystem_type(path) == BPF_FS_MAGIC
    except OSError:
        return False


def lasting(*, mount: bool = True) -> BpfFs:
    """The bpffs for a pin that is to stay: ours, or an ancestor's, or one mounted now.

    :param mount: False only looks; a bpffs that would have to be mounted is returned as such.
    :raises NetbpfError: every bpffs within reach goes when this command ends.
    """
    borrowed = _borrowed()
    if is_bpffs(MOUNT):
        if borrowed and _device(borrowed.path) == _device(MOUNT):
            return BpfFs(MOUNT, MOUNT)
        if not _private():
            return BpfFs(MOUNT, MOUNT)
        if holder := _holder():
            return BpfFs(MOUNT, MOUNT, holder=holder)
    if borrowed:
        return borrowed
    if _private():
        raise NetbpfError(
            f"a pin below {MOUNT} would be gone with this command, which has a mount namespace of "
            "its own (as `ip netns exec` makes)",
            code="no_lasting_bpffs",
            hint="use --netns NS instead, --pin PATH on a bpffs that stays, --hold, or --no-link",
        )
    if mount:
        _mount()
    return BpfFs(MOUNT, MOUNT, mounted=True)


def mounts() -> Iterator[BpfFs]:
    """Every bpffs that this process can reach, each once."""
    seen = set()
    for path in [*_mounted(), *(fs.path for fs in [_borrowed()] if fs)]:
        device = _device(path)
        # What is mounted over it is another filesystem, and none of ours to walk through.
        if device is not None and device not in seen and is_bpffs(path):
            seen.add(device)
            yield BpfFs(path, MOUNT if path.startswith("/proc/") else path)


def check_readable() -> None:
    """Asked before it is said that nothing is pinned.

    :raises BpfError: the caller may not look into a bpffs within reach.
    """
    for fs in mounts():
        try:
            os.listdir(fs.path)
        except OSError as error:
            raise refused(f"look for pins in {fs.shown}", error) from error


def refused(operation: str, error: OSError) -> BpfError:
    """The error of what was done to a file of a bpffs; EACCES is a matter of its rights."""
    if error.errno != errno.EACCES:
        return BpfError(operation, error.errno or errno.EIO)
    reason = "the rights of the pin or of a folder above it do not allow that"
    return BpfError(operation, errno.EACCES, reason, hint="run as root", code="not_permitted")


def reach(path: str) -> str:
    """``path`` as this process gets there, where an ancestor's bpffs is borrowed."""
    if path.startswith(f"{MOUNT}/") and not is_bpffs(MOUNT) and (borrowed := _borrowed()):
        return borrowed.path + path.removeprefix(MOUNT)
    return path


def _mount() -> None:
    try:
        libc.mount(
            "bpf", MOUNT, "bpf", libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC, "mode=0700"
        )
    except OSError as error:
        number = error.errno or errno.EIO
        raise BpfError(
            f"mount a bpffs on {MOUNT}",
            number,
            hint="needs CAP_SYS_ADMIN (run as root)" if number == errno.EPERM else None,
        ) from error


def _mounted() -> list[str]:
    """The mount points of type bpf, whole ones before folders of one that are mounted elsewhere.

    Fields: Documentation/filesystems/proc.rst, mountinfo.
    """
    found = []
    with open("/proc/self/mountinfo", "rb") as lines:
        for line in lines:
            before, _, after = os.fsdecode(line).partition(" - ")
            if after.startswith("bpf "):
                root, point = before.split(" ")[3:5]
                found.append((root != "/", _unescaped(point)))
    return [path for _, path in sorted(found, key=lambda each: each[0])]


def _unescaped(point: str) -> str:
    # White space and backslashes stand there as octal numbers.
    first, *others = point.split("\\")
    return first + "".join(chr(int(each[:3], 8)) + each[3:] for each in others)


def _borrowed() -> BpfFs | None:
    """The bpffs of the nearest ancestor that has another mount namespace than we have."""
    own = _mount_namespace("self")
    for pid in _ancestors():
        if _mount_namespace(pid) not in (own, None):
            path = f"/proc/{pid}/root{MOUNT}"
            if is_bpffs(path):
                return BpfFs(path, MOUNT)
    return None


def _holder() -> int | None:
    """The outermost ancestor in our mount namespace, which keeps it in being."""
    own, holder = _mount_namespace("self"), None
    for pid in _ancestors():
        if _mount_namespace(pid) != own:
            break
        holder = int(pid)
    return holder


def _ancestors() -> Iterator[str]:
    pid = os.getppid()
    while pid > 0:
        yield str(pid)
        try:
            with open(f"/proc/{pid}/stat", errors="replace") as file:
                # The command's name, in parentheses, may itself hold spaces and parentheses.
                pid = int(file.read().rpartition(")")[2].split()[1])
        except OSError:
            return


def _mount_namespace(pid: str) -> int | None:
    try:
        return os.stat(f"/proc/{pid}/ns/mnt").st_ino
    except OSError:
        return None


def _private() -> bool:
    """Whether our mount namespace is another than the machine's (or the container's).

    That is the one of process 1, or, where we may not look there, of our outermost ancestor.
    """
    for pid in ("1", *reversed(list(_ancestors()))):
        if (outer := _mount_namespace(pid)) is not None:
            return outer != _mount_namespace("self")
    return False


def _device(path: str) -> int | None:
    try:
        return os.stat(path).st_dev
    except OSError:
        return None
