"""Attaching without any capability: what is held open may be attached, where it can be named."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable

import pytest

from netbpf import Program
from netbpf.errors import BpfError
from netbpf.netns import entered
from tests.netns_fixtures import programs
from tests.netns_fixtures.hooks import Site

Load = Callable[..., Program]


def as_nobody(site: Site, do: Callable[[], None]) -> None:
    """Do it in the site's namespace, in a process that has no capability."""
    child = os.fork()
    if child == 0:
        # It ends inside the namespace: without capabilities there is no way back.
        with entered(site.ns):
            status = 1
            try:
                os.setresuid(65534, 65534, 65534)
                do()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_what_is_held_open_is_attached(site: Site, load: Load) -> None:
    one, two, three = (load(programs.NEXT, name) for name in ("one", "two", "three"))
    site.attach(one, link=False)

    def attach() -> None:
        placed = site.hooks.attach(site.ifindex, site.hook, two, before=one, link=False)
        assert (placed.position, placed.revision, placed.prog_id) == (None, 0, two.id)
        placed = site.hooks.attach(site.ifindex, site.hook, three, after=f"id:{two.id}", link=False)
        with pytest.raises(BpfError, match="already in the chain"):
            site.hooks.attach(site.ifindex, site.hook, three, link=False)
        # A name would have to be looked up.
        with pytest.raises(BpfError, match="needs CAP_NET_ADMIN"):
            site.hooks.attach(site.ifindex, site.hook, three, before="name:one", link=False)

    as_nobody(site, attach)
    assert site.ids() == [two.id, three.id, one.id]


def test_what_is_held_open_is_replaced(site: Site, load: Load) -> None:
    one, two = load(programs.NEXT, "one"), load(programs.NEXT, "two")
    site.attach(one, link=False)
    as_nobody(
        site,
        lambda: _none(site.hooks.attach(site.ifindex, site.hook, two, replace=one, link=False)),
    )
    assert site.ids() == [two.id]


def test_a_link_of_ones_own(site: Site, load: Load) -> None:
    one = load(programs.NEXT, "one")

    def attach() -> None:
        with site.hooks.attach(site.ifindex, site.hook, one).link or pytest.fail("no link") as link:
            link.detach()

    as_nobody(site, attach)
    assert site.ids() == []


def _none(value: object) -> None:
    assert value is not None
