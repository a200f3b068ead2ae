"""Who holds which network namespace: names, bind mounts elsewhere, and processes."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from netbpf.errors import NotFoundError
from netbpf.netns.handle import NetNS
from netbpf.netns.named import inodes_by_name
from netbpf.netns.names import RUN_DIR

_LINK = re.compile(r"net:\[(\d+)\]")


@dataclass(frozen=True)
class Namespace:
    """A network namespace that something visible from here holds."""

    inode: int
    name: str | None = None
    """Its name under /run/netns."""
    paths: tuple[str, ...] = ()
    """Where else it is bind-mounted, as container engines do."""
    pids: tuple[int, ...] = ()
    """The processes whose main thread is in it, as far as we may look."""

    @property
    def reference(self) -> str | None:
        """How `NetNS.parse` finds it: a name, a path, or ``pid:N``."""
        if self.name is not None:
            return self.name
        if self.paths:
            return self.paths[0]
        return f"pid:{self.pids[0]}" if self.pids else None

    def open(self) -> NetNS:
        """A handle of it.

        :raises NotFoundError: it went away meanwhile.
        """
        reference = self.reference
        if reference is None:
            raise ValueError(f"nothing visible from here leads to net:[{self.inode}]")
        ns = NetNS.parse(reference)
        if ns.inode != self.inode:
            ns.close()
            raise NotFoundError("namespace", f"net:[{self.inode}]", where="any more")
        return ns


def scan() -> list[Namespace]:
    """All network namespaces that can be seen from here: named first, by name, then by inode."""
    names = {inode: name for name, inode in reversed(inodes_by_name().items())}
    pids = pids_by_inode()
    paths = paths_by_inode()
    found = [
        Namespace(
            inode=inode,
            name=names.get(inode),
            paths=tuple(paths.get(inode, ())),
            pids=tuple(pids.get(inode, ())),
        )
        for inode in {*names, *pids, *paths}
    ]
    return sorted(found, key=lambda ns: (ns.name is None, ns.name or "", ns.inode))


def pids_by_inode() -> dict[int, list[int]]:
    """The processes in each network namespace, by its inode.

    Processes that we may not look into (CAP_SYS_PTRACE) are left out.
    """
    found: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            target = os.fspath((entry / "ns/net").readlink())
        except OSError:
            continue
        if match := _LINK.fullmatch(target):
            found.setdefault(int(match[1]), []).append(int(entry.name))
    for pids in found.values():
        pids.sort()
    return found


def paths_by_inode() -> dict[int, list[str]]:
    """Where network namespaces are bind-mounted outside /run/netns, by inode."""
    found: dict[int, list[str]] = {}
    try:
        lines = os.fsdecode(Path("/proc/thread-self/mountinfo").read_bytes()).splitlines()
    except OSError:
        return found
    for line in lines:
        # Documentation/filesystems/proc.rst: the fourth field is the root, the fifth where it is.
        fields = line.split(" ", 5)
        match = _LINK.fullmatch(fields[3])
        if match is None:
            continue
        path = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
        if os.fspath(Path(path).parent) not in (os.fspath(RUN_DIR), "/var/run/netns"):
            found.setdefault(int(match[1]), []).append(path)
    return found
