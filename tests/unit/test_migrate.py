"""What migrating plans without a kernel: marks in pins' names, and places among filters."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netbpf.bpf.pin_name import OwnName, name_for, name_for_netns
from netbpf.errors import ConflictError
from netbpf.netlink.filters import ETH_P_ALL, Filter
from netbpf.tcx import migrate_plan
from netbpf.tcx.migrate_plan import mark, marked

PRIORITIES = st.integers(1, 0xFFFF)
FEW = st.integers(1, 6)


def a_filter(priority: int, handle: int, name: str | None = None, **more: object) -> Filter:
    plain = Filter(5, "ingress", "bpf", ETH_P_ALL, priority, 0, handle, name=name)
    return replace(plain, direct_action=True, **more)  # type: ignore[arg-type]


def pin_of(origin: Filter) -> str:
    hook = mark("ingress", origin)
    return name_for(4026531840, "d" * 15, 2**31 - 1, hook, "p" * 15, 2**32 - 1)


@given(PRIORITIES, st.integers(1, 2**32 - 1), st.text(max_size=90), st.booleans())
def test_a_pins_name_says_which_filter_it_was(
    priority: int, handle: int, name: str, skip_hw: bool
) -> None:
    name = name.replace("\0", "")
    origin = a_filter(priority, handle, name or None, skip_hw=skip_hw)
    path = pin_of(origin)
    # A move adds "-new" for a moment.
    assert len(path) + len("-new") <= 255
    assert "." not in path and "/" not in path
    parsed = OwnName.parse(path)
    assert parsed is not None and parsed.device == "d" * 15, "gc and others know it too"
    found = marked(f"/sys/fs/bpf/netbpf/{path}", 5, "ingress")
    assert found is not None
    kept = len(name.encode(errors="surrogateescape")) <= 70
    assert found == (origin if kept else replace(origin, name=None))


@pytest.mark.parametrize(
    "name",
    [
        name_for(4026531840, "eth0", 2, "ingress", "prog_clsact-1-1", 7),
        name_for(4026531840, "eth0_ingress-clsact-1-1", 2, "ingress", "prog", 7),
        "net1_eth0_2_ingress-clsact-1_prog_7",
        "net1_eth0_2_ingress-clsact-1-g_prog_7",
        "net1_eth0_2_ingress-clsact-1-1-abc_prog_7",
        "ingress-clsact-1-1",
        "",
    ],
)
def test_no_other_name_is_taken_for_one(name: str) -> None:
    assert marked(f"/sys/fs/bpf/netbpf/{name}", 5, "ingress") is None


def run_order(there: list[Filter], made: list[Filter]) -> list[Filter]:
    """The order in which the kernel runs filters, once those made are added, the last one first."""
    order = list(there)
    for each in reversed(made):
        same = [f for f in order if f.priority == each.priority]
        assert all((f.kind, f.protocol) == (each.kind, each.protocol) for f in same)
        assert all(f.handle != each.handle for f in same)
        at = next((i for i, f in enumerate(order) if f.priority >= each.priority), len(order))
        order.insert(at, each)
    return order


@given(
    st.lists(st.tuples(FEW, FEW), max_size=6),
    st.lists(st.tuples(FEW, FEW, st.sampled_from(["all", "ip", "u32"])), max_size=6),
)
def test_places_keep_the_order_before_those_that_are_there(
    wanted: list[tuple[int, int]], present: list[tuple[int, int, str]]
) -> None:
    kinds = {priority: kind for priority, _, kind in present}
    numbers = {(priority, handle) for priority, handle, _ in present}
    there = [
        a_filter(priority, handle)
        if kinds[priority] == "all"
        else replace(a_filter(priority, handle), protocol=0x0800)
        if kinds[priority] == "ip"
        else replace(a_filter(priority, handle), kind="u32")
        for priority, handle in sorted(numbers)
    ]
    origins = [
        a_filter(priority, handle, f"f{number}") for number, (priority, handle) in enumerate(wanted)
    ]
    try:
        made = migrate_plan._places(origins, there)
    except ConflictError:
        assert there[0].priority == 1
        return
    assert [each.name for each in made] == [each.name for each in origins]
    assert run_order(there, made) == [*made, *there]


def test_places_are_those_of_before_where_nothing_came() -> None:
    # As the kernel lists them: by priority, within one the newest first.
    before = [a_filter(1, 9), a_filter(2, 2), a_filter(2, 1), a_filter(7, 1)]
    assert migrate_plan._places(before, []) == before
    later = [a_filter(7, 5), a_filter(9, 1)]
    assert migrate_plan._places(before, later) == before


def test_filters_of_other_chains_stand_in_nobodys_way() -> None:
    other = replace(a_filter(1, 1), chain=4, kind="u32")
    assert migrate_plan._places([a_filter(5, 1)], [other]) == [a_filter(5, 1)]


def test_the_name_of_a_pin_at_a_namespace() -> None:
    name = name_for_netns(4026531840, "sk_lookup", "p.q_r", 7)
    assert name == "net4026531840_sk-lookup_p-q-r_7"
    parsed = OwnName.parse(name)
    assert parsed == OwnName(4026531840, None, None, "sk-lookup", "p-q-r", 7)
