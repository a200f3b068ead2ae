"""Changing the chain of programs at a device's hook: what tcx and netkit share.

The kernel's side is kernel/bpf/mprog.c. A chain holds at most 63 programs, each at most once; its
revision rises with every change. Functions take an ifindex and act in the network namespace where
the calling thread stands.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

from netbpf.bpf import mprog_refusal, syscall
from netbpf.bpf import mprog_request as request
from netbpf.bpf.anchor import Anchor, Landing
from netbpf.bpf.chain import Chain, Entry, Target, matcher
from netbpf.bpf.hook import Hook, check_ifindex, query
from netbpf.bpf.link import Link
from netbpf.bpf.macros import BPF_F_REPLACE
from netbpf.bpf.prog import Program
from netbpf.errors import BpfError, ConflictError, NetbpfError

_TRIES = 8

T = TypeVar("T")

Expected = int | Chain | None
"""The revision that a chain has to be at: its number, or the chain as it was read then, with which
a refusal can say what changed since. None and 0 take any."""


@dataclass(frozen=True, slots=True)
class Placed:
    """What an attach or update made.

    ``position`` and ``revision`` are those of the chain read back afterwards; ``position`` is None
    when somebody else took the program out again by then. Both are None and 0 where the chain may
    not be read (needs CAP_NET_ADMIN; attaching what one holds open needs nothing). ``link`` is open
    and the caller's: closed without a pin, it takes the program with it.
    """

    ifindex: int
    hook: str
    position: int | None
    revision: int
    prog_id: int
    link_id: int | None
    link: Link | None = None
    old_prog_id: int | None = None


@dataclass(frozen=True, slots=True)
class Removed:
    """What a detach took out, and the chain's revision afterwards."""

    ifindex: int
    hook: str
    entry: Entry
    revision: int


