"""What may be done to a chain without any capability: who holds the descriptors may change it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest

from netbpf import Program, libc
from netbpf.bpf import syscall, uapi
from netbpf.bpf.macros import BPF_F_AFTER, BPF_F_BEFORE, BPF_F_ID, BPF_F_LINK, BPF_F_REPLACE
from netbpf.errors import BpfError
from tests.netns_fixtures import programs, rawbpf
from tests.netns_fixtures.hooks import Site
from tests.netns_fixtures.rawbpf import Raw, link_update
from tests.netns_fixtures.rawprocess import without_capabilities

Load = Callable[..., Program]

CLONE_NEWUSER = 0x10000000


def as_nobody(site: Site, part: Callable[[Raw], Any]) -> Any:
    """What ``part`` returns as nobody, standing in the site's namespace; ``True`` for None."""
    raw = Raw(None, site.hooks.hook(site.hook), site.ifindex)

    def capable_of_nothing() -> Any:
        with open("/proc/thread-self/status") as status:
            assert "CapEff:\t0000000000000000\n" in status.read()
        result = part(raw)
        return True if result is None else result

    return without_capabilities(
        capable_of_nothing, lambda: libc.setns(site.ns.fileno(), libc.CLONE_NEWNET)
    )


def names(call: Callable[[], object]) -> str:
    """The errno that ``call`` is refused with."""
    try:
        call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def test_programs_by_their_descriptors(site: Site, load: Load) -> None:
    one, two, three = (load(programs.NEXT, name) for name in ("one", "two", "three"))

    def part(raw: Raw) -> None:
        raw.attach(one)
        raw.attach(two, BPF_F_BEFORE, relative=one, revision=2)
        raw.attach(three, BPF_F_REPLACE, replace=one)
        raw.detach(two, revision=4)

    assert as_nobody(site, part) is True
    assert site.ids() == [three.id]
    assert site.chain().revision == 5


def test_neighbours_by_id_are_found_by_the_kernel(site: Site, load: Load) -> None:
    one, two, three = (load(programs.NEXT, name) for name in ("one", "two", "three"))
    raw = rawbpf.at(site)
    raw.attach(one)
    with raw.create(two) as link:
        number, link_id = one.id, link.id

        def part(raw: Raw) -> list[str]:
            raw.attach(three, BPF_F_BEFORE | BPF_F_ID, relative=number)
            raw.detach(three, BPF_F_BEFORE | BPF_F_ID, relative=number)
            raw.attach(three, BPF_F_AFTER | BPF_F_LINK | BPF_F_ID, relative=link_id)
            by_id = (uapi.BPF_PROG_GET_FD_BY_ID, number), (uapi.BPF_LINK_GET_FD_BY_ID, link_id)
            return [names(lambda c=cmd, n=n: syscall.get_fd_by_id(c, n)) for cmd, n in by_id]  # type: ignore[misc]

        assert as_nobody(site, part) == ["EPERM", "EPERM"], "a descriptor by id it does not get"
        assert site.ids() == [one.id, two.id, three.id]


def test_links_by_their_descriptors(site: Site, load: Load) -> None:
    one, two = load(programs.NEXT, "one"), load(programs.NEXT, "two")
    with rawbpf.at(site).create(one) as held:

        def part(raw: Raw) -> int:
            link_update(held, two, one, BPF_F_REPLACE)
            with raw.create(one, BPF_F_BEFORE) as link:
                syscall.link_detach(link.fileno())
            syscall.link_detach(held.fileno())
            return held.info().prog_id

        assert as_nobody(site, part) == two.id
        assert held.info().defunct
    assert site.chain().entries == ()


def test_what_needs_net_admin(site: Site, load: Load) -> None:
    one = load(programs.NEXT, "one")
    rawbpf.at(site).attach(one)

    def part(raw: Raw) -> list[str]:
        return [
            errno.errorcode[raw.query().errno],
            errno.errorcode[raw.query(ids=False).errno],
            names(raw.detach),
            names(lambda: raw.detach(0, BPF_F_BEFORE)),
            names(lambda: raw.detach(0, BPF_F_AFTER, relative=one)),
            names(lambda: raw.detach(one)),
        ]

    assert as_nobody(site, part) == [*["EPERM"] * 5, "done"]


def test_what_netbpf_says_of_a_chain(site: Site, load: Load) -> None:
    one, two = load(programs.NEXT, "one"), load(programs.NEXT, "two")
    site.attach(one, link=False)
    place = (site.ifindex, site.hook)

    def part(_: Raw) -> list[str]:
        said = []
        calls: list[Callable[[], object]] = [
            lambda: site.hooks.chain(*place),
            lambda: site.hooks.attach(*place, two, before="name:one"),
            lambda: site.hooks.detach(*place, one),
            lambda: site.hooks.update(*place, one, two),
        ]
        for call in calls:
            try:
                call()
            except BpfError as error:
                assert error.code == "not_permitted"
                said.append(str(error))
        return said

    said = as_nobody(site, part)
    assert len(said) == 4
    assert all("not permitted" in text and "CAP_NET_ADMIN" in text for text in said), said
    assert site.ids() == [one.id]


@pytest.mark.parametrize("link", [True, False])
def test_netbpf_leaves_nothing_where_it_may_not_read(site: Site, load: Load, link: bool) -> None:
    """Attaching asks for no capability, and reading the chain afterwards does."""
    one = load(programs.NEXT, "one")
    place = (site.ifindex, site.hook)

    def part(_: Raw) -> str:
        try:
            placed = site.hooks.attach(*place, one, link=link)
        except BpfError as error:
            return str(error)
        if placed.link is not None:
            placed.link.close()
        return f"attached at {placed.position}"

    said = as_nobody(site, part)
    if said.startswith("attached"):
        assert link or site.ids() == [one.id]
    else:
        assert site.ids() == [], f"it said: {said}"


def test_another_user_namespaces_root_is_not_enough(site: Site, load: Load) -> None:
    """CAP_NET_ADMIN has to be had in the initial user namespace (bpf_net_capable)."""
    rawbpf.at(site).attach(load(programs.NEXT, "one"))

    def part(raw: Raw) -> str:
        libc.unshare(CLONE_NEWUSER)
        with open("/proc/thread-self/status") as status:
            assert "CapEff:\t0000000000000000\n" not in status.read()
        return errno.errorcode[raw.query().errno]

    assert as_nobody(site, part) == "EPERM"
