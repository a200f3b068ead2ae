"""The host's files as the guest will see them: a read-only tree in a mount namespace of our own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from lab import libc
from lab.cache import GUESTS_OWN
from lab.errors import LabError

# Views of this kernel, not files: the guest has its own. nsfs would keep a namespace alive.
_KERNEL_VIEWS = frozenset(
    (
        *("autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts"),
        *("devtmpfs", "efivarfs", "fusectl", "hugetlbfs", "mqueue", "nsfs", "proc", "pstore"),
        *("rpc_pipefs", "securityfs", "sysfs", "tracefs"),
    )
)


class Tree:
    """The exported tree; made once per process, gone with the process.

    :param root: where it is mounted, visible to this process and its children only.
    :param run: the folder that the guest sees as /run while it starts; in memory.
    """

    def __init__(self, root: Path):
        self.root = root
        self.run = root / "run"

    def close(self) -> None:
        """Unmount it, for another one in its place."""
        libc.detach(str(self.root))

    def seal(self) -> None:
        """Make /run read-only too, when all that the guest needs is in it."""
        libc.mount("", self.run, "", libc.MS_REMOUNT | libc.MS_BIND | libc.MS_RDONLY)


def private_tree(cache: Path) -> Tree:
    """Leave the host's mount namespace and build the tree in the new one.

    :raises LabError: the kernel refused.
    """
    root = cache / "tree"
    root.mkdir(exist_ok=True)
    try:
        libc.unshare(libc.CLONE_NEWNS)
        # Slave: what the host unmounts is let go here as well, nothing goes the other way.
        libc.mount("", Path("/"), "", libc.MS_REC | libc.MS_SLAVE)
        _detach(mounts_of_type(_mountinfo(), {"nsfs"}))
        libc.mount("/", root, "", libc.MS_BIND | libc.MS_REC)
        # Private: a later mount of the host would come in writable.
        libc.mount("", root, "", libc.MS_REC | libc.MS_PRIVATE)
        views = mounts_of_type(_mountinfo(), _KERNEL_VIEWS)
        _detach(target for target in views if target.startswith(f"{root}/"))
        libc.make_tree_read_only(root)
        for name in GUESTS_OWN:
            flags = 0 if name == "run" else libc.MS_RDONLY
            libc.mount("tmpfs", root / name, "tmpfs", flags, "size=16m,mode=0755")
    except OSError as e:
        raise LabError(
            f"cannot build the guest's view of the files: {e} (needs CAP_SYS_ADMIN, Linux 5.12)"
        ) from e
    return Tree(root)


def mounts_of_type(mountinfo: str, types: Iterable[str]) -> list[str]:
    """The mount points of some filesystem types: outermost only, the last mounted first."""
    wanted = frozenset(types)
    found: list[str] = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        target = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), before.split()[4])
        if after.split()[0] in wanted and not any(target.startswith(f"{f}/") for f in found):
            found.append(target)
    return found[::-1]


def _detach(targets: Iterable[str]) -> None:
    for target in targets:
        try:
            libc.detach(target)
        except OSError:
            pass  # below another mount: nobody gets to it by its path


def _mountinfo() -> str:
    return Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
