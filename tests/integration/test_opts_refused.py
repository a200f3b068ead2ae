"""What netbpf says when the kernel refuses a change to a chain: the condition that held."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from netbpf import Program
from netbpf.bpf import prog, uapi
from netbpf.bpf.link import Link
from netbpf.errors import BpfError, NetbpfError, NotFoundError, StaleRevisionError
from netbpf.netns import entered
from tests.netns_fixtures import programs, rawbpf
from tests.netns_fixtures.cli import netbpf
from tests.netns_fixtures.hooks import Site
from tests.netns_fixtures.namespaces import run

Load = Callable[..., Program]


@pytest.fixture
def links() -> Iterator[ExitStack]:
    """Closes the links that a test hands it."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def an_xdp() -> Iterator[Program]:
    """A program of another type."""
    with prog.load(uapi.BPF_PROG_TYPE_XDP, programs.returning(2), name="an_xdp") as loaded:
        yield loaded


def linked(site: Site, links: ExitStack, program: Program) -> Link:
    link = site.attach(program).link
    assert link is not None
    return links.enter_context(link)


def place(site: Site, verb: str) -> list[object]:
    return ["-j", site.noun, verb, "-n", site.ns.name, site.device, site.hook]


@pytest.mark.parametrize("link", [True, False])
def test_stale(site: Site, load: Load, link: bool) -> None:
    one, two = load(programs.NEXT, "one"), load(programs.NEXT, "two")
    site.attach(one, link=False)
    with pytest.raises(StaleRevisionError) as caught:
        site.attach(two, link=link, expected_revision=7)
    error = caught.value
    assert (error.errno, error.code) == (errno.ESTALE, "stale_revision")
    assert (error.expected, error.current) == (7, 2)
    assert f"attach to {site.device} {site.hook}: the chain is not at revision 7" in str(error)
    assert "look at the chain again" in str(error)
    result = netbpf(*place(site, "attach"), f"id:{two.id}", "--expected-revision", 7)
    assert (result.status, result.error["errno"]) == (5, "ESTALE")
    for verb in ("detach", "update"):
        rest = [f"id:{two.id}"] if verb == "update" else []
        result = netbpf(*place(site, verb), f"id:{one.id}", *rest, "--expected-revision", 7)
        assert (result.status, result.error["code"]) == (5, "stale_revision")


def test_there_already(site: Site, load: Load, links: ExitStack) -> None:
    one, two = load(programs.NEXT, "one"), load(programs.NEXT, "two")
    site.attach(one, link=False)
    link = linked(site, links, two)
    where = f"{site.device} {site.hook}"
    for program, position in ((one, 0), (two, 1)):
        for by_link in (True, False):
            for position_of in ({}, {"first": True}, {"after": two}):
                with pytest.raises(BpfError) as caught:
                    site.attach(program, link=by_link, **position_of)
                assert caught.value.code == "exists"
                assert str(caught.value) == (
                    f"attach to {where}: already in the chain at position {position} (EEXIST): "
                    "load it again to run it twice"
                )
    with pytest.raises(BpfError, match="already in the chain at position 1") as caught:
        site.call("update", one, two)
    assert caught.value.errno == errno.EEXIST
    with pytest.raises(BpfError, match="already in the chain at position 0"):
        site.call("update", link, one)
    with pytest.raises(BpfError, match="in the chain already"):
        link.update(one)
    result = netbpf(*place(site, "attach"), f"id:{one.id}", "--no-link")
    assert (result.status, result.error["errno"]) == (5, "EEXIST")


def test_not_there(site: Site, load: Load) -> None:
    one, spare = load(programs.NEXT, "one"), load(programs.NEXT, "spare")
    site.attach(one, link=False)
    for target in (spare, "name:spare", f"id:{spare.id}"):
        for call in (
            lambda t=target: site.call("detach", t),  # type: ignore[misc]
            lambda t=target: site.call("update", t, spare),  # type: ignore[misc]
            lambda t=target: site.attach(spare, replace=t, link=False),  # type: ignore[misc]
            lambda t=target: site.attach(spare, before=t),  # type: ignore[misc]
            lambda t=target: site.attach(spare, after=t, link=False),  # type: ignore[misc]
        ):
            with pytest.raises(NotFoundError, match=r"no program .* in the chain"):
                call()
    with pytest.raises(NotFoundError, match="no link link:4294967294 in the chain"):
        site.call("detach", "link:4294967294")
    result = netbpf(*place(site, "detach"), f"id:{spare.id}")
    assert (result.status, result.error["code"]) == (1, "not_found")


def test_a_links_place(site: Site, load: Load, links: ExitStack) -> None:
    one, two = load(programs.NEXT, "one"), load(programs.NEXT, "two")
    linked(site, links, one)
    with pytest.raises(BpfError) as caught:
        site.attach(two, replace=one, link=False)
    assert (caught.value.errno, caught.value.code) == (errno.EBUSY, "busy")
    assert "a link owns that place" in str(caught.value)
    assert "update it instead" in str(caught.value)
    result = netbpf(*place(site, "attach"), f"id:{two.id}", "--replace", f"id:{one.id}")
    assert (result.status, result.error["errno"]) == (5, "EBUSY")


