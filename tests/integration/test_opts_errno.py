"""The kernel's refusals to attach and detach programs, by raw bpf(2), and what they leave alone.

The conditions are those of kernel/bpf/mprog.c. What netbpf says of them is in test_opts_refused.py.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from netbpf import Program
from netbpf.bpf import map as maps
from netbpf.bpf import prog, uapi
from netbpf.bpf.link import Link
from netbpf.bpf.macros import (
    BPF_F_AFTER,
    BPF_F_ALLOW_MULTI,
    BPF_F_ALLOW_OVERRIDE,
    BPF_F_BEFORE,
    BPF_F_ID,
    BPF_F_LINK,
    BPF_F_PREORDER,
    BPF_F_REPLACE,
)
from tests.netns_fixtures import hooks, programs, rawbpf
from tests.netns_fixtures.hooks import Site
from tests.netns_fixtures.rawbpf import Raw

BEFORE, AFTER, REPLACE = BPF_F_BEFORE, BPF_F_AFTER, BPF_F_REPLACE
ID, LINK = BPF_F_ID, BPF_F_LINK

NO_ID = 2**32 - 2
"""No program and no link has come that far."""
NO_FD = 2**20 - 1


@dataclass(frozen=True)
class Stage:
    """A chain of a program, a link's program and a program, and what is not in it."""

    site: Site
    raw: Raw
    one: Program
    two: Program
    three: Program
    spare: Program
    other: Program
    an_xdp: Program
    link: Link
    away: Link
    """Holds ``other`` at another hook."""
    a_map: int


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(kind, marks=pytest.mark.needs(feature))
        for kind, feature in hooks.SITES.items()
    ],
)
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """One chain for all refusals: none changes it."""
    elsewhere = {
        "tcx-ingress": "egress",
        "tcx-egress": "ingress",
        "netkit-primary": "peer",
        "netkit-peer": "primary",
    }[request.param]
    with hooks.site(request.param) as site, ExitStack() as stack:
        one, two, three, spare, other = (
            stack.enter_context(programs.load_returning(programs.NEXT, name))
            for name in ("one", "two", "three", "spare", "other")
        )
        an_xdp = stack.enter_context(
            prog.load(uapi.BPF_PROG_TYPE_XDP, programs.returning(2), name="an_xdp")
        )
        a_map = stack.enter_context(
            maps.create(uapi.BPF_MAP_TYPE_ARRAY, key_size=4, value_size=4, max_entries=1)
        )
        raw = rawbpf.at(site)
        raw.attach(one)
        link = stack.enter_context(raw.create(two))
        raw.attach(three)
        away = stack.enter_context(
            Raw(site.ns, site.hooks.hook(elsewhere), site.ifindex).create(other)
        )
        yield Stage(site, raw, one, two, three, spare, other, an_xdp, link, away, a_map.fileno())


Request = Callable[[Stage], None]

