"""What keeps a new link alive after the command: a pin, this process, or nothing."""

from __future__ import annotations

import os
from contextlib import contextmanager

from netbpf.bpf import pin as pins
from netbpf.bpf.bpffs import FOLDER, MOUNT, BpfFs, lasting, reach
from netbpf.bpf.link import Link
from netbpf.cli import interrupts
from netbpf.cli.output import note
from netbpf.cli.places import settle, shown, tell
from netbpf.records import field, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Literal


@record(slots=True)
class Keeper:
    """How a link is kept: our ``own`` pin, one at ``path``, ``hold``; or there is none."""

    how: Literal["own", "path", "hold", "none"]
    path: str = ""
    fs: BpfFs | None = field(default=None, init=False)

    @classmethod
    def chosen(cls, link: bool | None, pin: str | None, hold: bool, *, replacing: bool) -> Keeper:
        """What the options ask for.

        :raises ValueError: they contradict each other.
        """
        if pin is not None and hold:
            raise ValueError("--pin and --hold contradict each other: a held link has no pin")
        if link is False and (pin is not None or hold):
            raise ValueError(
                f"--no-link makes no link that --{'hold' if hold else 'pin'} could keep"
            )
        if replacing and (link or pin is not None or hold):
            raise ValueError(
                "--replace attaches the program itself: the kernel lets no new link replace an "
                "entry; update exchanges the program under a link"
            )
        if link is False or replacing:
            return cls("none")
        if hold:
            return cls("hold")
        return cls("own") if pin is None else cls("path", pin)

    @property
    def by_link(self) -> bool:
        """Whether a link is made at all."""
        return self.how != "none"

    def prepare(self, *, mount: bool = True) -> None:
        """Find or make the bpffs, before anything is attached that it would have to keep.

        :param mount: False only looks: for a dry run.
        :raises NetbpfError: the pin could not be made, or would not stay.
        """
        if self.how == "own":
            self.fs = lasting(mount=mount)
        elif self.how == "path":
            self.path, self.fs = settle(self.path, mount=mount)
        # On a bpffs that is not mounted yet there is nothing that could stand in the way.
        if mount or self.fs is None or not self.fs.mounted:
            if self.how == "path":
                self.path = pins.check(self.path)
            elif self.fs is not None:
                pins.check_writable(self.fs.path)
        tell(self.fs, mount=mount)

    @property
    def pins(self) -> list[str]:
        """The pins that a dry run can tell: netbpf's own has the link's id in its name."""
        return [shown(self.path, self.fs)] if self.how == "path" else []

    @property
    def words(self) -> str:
        """How the program would be attached and kept, for a dry run."""
        match self.how:
            case "own":
                return f"by a link, pinned below {MOUNT}/{FOLDER}"
            case "path":
                return f"by a link, pinned at {self.pins[0]}"
            case "hold":
                return "by a link that this command holds"
        return "without a link"

    @contextmanager
    def keep(self, link: Link | None, own_name: Callable[[int], str]) -> Iterator[list[str]]:
        """Pin the link and let go of it; without a pin it ends with the block.

        :param own_name: what netbpf's own pin of the link with this id is called.
        """
        if link is None:
            yield []
            return
        with link:
            if self.how == "hold":
                yield []
            elif self.how == "path":
                made = pins.make_folder(os.path.dirname(self.path))
                try:
                    link.pin(self.path)
                except BaseException:
                    pins.remove_folders(made)
                    raise
                yield [shown(self.path, self.fs)]
            else:
                assert self.fs is not None
                name = own_name(link.id)
                yield [pins.create_own(link.fileno(), self.fs, name, link.kind)]

    def wait(self) -> None:
        """Hold on until Ctrl-C or SIGTERM, where that was asked for."""
        if self.how != "hold":
            return
        note("holding the link; Ctrl-C releases it")
        interrupts.wait()
        note("released")


def remove_pins(link_id: int, ref: str, *, dry_run: bool = False) -> list[str]:
    """Remove netbpf's own pins of a link, and the one that ``ref`` names; those removed.

    :param dry_run: remove none, tell those that would be.
    """
    from netbpf.bpf.ref import Ref

    named = Ref.parse(ref)
    removed = []
    for path in pins.link_pins([link_id])[link_id]:
        if pins.is_own(path) or (named.kind == "pin" and named.value == path):
            if not dry_run:
                pins.remove(reach(path))
            removed.append(path)
        else:
            note(f"{path} still pins the link, which is defunct {'then' if dry_run else 'now'}")
    return removed
