"""A dry run foresees what the kernel refuses, in the same words and with the same status."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from netbpf import Program
from netbpf.bpf.mprog_conditions import MAX_PROGRAMS
from tests.netns_fixtures import programs
from tests.netns_fixtures.cli import netbpf, ok
from tests.netns_fixtures.hooks import Site

Load = Callable[..., Program]


def both(site: Site, *options: str) -> dict[str, object]:
    """The refusal of an attach, the same with and without --dry-run."""
    place = ("-n", site.ns.name, site.device, site.hook)
    before = site.chain()
    dry = netbpf("-j", site.noun, "attach", *place, *options, "--dry-run")
    real = netbpf("-j", site.noun, "attach", *place, *options)
    assert (dry.status, dry.error) == (real.status, real.error)
    assert site.chain() == before
    assert real.status in (1, 5)
    return {**real.error, "status": real.status}


@pytest.fixture
def three(site: Site, load: Load) -> list[int]:
    """a, b and c in a chain; c by a pinned link."""
    for name in "ab":
        site.attach(load(programs.NEXT, name), link=False)
    place = ("-n", site.ns.name, site.device, site.hook)
    ok(site.noun, "attach", *place, f"id:{load(programs.NEXT, 'c').id}")
    return site.ids()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--replace", "name:b", "--before", "name:a"), "b .* position 1 .* directly before a"),
        (("--replace", "name:a", "--before", "name:c"), "a .* position 0 .* directly before c"),
        (("--replace", "name:a", "--after", "name:b"), "a .* position 0 .* directly after b"),
        (("--replace", "name:a", "--before", "name:a"), "directly before a"),
    ],
)
def test_positions_that_disagree(
    site: Site, three: list[int], options: tuple[str, ...], words: str
) -> None:
    error = both(site, "builtin:pass", "--no-link", *options)
    assert (error["status"], error["errno"], error["code"]) == (1, "ERANGE", "position")

    assert re.search(words, str(error["message"]))


def test_positions_that_agree(site: Site, three: list[int]) -> None:
    place = ("-n", site.ns.name, site.device, site.hook)
    first = ok(
        site.noun, "attach", *place, "builtin:next", "--replace", "name:a", "--before", "name:b"
    )["attached"]
    assert (first["position"], site.ids()[0], site.ids()[1:]) == (
        0,
        first["prog"]["id"],
        three[1:],
    )
    second = ok(
        site.noun, "attach", *place, "builtin:count", "--replace", "name:b", "--after", "name:next"
    )["attached"]
    assert (second["position"], site.ids()[2]) == (1, three[2])


def test_a_place_of_a_link(site: Site, three: list[int]) -> None:
    error = both(site, "builtin:pass", "--replace", "name:c")
    assert (error["status"], error["errno"]) == (5, "EBUSY")
    assert "update it instead" in str(error["hint"])


def test_a_program_that_is_there(site: Site, three: list[int]) -> None:
    error = both(site, f"id:{three[1]}", "--no-link")
    assert (error["status"], error["errno"]) == (5, "EEXIST")
    assert "already in the chain at position 1" in str(error["message"])


def test_a_full_chain(site: Site, load: Load) -> None:
    for _ in range(MAX_PROGRAMS):
        site.attach(load(programs.NEXT), link=False)
    error = both(site, "builtin:pass")
    assert (error["status"], error["code"]) == (1, "chain_full")
    assert not site.own_pins()


def test_an_update(site: Site, three: list[int]) -> None:
    place = ("-n", site.ns.name, site.device, site.hook)
    for options in (("name:a", f"id:{three[1]}"), ("name:c", f"id:{three[0]}")):
        dry = netbpf("-j", site.noun, "update", *place, *options, "--dry-run")
        real = netbpf("-j", site.noun, "update", *place, *options)
        assert (dry.status, dry.error) == (real.status, real.error)
        assert (real.status, real.error["errno"]) == (5, "EEXIST")
    assert site.ids() == three