ATTACH: dict[str, tuple[int, Request]] = {
    "revision": (errno.ESTALE, lambda s: s.raw.attach(s.spare, revision=99)),
    "revision of before": (errno.ESTALE, lambda s: s.raw.attach(s.spare, revision=3)),
    "there already": (errno.EEXIST, lambda s: s.raw.attach(s.one)),
    "there by a link": (errno.EEXIST, lambda s: s.raw.attach(s.two)),
    "there, before itself": (
        errno.EEXIST,
        lambda s: s.raw.attach(s.one, BEFORE, relative=s.one),
    ),
    "there, after itself": (errno.EEXIST, lambda s: s.raw.attach(s.one, AFTER, relative=s.one)),
    "itself for itself": (errno.EEXIST, lambda s: s.raw.attach(s.one, REPLACE, replace=s.one)),
    "one of the chain for another": (
        errno.EEXIST,
        lambda s: s.raw.attach(s.three, REPLACE, replace=s.one),
    ),
    "relative not in the chain, before": (
        errno.ENOENT,
        lambda s: s.raw.attach(s.spare, BEFORE, relative=s.other),
    ),
    "relative not in the chain, after": (
        errno.ENOENT,
        lambda s: s.raw.attach(s.spare, AFTER, relative=s.other),
    ),
    "relative not in the chain, by id": (
        errno.ENOENT,
        lambda s: s.raw.attach(s.spare, AFTER | ID, relative=s.other.id),
    ),
    "relative link at another hook": (
        errno.ENOENT,
        lambda s: s.raw.attach(s.spare, BEFORE | LINK, relative=s.away),
    ),
    "relative link at another hook, by id": (
        errno.ENOENT,
        lambda s: s.raw.attach(s.spare, AFTER | LINK | ID, relative=s.away.id),
    ),
    "before the program itself, which is not there": (
        errno.ENOENT,
        lambda s: s.raw.attach(s.spare, BEFORE, relative=s.spare),
    ),
    "no program of that id": (
        errno.ENOENT,
        lambda s: s.raw.attach(s.spare, BEFORE | ID, relative=NO_ID),
    ),
    "no program of id 0": (errno.ENOENT, lambda s: s.raw.attach(s.spare, BEFORE | ID)),
    "no link of that id": (
        errno.ENOENT,
        lambda s: s.raw.attach(s.spare, AFTER | LINK | ID, relative=NO_ID),
    ),
    "replace what is not in the chain": (
        errno.ENOENT,
        lambda s: s.raw.attach(s.spare, REPLACE, replace=s.other),
    ),
    "replace a link's program": (
        errno.EBUSY,
        lambda s: s.raw.attach(s.spare, REPLACE, replace=s.two),
    ),
    "before and after of nothing": (
        errno.ERANGE,
        lambda s: s.raw.attach(s.spare, BEFORE | AFTER),
    ),
    "before and after of one": (
        errno.ERANGE,
        lambda s: s.raw.attach(s.spare, BEFORE | AFTER, relative=s.two),
    ),
    "replace one before one": (
        errno.ERANGE,
        lambda s: s.raw.attach(s.spare, REPLACE | BEFORE, replace=s.one, relative=s.three),
    ),
    "replace one after one": (
        errno.ERANGE,
        lambda s: s.raw.attach(s.spare, REPLACE | AFTER, replace=s.three, relative=s.one),
    ),
    "replace before and after": (
        errno.ERANGE,
        lambda s: s.raw.attach(s.spare, REPLACE | BEFORE | AFTER, replace=s.one, relative=s.two),
    ),
    "replace the first one, said to be the first": (
        errno.ERANGE,
        lambda s: s.raw.attach(s.spare, REPLACE | BEFORE, replace=s.one),
    ),
    "relative without a position": (
        errno.EINVAL,
        lambda s: s.raw.attach(s.spare, relative=s.one),
    ),
    "relative id without a position": (
        errno.EINVAL,
        lambda s: s.raw.attach(s.spare, ID, relative=s.one.id),
    ),
    "link without a descriptor": (errno.EINVAL, lambda s: s.raw.attach(s.spare, LINK)),
    "link without a descriptor, before": (
        errno.EINVAL,
        lambda s: s.raw.attach(s.spare, BEFORE | LINK),
    ),
    "a program where a link is said": (
        errno.EINVAL,
        lambda s: s.raw.attach(s.spare, BEFORE | LINK, relative=s.one),
    ),
    "a link where a program is said": (
        errno.EINVAL,
        lambda s: s.raw.attach(s.spare, BEFORE, relative=s.link),
    ),
    "relative of another type": (
        errno.EINVAL,
        lambda s: s.raw.attach(s.spare, BEFORE, relative=s.an_xdp),
    ),
    "relative of another type by id": (
        errno.EINVAL,
        lambda s: s.raw.attach(s.spare, AFTER | ID, relative=s.an_xdp.id),
    ),
    "replace of another type": (
        errno.EINVAL,
        lambda s: s.raw.attach(s.spare, REPLACE, replace=s.an_xdp),
    ),
    "replace a link by its descriptor": (
        errno.EINVAL,
        lambda s: s.raw.attach(s.spare, REPLACE, replace=s.link),
    ),
    "allow_override": (errno.EINVAL, lambda s: s.raw.attach(s.spare, BPF_F_ALLOW_OVERRIDE)),
    "allow_multi": (errno.EINVAL, lambda s: s.raw.attach(s.spare, BPF_F_ALLOW_MULTI)),
    "preorder": (errno.EINVAL, lambda s: s.raw.attach(s.spare, BPF_F_PREORDER)),
    "an unknown flag beside a position": (
        errno.EINVAL,
        lambda s: s.raw.attach(s.spare, BEFORE | 1 << 20),
    ),
    "a map": (errno.EINVAL, lambda s: s.raw.attach(s.a_map)),
    "a link": (errno.EINVAL, lambda s: s.raw.attach(s.link)),
    "another type": (errno.EINVAL, lambda s: s.raw.attach(s.an_xdp)),
    "no descriptor": (errno.EBADF, lambda s: s.raw.attach(NO_FD)),
    "a relative that is no descriptor": (
        errno.EBADF,
        lambda s: s.raw.attach(s.spare, BEFORE, relative=NO_FD),
    ),
    "a relative link that is no descriptor": (
        errno.EBADF,
        lambda s: s.raw.attach(s.spare, BEFORE | LINK, relative=NO_FD),
    ),
    "an old program that is no descriptor": (
        errno.EBADF,
        lambda s: s.raw.attach(s.spare, REPLACE, replace=NO_FD),
    ),
    # In the order in which the kernel looks: what comes first is what it says.
    "revision, then there already": (errno.ESTALE, lambda s: s.raw.attach(s.one, revision=99)),
    "there already, then relative": (
        errno.EEXIST,
        lambda s: s.raw.attach(s.one, BEFORE, relative=NO_FD),
    ),
    "relative, then replace": (
        errno.EBADF,
        lambda s: s.raw.attach(s.spare, REPLACE | BEFORE, replace=s.two, relative=NO_FD),
    ),
    "replace, then before": (
        errno.EBUSY,
        lambda s: s.raw.attach(s.spare, REPLACE | BEFORE, replace=s.two, relative=s.other),
    ),
    "before, then after": (
        errno.ENOENT,
        lambda s: s.raw.attach(s.spare, BEFORE | AFTER, relative=s.other),
    ),
}

