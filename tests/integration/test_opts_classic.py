"""tcx beside clsact: which of both sees a packet, by what tcx programs return."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netbpf import Program, loader
from netbpf.bpf.link import Link
from tests.netns_fixtures import clsact as clsacts
from tests.netns_fixtures import programs
from tests.netns_fixtures.clsact import Clsact
from tests.netns_fixtures.hooks import Site, Tracers
from tests.netns_fixtures.namespaces import run

Load = Callable[..., Program]

pytestmark = [
    pytest.mark.needs("tcx"),
    pytest.mark.parametrize("site", ["tcx-ingress", "tcx-egress"], indirect=True),
]


@pytest.fixture
def tracers(compiled: Callable[[str], Path]) -> Iterator[Tracers]:
    with loader.open(compiled("trace")) as obj:
        obj.load()
        yield Tracers(obj)


@pytest.fixture
def clsact(site: Site, bpffs: Path) -> Iterator[Clsact]:
    with clsacts.clsact(site, bpffs) as made:
        yield made


def attached(site: Site, prog: Program) -> Link:
    link = site.attach(prog).link
    assert link is not None
    return link


@pytest.mark.parametrize("link", [True, False])
def test_tcx_first_then_cls_bpf(site: Site, tracers: Tracers, clsact: Clsact, link: bool) -> None:
    clsact.add(tracers["three"])
    assert tracers.order(site) == [3]
    one = site.attach(tracers["one"], link=link)
    two = site.attach(tracers["two"], link=link)
    assert tracers.order(site) == [1, 2, 3]
    site.call("detach", tracers["two"])
    assert tracers.order(site) == [1, 3]
    site.call("detach", tracers["one"])
    assert tracers.order(site) == [3]
    assert site.chain().entries == ()
    for each in (one, two):
        if each.link is not None:
            each.link.close()


@pytest.mark.parametrize("code", [programs.PASS, programs.DROP, programs.REDIRECT])
def test_a_verdict_ends_the_chain_and_cls_bpf(
    site: Site, tracers: Tracers, clsact: Clsact, load: Load, code: int
) -> None:
    """An update to one that goes on lets cls_bpf see the packets, and a detach too."""
    clsact.add(tracers["three"])
    site.attach(tracers["one"], link=False)
    assert site.passes(), "the neighbour is known"
    with attached(site, load(code)) as link:
        site.attach(tracers["two"], link=False)
        tracers.obj.set("trace.count", 0)
        # REDIRECT without a word where to is a packet for nowhere.
        assert site.arrived(1, timeout=0.2) == (1 if code == programs.PASS else 0)
        assert seen(tracers) == [1]
        site.call("update", link, load(programs.NEXT))
        assert tracers.order(site) == [1, 2, 3]
        link.detach()
        assert tracers.order(site) == [1, 2, 3]


def test_any_other_code_skips_the_rest_and_goes_on_to_cls_bpf(
    site: Site, tracers: Tracers, clsact: Clsact, load: Load
) -> None:
    # net/core/dev.c: tcx_run leaves its loop, and tcx_action_code makes NEXT of it.
    others = {code: load(code) for code in (1, 3, 4, 5, 6, 8, 100)}
    site.attach(tracers["one"], link=False)
    with attached(site, load(programs.NEXT)) as link:
        site.attach(tracers["two"], link=False)
        for code, prog in others.items():
            link.update(prog)
            assert tracers.order(site) == [1], f"after {code} the packet arrives"
        clsact.add(tracers["three"])
        for code, prog in others.items():
            link.update(prog)
            assert tracers.order(site) == [1, 3], f"after {code} the filter sees it"


@pytest.mark.parametrize("first", ["qdisc", "links"])
def test_each_outlives_the_other(site: Site, tracers: Tracers, clsact: Clsact, first: str) -> None:
    clsact.add(tracers["three"])
    with attached(site, tracers["one"]), attached(site, tracers["two"]) as two:
        two.detach()
        revision = site.chain().revision
        if first == "qdisc":
            clsact.tc("qdisc", "del", "dev", site.device, "clsact")
            assert site.chain().revision == revision
            assert tracers.order(site) == [1]
    if first == "links":
        assert tracers.order(site) == [3]
        clsact.tc("qdisc", "del", "dev", site.device, "clsact")
    assert site.chain().entries == ()
    assert tracers.order(site) == []
    site.attach(tracers["one"], link=False, expected_revision=1)
    assert tracers.order(site) == [1]


def test_a_device_goes_with_both(site: Site, tracers: Tracers, clsact: Clsact) -> None:
    clsact.add(tracers["three"])
    with attached(site, tracers["one"]) as one, attached(site, tracers["two"]) as two:
        run(site.ns, ["ip", "link", "del", site.device])
        assert one.info().defunct
        assert two.info().defunct


def seen(tracers: Tracers) -> list[int]:
    return list(tracers.obj.get("trace.order")[: tracers.obj.get("trace.count")])