def test_positions_that_disagree(site: Site, load: Load) -> None:
    one, two, three = (load(programs.NEXT, name) for name in ("one", "two", "three"))
    for each in (one, two):
        site.attach(each, link=False)
    for where in ({"before": one}, {"after": two}, {"before": two}, {"after": one}):
        replace = two if where in ({"before": one}, {"before": two}) else one
        with pytest.raises(BpfError) as caught:
            site.attach(three, replace=replace, link=False, **where)
        assert (caught.value.errno, caught.value.code) == (errno.ERANGE, "position")
    result = netbpf(
        *place(site, "attach"), f"id:{three.id}", "--replace", "name:two", "--before", "name:one"
    )
    assert (result.status, result.error["errno"]) == (1, "ERANGE")


def test_another_type(site: Site, load: Load, an_xdp: Program, links: ExitStack) -> None:
    one, two = load(programs.NEXT, "one"), load(programs.NEXT, "two")
    site.attach(one, link=False)
    link = linked(site, links, two)
    calls: list[Callable[[], object]] = [
        lambda: site.attach(an_xdp),
        lambda: site.attach(an_xdp, link=False),
        lambda: site.attach(an_xdp, before=one),
        lambda: site.attach(an_xdp, after=two, link=False),
        lambda: site.attach(an_xdp, replace=one, link=False),
        lambda: site.call("update", one, an_xdp),
        lambda: site.call("update", link, an_xdp),
    ]
    for call in calls:
        with pytest.raises(BpfError) as caught:
            call()
        assert (caught.value.errno, caught.value.code) == (errno.EINVAL, "wrong_program_type")
        assert "runs programs of type sched_cls, and an_xdp is of type xdp" in str(caught.value)
    with pytest.raises(BpfError, match="another type than the one in its place"):
        link.update(an_xdp)
    assert site.ids() == [one.id, two.id]


def test_a_link_that_is_defunct(site: Site, load: Load, links: ExitStack) -> None:
    one, two = load(programs.NEXT, "one"), load(programs.NEXT, "two")
    link = linked(site, links, one)
    link.detach()
    with pytest.raises(BpfError) as caught:
        link.update(two)
    assert (caught.value.errno, caught.value.code) == (errno.ENOLINK, "defunct_link")
    assert "defunct: its device is gone or it was detached" in str(caught.value)
    with pytest.raises(NotFoundError, match=r"no link .* in the chain"):
        site.call("update", link, two)
    with pytest.raises(NotFoundError, match=r"no link .* in the chain"):
        site.call("detach", link)


def test_the_old_program_that_is_not(site: Site, load: Load, links: ExitStack) -> None:
    one, two, three = (load(programs.NEXT, name) for name in ("one", "two", "three"))
    link = linked(site, links, one)
    with pytest.raises(BpfError) as caught:
        link.update(three, old=two)
    assert (caught.value.errno, caught.value.code) == (errno.EPERM, "replaced_meanwhile")
    assert "another program took the place meanwhile" in str(caught.value)
    link.update(three, old=one)
    link.update(three, old=three)
    assert site.ids() == [three.id]


def test_a_device_that_is_gone(site: Site, load: Load, links: ExitStack) -> None:
    one = load(programs.NEXT, "one")
    linked(site, links, one)
    run(site.ns, ["ip", "link", "del", site.device])
    calls: list[Callable[[], object]] = [
        site.chain,
        lambda: site.attach(one),
        lambda: site.attach(one, link=False),
        lambda: site.call("detach", one),
        lambda: site.call("update", one, one),
    ]
    for call in calls:
        with pytest.raises(NotFoundError, match=f"no device ifindex {site.ifindex}"):
            call()
    result = netbpf(*place(site, "attach"), f"id:{one.id}")
    assert (result.status, result.error["code"]) == (1, "not_found")
    assert site.device in result.error["message"]


def test_a_descriptor_that_is_closed(site: Site, load: Load) -> None:
    # Before the kernel sees a number that may mean something else by now.
    one = programs.load_returning(programs.NEXT, "one")
    one.close()
    for link in (True, False):
        with pytest.raises((ValueError, NetbpfError)):
            site.attach(one, link=link)
    assert rawbpf.at(site).query().count == 0


def test_an_ifindex_that_cannot_be(site: Site, load: Load) -> None:
    one, two = load(programs.NEXT, "one"), load(programs.NEXT, "two")
    site.attach(two, link=False)
    for number in (0, -1, 2**31, 2**32 + site.ifindex):
        calls: list[Callable[..., object]] = [
            lambda *place: site.hooks.chain(*place),
            lambda *place: site.hooks.attach(*place, one),
            lambda *place: site.hooks.attach(*place, one, link=False),
            lambda *place: site.hooks.attach(*place, one, before=two),
            lambda *place: site.hooks.detach(*place, two),
            lambda *place: site.hooks.update(*place, two, one),
        ]
        for call in calls:
            with entered(site.ns), pytest.raises(ValueError, match="ifindex"):
                call(number, site.hook)
    assert site.ids() == [two.id]