DETACH: dict[str, tuple[int, Request]] = {
    "revision": (errno.ESTALE, lambda s: s.raw.detach(s.one, revision=99)),
    "revision, nothing named": (errno.ESTALE, lambda s: s.raw.detach(revision=3)),
    "not in the chain": (errno.ENOENT, lambda s: s.raw.detach(s.spare)),
    "at another hook": (errno.ENOENT, lambda s: s.raw.detach(s.other)),
    "relative not in the chain": (
        errno.ENOENT,
        lambda s: s.raw.detach(s.one, BEFORE, relative=s.spare),
    ),
    "nothing named, relative not in the chain": (
        errno.ENOENT,
        lambda s: s.raw.detach(0, AFTER, relative=s.spare),
    ),
    "no program of that id": (
        errno.ENOENT,
        lambda s: s.raw.detach(s.one, BEFORE | ID, relative=NO_ID),
    ),
    "a link's program": (errno.EBUSY, lambda s: s.raw.detach(s.two)),
    "a link's program by its neighbour": (
        errno.EBUSY,
        lambda s: s.raw.detach(0, AFTER, relative=s.one),
    ),
    "positions disagree, before": (
        errno.ERANGE,
        lambda s: s.raw.detach(s.one, BEFORE, relative=s.three),
    ),
    "positions disagree, after": (
        errno.ERANGE,
        lambda s: s.raw.detach(s.one, AFTER, relative=s.two),
    ),
    "after itself": (errno.ERANGE, lambda s: s.raw.detach(s.one, AFTER, relative=s.one)),
    "before and after": (
        errno.ERANGE,
        lambda s: s.raw.detach(0, BEFORE | AFTER, relative=s.two),
    ),
    "the last one, said to be the first": (errno.ERANGE, lambda s: s.raw.detach(s.three, BEFORE)),
    "replace": (errno.EINVAL, lambda s: s.raw.detach(s.one, REPLACE)),
    "replace with an old program": (
        errno.EINVAL,
        lambda s: s.raw.detach(s.one, REPLACE, replace=s.one),
    ),
    "relative without a position": (errno.EINVAL, lambda s: s.raw.detach(0, relative=s.one)),
    "id without a position": (errno.EINVAL, lambda s: s.raw.detach(0, ID, relative=s.one.id)),
    "link without a descriptor": (errno.EINVAL, lambda s: s.raw.detach(s.one, LINK)),
    "relative of another type": (
        errno.EINVAL,
        lambda s: s.raw.detach(s.one, BEFORE, relative=s.an_xdp),
    ),
    "allow_multi": (errno.EINVAL, lambda s: s.raw.detach(s.one, BPF_F_ALLOW_MULTI)),
    "preorder": (errno.EINVAL, lambda s: s.raw.detach(s.one, BPF_F_PREORDER)),
    "no descriptor": (errno.EBADF, lambda s: s.raw.detach(NO_FD)),
    "a relative that is no descriptor": (
        errno.EBADF,
        lambda s: s.raw.detach(s.one, BEFORE, relative=NO_FD),
    ),
    "replace, then revision": (errno.EINVAL, lambda s: s.raw.detach(s.one, REPLACE, revision=99)),
}


@pytest.mark.parametrize("what", ATTACH)
def test_attach_refused(stage: Stage, what: str) -> None:
    refused(stage, *ATTACH[what])


@pytest.mark.parametrize("what", DETACH)
def test_detach_refused(stage: Stage, what: str) -> None:
    refused(stage, *DETACH[what])


def refused(stage: Stage, number: int, request: Request) -> None:
    before = stage.raw.query()
    with pytest.raises(OSError) as caught:
        request(stage)
    assert errno.errorcode[caught.value.errno or 0] == errno.errorcode[number]
    assert stage.raw.query() == before, "a refusal changes nothing, the revision included"
    assert before.progs == [stage.one.id, stage.two.id, stage.three.id]


def test_what_is_replaced_is_named_by_descriptor_only(stage: Stage) -> None:
    # The flag BPF_F_ID is for the relative one. The id is taken for a descriptor, which there
    # is not, or which is something else.
    with pytest.raises(OSError) as caught:
        stage.raw.attach(stage.spare, REPLACE, replace=stage.one.id)
    assert caught.value.errno in (errno.EBADF, errno.EINVAL)
    with pytest.raises(OSError) as caught:
        stage.raw.attach(stage.spare, REPLACE | ID, replace=stage.one)
    assert caught.value.errno == errno.ENOENT, "with the flag, a relative one of id 0"
