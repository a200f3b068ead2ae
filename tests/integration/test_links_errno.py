"""Links on every kind of hook, by raw bpf(2): what the kernel refuses, ignores and takes."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from netbpf import Program, libc
from netbpf.bpf import prog, syscall, uapi
from netbpf.bpf.link import Link
from netbpf.bpf.macros import (
    BPF_F_AFTER,
    BPF_F_ALLOW_MULTI,
    BPF_F_BEFORE,
    BPF_F_ID,
    BPF_F_LINK,
    BPF_F_PREORDER,
    BPF_F_REPLACE,
)
from tests.netns_fixtures import hooks, programs, rawbpf
from tests.netns_fixtures.hooks import Site
from tests.netns_fixtures.rawbpf import Raw, link_update

BEFORE, AFTER, REPLACE = BPF_F_BEFORE, BPF_F_AFTER, BPF_F_REPLACE
ID, LINK = BPF_F_ID, BPF_F_LINK
UNKNOWN = 1 << 20

NO_ID = 2**32 - 2
NO_FD = 2**20 - 1


@dataclass(frozen=True)
class Stage:
    """A chain of one link, one program and one more link, and what is not in it."""

    site: Site
    raw: Raw
    one: Program
    two: Program
    three: Program
    spare: Program
    other: Program
    an_xdp: Program
    first: Link
    last: Link
    defunct: Link


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(kind, marks=pytest.mark.needs(feature))
        for kind, feature in hooks.SITES.items()
    ],
)
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """One chain for all of them: a refusal changes nothing, and what is taken is taken back."""
    with hooks.site(request.param) as site, ExitStack() as stack:
        one, two, three, spare, other = (
            stack.enter_context(programs.load_returning(programs.NEXT, name))
            for name in ("one", "two", "three", "spare", "other")
        )
        an_xdp = stack.enter_context(
            prog.load(uapi.BPF_PROG_TYPE_XDP, programs.returning(2), name="an_xdp")
        )
        raw = rawbpf.at(site)
        first = stack.enter_context(raw.create(one))
        raw.attach(two)
        last = stack.enter_context(raw.create(three))
        defunct = stack.enter_context(raw.create(other))
        defunct.detach()
        yield Stage(site, raw, one, two, three, spare, other, an_xdp, first, last, defunct)


Request = Callable[[Stage], object]

CREATE: dict[str, tuple[int, Request]] = {
    "revision": (errno.ESTALE, lambda s: s.raw.create(s.spare, revision=99)),
    "there already": (errno.EEXIST, lambda s: s.raw.create(s.two)),
    "there by another link": (errno.EEXIST, lambda s: s.raw.create(s.one)),
    "there, before its own link": (
        errno.EEXIST,
        lambda s: s.raw.create(s.one, BEFORE | LINK | ID, relative=s.first.id),
    ),
    "replace": (errno.ENOENT, lambda s: s.raw.create(s.spare, REPLACE)),
    "replace at a place": (
        errno.ENOENT,
        lambda s: s.raw.create(s.spare, REPLACE | AFTER | LINK, relative=s.first),
    ),
    "replace a link": (
        errno.ENOENT,
        lambda s: s.raw.create(s.spare, REPLACE | LINK, relative=s.first),
    ),
    "relative not in the chain": (
        errno.ENOENT,
        lambda s: s.raw.create(s.spare, BEFORE, relative=s.other),
    ),
    "before itself": (errno.ENOENT, lambda s: s.raw.create(s.spare, BEFORE, relative=s.spare)),
    "relative link that is defunct": (
        errno.ENOENT,
        lambda s: s.raw.create(s.spare, AFTER | LINK, relative=s.defunct),
    ),
    "no link of that id": (
        errno.ENOENT,
        lambda s: s.raw.create(s.spare, BEFORE | LINK | ID, relative=NO_ID),
    ),
    "no program of id 0": (errno.ENOENT, lambda s: s.raw.create(s.spare, AFTER | ID)),
    "before and after": (errno.ERANGE, lambda s: s.raw.create(s.spare, BEFORE | AFTER)),
    "before and after of one": (
        errno.ERANGE,
        lambda s: s.raw.create(s.spare, BEFORE | AFTER, relative=s.two),
    ),
    "relative without a position": (errno.EINVAL, lambda s: s.raw.create(s.spare, relative=s.two)),
    "id without a position": (errno.EINVAL, lambda s: s.raw.create(s.spare, ID, relative=s.two.id)),
    "link without a position": (
        errno.EINVAL,
        lambda s: s.raw.create(s.spare, LINK, relative=s.first),
    ),
    "link without a descriptor": (errno.EINVAL, lambda s: s.raw.create(s.spare, LINK)),
    "a program where a link is said": (
        errno.EINVAL,
        lambda s: s.raw.create(s.spare, BEFORE | LINK, relative=s.two),
    ),
    "a link where a program is said": (
        errno.EINVAL,
        lambda s: s.raw.create(s.spare, AFTER, relative=s.first),
    ),
    "an unknown flag alone": (errno.EINVAL, lambda s: s.raw.create(s.spare, UNKNOWN)),
    "allow_multi alone": (errno.EINVAL, lambda s: s.raw.create(s.spare, BPF_F_ALLOW_MULTI)),
    "preorder alone": (errno.EINVAL, lambda s: s.raw.create(s.spare, BPF_F_PREORDER)),
    "another type": (errno.EINVAL, lambda s: s.raw.create(s.an_xdp)),
    "no descriptor": (errno.EBADF, lambda s: s.raw.create(NO_FD)),
    "a relative that is no descriptor": (
        errno.EBADF,
        lambda s: s.raw.create(s.spare, AFTER, relative=NO_FD),
    ),
}

UPDATE: dict[str, tuple[int, Request]] = {
    "elsewhere in the chain": (errno.EEXIST, lambda s: link_update(s.first, s.two)),
    "another link's program": (errno.EEXIST, lambda s: link_update(s.first, s.three)),
    "another old program": (
        errno.EPERM,
        lambda s: link_update(s.first, s.spare, s.two, REPLACE),
    ),
    "the same program, another old one": (
        errno.EPERM,
        lambda s: link_update(s.first, s.one, s.two, REPLACE),
    ),
    "old, then elsewhere in the chain": (
        errno.EPERM,
        lambda s: link_update(s.first, s.two, s.three, REPLACE),
    ),
    "an old program without the flag": (
        errno.EINVAL,
        lambda s: link_update(s.first, s.spare, s.one),
    ),
    "the flag without an old program": (
        errno.EBADF,
        lambda s: link_update(s.first, s.spare, NO_FD, REPLACE),
    ),
    "before": (errno.EINVAL, lambda s: link_update(s.first, s.spare, flags=BEFORE)),
    "an unknown flag": (errno.EINVAL, lambda s: link_update(s.first, s.spare, flags=UNKNOWN)),
    "another type": (errno.EINVAL, lambda s: link_update(s.first, s.an_xdp)),
    "a program in the link's place": (errno.EINVAL, lambda s: link_update(s.two, s.spare)),
    "no descriptor of a link": (errno.EBADF, lambda s: link_update(NO_FD, s.spare)),
    "no descriptor of a program": (errno.EBADF, lambda s: link_update(s.first, NO_FD)),
    "defunct": (errno.ENOLINK, lambda s: link_update(s.defunct, s.spare)),
    "defunct, its own program": (errno.ENOLINK, lambda s: link_update(s.defunct, s.other)),
    "defunct, then old": (
        errno.ENOLINK,
        lambda s: link_update(s.defunct, s.spare, s.one, REPLACE),
    ),
}


@pytest.mark.parametrize("what", CREATE)
def test_create_refused(stage: Stage, what: str) -> None:
    refused(stage, *CREATE[what])


@pytest.mark.parametrize("what", UPDATE)
def test_update_refused(stage: Stage, what: str) -> None:
    refused(stage, *UPDATE[what])


def refused(stage: Stage, number: int, request: Request) -> None:
    before = stage.raw.query()
    with pytest.raises(OSError) as caught:
        request(stage)
    assert errno.errorcode[caught.value.errno or 0] == errno.errorcode[number]
    assert stage.raw.query() == before, "a refusal changes nothing, the revision included"
    assert before.progs == [stage.one.id, stage.two.id, stage.three.id]


@pytest.mark.parametrize("flags", [UNKNOWN, BPF_F_ALLOW_MULTI, BPF_F_PREORDER])
def test_an_unknown_flag_beside_a_position_is_ignored(stage: Stage, flags: int) -> None:
    # BPF_LINK_CREATE does not mask its flags for tcx and netkit (kernel/bpf/syscall.c).
    with stage.raw.create(stage.spare, BEFORE | flags, relative=stage.two) as link:
        assert stage.raw.query().links == [stage.first.id, link.id, 0, stage.last.id]


@pytest.mark.parametrize("by", ["program", "program id", "link", "link id"])
@pytest.mark.parametrize("flag", [BEFORE, AFTER])
def test_each_way_to_name_a_neighbour(stage: Stage, by: str, flag: int) -> None:
    flags, relative = {
        "program": (flag, stage.three.fileno()),
        "program id": (flag | ID, stage.three.id),
        "link": (flag | LINK, stage.last.fileno()),
        "link id": (flag | LINK | ID, stage.last.id),
    }[by]
    there = 2 if flag == BEFORE else 3
    with stage.raw.create(stage.spare, flags, relative=relative) as link:
        assert stage.raw.query().links.index(link.id) == there
    stage.raw.attach(stage.spare, flags, relative=relative)
    assert stage.raw.query().progs.index(stage.spare.id) == there
    stage.raw.detach(stage.spare, flags, relative=relative)
    assert stage.spare.id not in stage.raw.query().progs


def test_an_update_to_itself_is_no_change(stage: Stage) -> None:
    before = stage.raw.query()
    link_update(stage.first, stage.one)
    link_update(stage.first, stage.one, stage.one, REPLACE)
    assert stage.raw.query() == before


def test_an_update_raises_the_revision(stage: Stage) -> None:
    before = stage.raw.query().revision
    link_update(stage.first, stage.spare, stage.one, REPLACE)
    changed = stage.raw.query()
    assert (changed.revision, changed.progs[0]) == (before + 1, stage.spare.id)
    assert changed.links[0] == stage.first.id
    link_update(stage.first, stage.one)
    assert stage.raw.query().revision == before + 2


def test_a_link_has_no_revision_guard(stage: Stage) -> None:
    """BPF_LINK_UPDATE and BPF_LINK_DETACH take none: bytes beyond their attributes are refused."""
    for command, attr in (
        (uapi.BPF_LINK_UPDATE, uapi.LinkUpdateAttr(link_fd=stage.first.fileno())),
        (uapi.BPF_LINK_DETACH, uapi.LinkDetachAttr(link_fd=stage.first.fileno())),
    ):
        longer = uapi.ProgAttachAttr.from_buffer_copy(
            bytes(attr).ljust(len(bytes(uapi.ProgAttachAttr())), b"\0")
        )
        longer.expected_revision = 1
        with pytest.raises(OSError) as caught:
            libc.bpf(command, longer)
        assert caught.value.errno == errno.EINVAL
    assert stage.raw.query().links[0] == stage.first.id


def test_detaching_what_is_defunct_succeeds(stage: Stage) -> None:
    before = stage.raw.query()
    for _ in range(2):
        syscall.link_detach(stage.defunct.fileno())
    assert stage.raw.query() == before
    info = stage.defunct.info()
    assert (info.defunct, info.prog_id) == (True, stage.other.id)


def test_detaching_no_link(stage: Stage) -> None:
    for given, number in ((stage.one.fileno(), errno.EINVAL), (NO_FD, errno.EBADF)):
        with pytest.raises(OSError) as caught:
            syscall.link_detach(given)
        assert caught.value.errno == number
