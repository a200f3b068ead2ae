"""The revisions that were told, and their chains: so that a refusal can say what changed since.

A revision is a number that the caller keeps; the kernel does not tell what the chain was then. So a
chain is noted in /run/netbpf/revisions whenever its revision is printed. Nothing depends on the
note: without it a refusal says what is there now.
"""

from __future__ import annotations

import fcntl
import os
import stat

from netbpf.cli import json_text
from netbpf.errors import NetbpfError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from netbpf.bpf.chain import Chain, Entry
    from netbpf.bpf.mprog import Hooks
    from netbpf.cli.output import Document

FOLDER = "/run/netbpf"
_FILE = f"{FOLDER}/revisions"
_LARGEST = 1 << 20
_KEPT = 1 << 19


def shown(documents: Iterable[Document]) -> None:
    """Note down chains of the caller's namespace, as `tcx show` has them."""
    _remember(
        [
            each["ifindex"],
            each["hook"],
            each["revision"],
            [
                [e["prog"]["id"], e["link"] and e["link"]["id"], e["prog"]["name"]]
                for e in each["entries"]
            ],
        ]
        for each in documents
    )


def now(hooks: Hooks, ifindex: int, hook: str) -> None:
    """Note down the chain of a device in the caller's namespace, as it is now."""
    try:
        chain = hooks.chain(ifindex, hook)
    except NetbpfError:
        # The device may have gone by now.
        return
    entries = [[e.prog_id, e.link_id, _name(e)] for e in chain.entries]
    _remember([[ifindex, hook, chain.revision, entries]])


def _remember(rows: Iterable[Sequence[Any]]) -> None:
    """Each row is ifindex, hook, revision and entries: program, link, the program's name."""
    inode = _inode()
    # An empty netkit side tells no revision.
    text = "".join(json_text.dumps([inode, *row]) + "\n" for row in rows if row[2])
    if not text or os.geteuid() != 0:
        return
    try:
        os.makedirs(FOLDER, 0o700, exist_ok=True)
        fd = os.open(_FILE, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        with open(fd, "r+b", buffering=0) as file:
            if not _ours(fd):
                return
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_size > _LARGEST:
                file.seek(-_KEPT, os.SEEK_END)
                kept = file.read().partition(b"\n")[2]
                file.truncate(0)
                file.write(kept)
            file.write(text.encode())
    except OSError:
        # A read-only or full /run, another netbpf at this very moment: only the comfort is lost.
        pass


def expected(ifindex: int, hook: str, revision: int | None) -> Chain | int | None:
    """The chain that was told with that revision; the bare number where none was."""
    if not revision:
        return revision
    try:
        fd = os.open(_FILE, os.O_RDONLY | os.O_NOFOLLOW)
        with open(fd, "rb") as file:
            lines = file.readlines() if _ours(fd) else []
    except OSError:
        return revision
    start = f'[{_inode()}, {ifindex}, "{hook}", {revision}, '.encode()
    for line in reversed(lines):
        if line.startswith(start):
            try:
                return _chain(line)
            except (ValueError, TypeError):
                # Cut short by a full /run.
                continue
    return revision


def _chain(line: bytes) -> Chain:
    import json

    from netbpf.bpf.chain import Chain, Entry

    _, ifindex, hook, revision, entries = json.loads(line)
    return Chain(ifindex, hook, revision, tuple(Entry(i, *each) for i, each in enumerate(entries)))


def _ours(fd: int) -> bool:
    """Whether nobody else can have written there."""
    about = os.fstat(fd)
    return about.st_uid == os.geteuid() and stat.S_ISREG(about.st_mode) and not about.st_mode & 0o22


def _inode() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino


def _name(entry: Entry) -> str | None:
    info = entry.program()
    return info.name if info else None
