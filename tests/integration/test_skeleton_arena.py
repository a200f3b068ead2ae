"""Skeletons of objects with an arena: variables in it, and what pointers into it lead to."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from netbpf import skeleton
from tests.integration.test_arena import PACKET, SHARED, run
from tests.integration.test_skeleton import all_wrong, checked, made
from tests.netns_fixtures import programs


@pytest.fixture
def shared() -> Iterator[tuple[Any, Any]]:
    """The module of tests/bpf/arena_shared.c, and an open skeleton of it."""
    found: Any = made(SHARED)
    with found.open() as skel:
        yield found, skel


def test_variables_before_and_after_loading(shared: tuple[Any, Any]) -> None:
    m, skel = shared
    assert (skel.arena.counter, skel.arena.word, skel.arena.head) == (7, "hello", 0)
    skel.arena.counter = 40
    skel.arena.pool = (m.Node(number=3, name="three"), *skel.arena.pool[1:])
    skel.load()
    assert (skel.arena.counter, skel.arena.pool[0].name) == (40, "three")
    skel.progs.builds.test_run(PACKET)
    assert skel.arena.counter == 41, "it is read where programs write it"
    skel.arena.counter = 1000
    skel.progs.builds.test_run(PACKET)
    assert skel.arena.counter == 1001, "and written where they read it"
    # The second look: the same bytes by the arena's own names.
    arena = skel.object.arena
    assert arena.variable("counter").value == 1001
    assert skel.arena.buckets[1] == arena.variable("pool").at(1).address
    assert [n.number for n in skel.arena.pool[:6]] == [0, 1, 4, 9, 16, 0]
    with pytest.raises(ValueError, match="counter has 64 bits"):
        skel.arena.counter = 1 << 64
    with pytest.raises(AttributeError):
        skel.arena.conuter = 1


def test_pointers_lead_to_typed_values(shared: tuple[Any, Any]) -> None:
    m, skel = shared
    with pytest.raises(ValueError, match="has no arena, or is not loaded"):
        skel.at(1, m.Node)
    skel.load()
    skel.progs.builds.test_run(PACKET)
    first = skel.at(skel.arena.head, m.Node)
    assert first.value.inner == m.NodeInner(port=1004, flags=b"\0\0\4")
    nodes = list(first.walk(lambda node: node.next))
    assert [n.value.number for n in nodes] == [16, 9, 4, 1, 0]
    links = skel.at(skel.arena.links, m.Link).walk(lambda link: link.next)
    assert [link.address - n.address for link, n in zip(links, nodes, strict=True)] == [24] * 5
    first.value = replace(first.value, number=100)
    # The program walks over the same list.
    assert skel.progs.sums.test_run(PACKET).retval == 100 + 9 + 4 + 1
    second = skel.at(first.address + 8, skeleton.s32)
    assert second.value == 100
    second.value = -1
    assert skel.progs.sums.test_run(PACKET).retval == -1 + 9 + 4 + 1
    nodes[-1].value = replace(nodes[-1].value, next=nodes[1].address)
    with pytest.raises(ValueError, match="comes back to"):
        list(first.walk(lambda node: node.next))
    nodes[-1].value = replace(nodes[-1].value, next=first.address)
    assert len(list(first.walk(lambda node: node.next))) == 5
    nodes[-1].value = replace(nodes[-1].value, next=0x1234)
    with pytest.raises(ValueError, match="outside of arena"):
        list(first.walk(lambda node: node.next))
    for wrong, kind, words in (
        (0, m.Node, "NULL"),
        (skel.object.arena.address + len(skel.object.arena) - 1, m.Node, "outside of arena"),
    ):
        with pytest.raises(ValueError, match=words):
            skel.at(wrong, kind)
    for kind in (int, "struct node", first):
        with pytest.raises(TypeError, match="a struct or union of the skeleton"):
            skel.at(first.address, kind)
    with pytest.raises(TypeError, match="it is a Node"):
        first.value = m.Link()


def test_classes_of_what_is_only_pointed_to() -> None:
    """No variable lies in that arena: programs alone make its pages."""
    found: Any = made(programs.SOURCES / "arena_heap.o")
    with found.open() as skel:
        assert not hasattr(skel, "arena")
        skel.load()
        assert run(skel.progs.takes) == 0
        items = skel.at(skel.bss.head, found.Item).walk(lambda item: item.next)
        assert [i.value.number for i in items] == [14, 13, 12, 11, 10]


USER = """
from dataclasses import replace
import made
from netbpf import skeleton

def use() -> int:
    with made.open() as skel:
        skel.arena.counter += 1
        skel.arena.word = "text"
        skel.load()
        first = skel.at(skel.arena.head, made.Node)
        names: list[str] = [place.value.name for place in first.walk(lambda node: node.next)]
        first.value = replace(first.value, number=5)
        word: int = skel.at(first.address, skeleton.u64).value
        print(names, skel.maps.arena.id, skel.arena.pool[3].inner.port)
        return word + first.value.number
"""
WRONG = {
    'skel.arena.counter = "five"': 'expression has type "str"',
    "skel.arena.conuter": 'no attribute "conuter"',
    "skel.at(skel.arena.head, made.Node).value.numbre": 'no attribute "numbre"',
    "skel.at(skel.arena.head, made.Node).value = made.Link()": 'expression has type "Link"',
    "skel.at(skel.arena.head, made.Node).walk(lambda n: n.name)": 'got "str", expected "int"',
    "skel.at(skel.arena.head, str)": 'cannot be "str"',
    "skel.at(made.Node(), made.Node)": "No overload",
}


def test_mypy_knows_the_arena(tmp_path: Path) -> None:
    text = skeleton.of_file(SHARED)
    assert skeleton.of_file(SHARED) == text
    skeleton.write(text, tmp_path / "made.py")
    (tmp_path / "use.py").write_text(USER)
    assert checked(tmp_path, "use") == (0, "")
    all_wrong(tmp_path, WRONG)


def test_the_same_bytes_from_another_process(tmp_path: Path) -> None:
    """Whatever the order of hashes there is."""
    copy = tmp_path / "arena_shared.o"
    copy.write_bytes(SHARED.read_bytes())
    for seed in ("1", "2"):
        command = [sys.executable, "-m", "netbpf", "object", "skeleton", str(copy)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        )
        assert done.stdout == skeleton.of_file(SHARED)