class Hooks:
    """The hooks of one kind, and what can be done at them."""

    def __init__(self, *hooks: Hook) -> None:
        self._hooks = {hook.name: hook for hook in hooks}

    @property
    def names(self) -> tuple[str, ...]:
        """The hooks' names."""
        return tuple(self._hooks)

    def hook(self, name: str) -> Hook:
        """The hook of that name; ValueError when there is none."""
        try:
            return self._hooks[name]
        except KeyError:
            raise ValueError(f"no hook {name}: it is {' or '.join(self._hooks)}") from None

    def chain(self, ifindex: int, hook: str) -> Chain:
        """The programs at the hook, in order, and the revision.

        Needs CAP_NET_ADMIN in the initial user namespace.

        :raises BpfError, NotFoundError, NotSupportedError: refused, and why.
        """
        place = self.hook(hook)
        try:
            return query(ifindex, place)
        except OSError as error:
            raise mprog_refusal.of_query(place, ifindex, error) from error

    def expected(self, ifindex: int, hook: str, verb: str, revision: Expected) -> Chain:
        """The chain, if it is at ``revision``.

        :param verb: what was to be done, for the error: "attach to".
        :raises StaleRevisionError: it is at another. Also raises what ``chain`` does.
        """
        chain = self.chain(ifindex, hook)
        if _number(revision) not in (0, chain.revision):
            raise mprog_refusal.stale(self.hook(hook), ifindex, verb, revision, chain)
        return chain

    def check_attach(self, chain: Chain, anchor: Anchor, prog_id: int | None = None) -> int:
        """The position at which an attach would land, with nothing changed.

        :param prog_id: the program's, where it is loaded already.
        :raises BpfError, NotFoundError, AmbiguousError: what the kernel would refuse it with, or
            what is named is not there.
        """
        if error := mprog_refusal.foreseen(self.hook(chain.hook), chain, anchor, prog_id):
            raise error
        return anchor.land(chain).position

    def check_update(
        self, chain: Chain, target: Target, prog_id: int | None = None, *, old: Target | None = None
    ) -> Entry:
        """The entry that an update would change, with nothing changed.

        :param prog_id: the new program's, where it is loaded already.
        :raises ConflictError, BpfError, NotFoundError, AmbiguousError: as ``update`` would.
        """
        entry = chain.find(target)
        self.check_old(entry, old)
        hook = self.hook(chain.hook)
        if error := mprog_refusal.foreseen_update(hook, chain, entry, prog_id):
            raise error
        return entry

    @staticmethod
    def check_old(entry: Entry, old: Target | None) -> None:
        """Whether ``entry`` is still what ``old`` names; None takes anything.

        :raises ConflictError: it is something else.
        """
        if old is not None and not matcher(old)(entry):
            raise ConflictError(
                f"position {entry.position} is held by {entry}",
                hint="look at the chain again, then decide",
            )

    def attach(
        self,
        ifindex: int,
        hook: str,
        prog: Program,
        *,
        before: Target | None = None,
        after: Target | None = None,
        replace: Target | None = None,
        first: bool = False,
        last: bool = False,
        link: bool = True,
        expected_revision: Expected = None,
    ) -> Placed:
        """Put ``prog`` into the chain, last unless told otherwise.

        What is named is looked up in the chain, and the change is made only to the chain that was
        read: when it moved meanwhile it is read again, unless ``expected_revision`` says which one
        is meant. ``replace`` puts a program in the place of another one, which no link owns.

        :param link: attach by a bpf_link, which is returned open and whose closing detaches; False
            attaches the program itself, until it is detached.
        :param expected_revision: refuse unless the chain is at this revision; 0 does not check.
        :raises StaleRevisionError: the chain is at another revision.
        :raises NotFoundError, AmbiguousError: what was named is not there, or not one.
        :raises BpfError: the kernel refused; the message holds the condition.
        :raises NotSupportedError: the kernel has no such hook.
        """
        place, anchor = self.hook(hook), Anchor(before, after, replace, first, last)
        _check(ifindex, prog, expected_revision)
        if link and replace is not None:
            raise ValueError(
                "the kernel lets no new link replace an entry (BPF_LINK_CREATE takes no "
                "BPF_F_REPLACE): replace without a link, or update the entry"
            )

        def change() -> Link | None:
            landing, revision = self._landing(ifindex, hook, anchor)
            if expected_revision is not None:
                revision = _number(expected_revision)
            if link:
                return request.create_link(place, ifindex, prog, landing, revision)
            with ExitStack() as held:
                old = replace if isinstance(replace, Program) else None
                if landing.replaced is not None and old is None:
                    old = held.enter_context(Program.from_id(landing.replaced.prog_id))
                request.attach_program(place, ifindex, prog, landing, revision, old)
            return None

        made = self._guarded(place, ifindex, change, "attach to", prog, expected_revision, anchor)
        try:
            return self._placed(ifindex, hook, prog, made)
        except BaseException:
            if made is not None:
                made.close()
            raise

    def detach(
        self,
        ifindex: int,
        hook: str,
        target: Target,
        *,
        expected_revision: Expected = None,
        let_go: Callable[[int], None] | None = None,
    ) -> Removed:
        """Take what ``target`` names out of the chain, never anything else.

        An entry that a link owns is taken out by detaching the link, whoever else holds it: the
        link becomes defunct and its pins stay. The kernel has no revision guard for
        that; the link's id names it for certain.

        :param let_go: called with a link's id right before that, to remove the pins that are not to
            outlive it: killed in between, the link ends by itself.
        :raises StaleRevisionError, NotFoundError, AmbiguousError, BpfError: as for ``attach``.
        """
        place = self.hook(hook)
        _check(ifindex, None, expected_revision)

        def change() -> Entry:
            chain = self.expected(ifindex, hook, "detach from", expected_revision)
            entry = chain.find(target)
            if entry.link_id is not None:
                with Link.from_id(entry.link_id) as owner:
                    if let_go is not None:
                        let_go(entry.link_id)
                    owner.detach()
            else:
                with Program.from_id(entry.prog_id) as prog:
                    request.detach_program(place, ifindex, prog, chain.revision)
            return entry

        entry = self._guarded(place, ifindex, change, "detach from", None, expected_revision)
        return Removed(ifindex, hook, entry, self.chain(ifindex, hook).revision)

    def update(
        self,
        ifindex: int,
        hook: str,
        target: Target,
        prog: Program,
        *,
        old: Target | None = None,
        expected_revision: Expected = None,
    ) -> Placed:
        """Put ``prog`` in the place of what ``target`` names, with no packet unserved.

        A link's program is exchanged under the link, which stays.

        :param old: refuse unless the place is held by this.
        :raises ConflictError: something else than ``old`` holds the place.
        :raises StaleRevisionError, NotFoundError, AmbiguousError, BpfError: as for ``attach``.
        """
        place = self.hook(hook)
        _check(ifindex, prog, expected_revision)

        def change() -> Entry:
            chain = self.expected(ifindex, hook, "update", expected_revision)
            entry = chain.find(target)
            self.check_old(entry, old)
            with Program.from_id(entry.prog_id) as current:
                if entry.link_id is not None:
                    with Link.from_id(entry.link_id) as owner:
                        syscall.link_update(
                            owner.fileno(), prog.fileno(), current.fileno(), BPF_F_REPLACE
                        )
                else:
                    request.replace_program(place, ifindex, prog, current, chain.revision)
            return entry

        entry = self._guarded(place, ifindex, change, "update", prog, expected_revision)
        return self._placed(ifindex, hook, prog, None, entry)

    def _landing(self, ifindex: int, hook: str, anchor: Anchor) -> tuple[Landing, int]:
        """Where the anchor lands, and the revision of the chain for which that holds."""
        if not anchor.needs_chain:
            return anchor.land(Chain(ifindex, hook, 0, ())), 0
        try:
            chain = self.chain(ifindex, hook)
        except BpfError as error:
            # Attaching asks for no capability where reading does.
            unseen = anchor.unseen() if error.errno == errno.EPERM else None
            if unseen is None:
                raise
            return unseen, 0
        return anchor.land(chain), chain.revision

    def _guarded(
        self,
        place: Hook,
        ifindex: int,
        change: Callable[[], T],
        verb: str,
        prog: Program | None,
        expected: Expected,
        anchor: Anchor | None = None,
    ) -> T:
        """Read and change until nobody came between; then say why not."""
        for attempt in range(_TRIES):
            try:
                return change()
            except OSError as error:
                moved = error.errno == errno.ESTALE or (
                    verb == "update" and error.errno == errno.EPERM
                )
                if moved and expected is None and attempt < _TRIES - 1:
                    continue
                raise mprog_refusal.of_change(
                    place, ifindex, verb, error, prog, expected, anchor
                ) from error
        raise AssertionError("the last try returns or raises")

    def refused(self, chain: Chain, verb: str, error: OSError, prog: Program | None) -> NetbpfError:
        """Why the kernel refused a request of this module's neighbours at ``chain``."""
        place = self.hook(chain.hook)
        return mprog_refusal.of_change(place, chain.ifindex, verb, error, prog, None)

    def _placed(
        self, ifindex: int, hook: str, prog: Program, link: Link | None, old: Entry | None = None
    ) -> Placed:
        number = prog.id
        try:
            chain = self.chain(ifindex, hook)
        except BpfError as error:
            if error.errno != errno.EPERM:
                raise
            chain = Chain(ifindex, hook, 0, ())
        entry = chain.with_program(number)
        return Placed(
            ifindex=ifindex,
            hook=hook,
            position=entry.position if entry else None,
            revision=chain.revision,
            prog_id=number,
            link_id=link.id if link else (old.link_id if old else None),
            link=link,
            old_prog_id=old.prog_id if old else None,
        )


def _number(expected: Expected) -> int:
    """The revision's number, 0 where any will do."""
    return expected.revision if isinstance(expected, Chain) else expected or 0


def _check(ifindex: int, prog: object, revision: Expected) -> None:
    """What ctypes would cut to size without a word.

    :raises TypeError: ``prog`` is no loaded program. :raises ValueError: no kernel counts so.
    """
    check_ifindex(ifindex)
    if prog is not None and not isinstance(prog, Program):
        raise TypeError(f"{prog!r} is no Program: load it first")
    if not 0 <= _number(revision) < 2**64:
        raise ValueError(f"a revision lies between 0 and 2^64 - 1, {revision} does not")
