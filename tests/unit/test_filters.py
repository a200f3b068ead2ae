"""Answers about filters and qdiscs, taken apart without a kernel."""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest

from netbpf.netlink import filters
from netbpf.netlink.attributes import attribute


class Answers:
    """Stands for an Rtnl: answers dumps with what was prepared, and keeps what was asked."""

    def __init__(self, *answers: list[bytes]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[int, bytes]] = []

    def dump(self, kind: int, message: bytes) -> list[bytes]:
        self.asked.append((kind, message))
        return self.answers.pop(0)


def tcmsg(ifindex: int, handle: int, parent: int, info: int = 0) -> bytes:
    return struct.pack("=BxxxiIII", 0, ifindex, handle, parent, info)


def number(value: int) -> bytes:
    return struct.pack("=I", value)


def a_filter(priority: int, handle: int, chain: int, options: bytes | None, **more: Any) -> bytes:
    info = priority << 16 | socket.htons(more.get("protocol", 3))
    body = tcmsg(more.get("ifindex", 5), handle, more.get("parent", 0xFFFFFFF2), info)
    body += attribute(1, more.get("kind", b"bpf") + b"\0") + attribute(11, number(chain))
    return body if options is None else body + attribute(2, options)


def read(*answers: bytes, hook: str = "ingress") -> tuple[filters.Filter, ...]:
    rtnl: Any = Answers(list(answers), [])
    return filters.filters(5, hook, rtnl=rtnl)


def test_the_line_that_opens_a_priority_is_no_filter() -> None:
    (found,) = read(a_filter(1, 0, 0, None), a_filter(1, 7, 0, attribute(8, number(1))))
    assert (found.handle, found.direct_action, found.priority) == (7, True, 1)


def test_chains_come_last_in_the_order_of_the_kernel() -> None:
    found = read(
        a_filter(1, 1, 9, b""),
        a_filter(5, 2, 0, b""),
        a_filter(6, 3, 0, b""),
        a_filter(1, 4, 3, b""),
    )
    assert [each.handle for each in found] == [2, 3, 1, 4]


def test_every_word_of_cls_bpf() -> None:
    options = b"".join(
        (
            attribute(3, number(0x10007)),
            attribute(7, "p\xe4.o:[tc]".encode() + b"\0"),
            attribute(8, number(1)),
            attribute(9, number(0x8 | 0x2)),
            attribute(10, bytes(range(8))),
            attribute(11, number(42)),
            attribute(0x8000 | 1, b""),
        )
    )
    (found,) = read(a_filter(3, 1, 0, options, protocol=0x0800))
    assert (found.classid, found.name, found.tag) == (0x10007, "pä.o:[tc]", "0001020304050607")
    assert (found.prog_id, found.direct_action, found.actions) == (42, True, True)
    assert (found.skip_sw, found.skip_hw, found.in_hw) == (True, False, False)
    assert (found.protocol_name, found.foreign) == ("ip", False)
    assert str(found) == "bpf pref 3 handle 0x1 pä.o:[tc]"


def test_options_of_other_kinds_are_not_guessed_at() -> None:
    (found,) = read(a_filter(3, 1, 0, attribute(11, number(42)), kind=b"u32", protocol=0x88CC))
    assert (found.foreign, found.prog_id, found.protocol_name) == (True, None, "0x88cc")


def test_a_shared_block_stands_in_the_place_of_the_parent() -> None:
    (found,) = read(a_filter(3, 1, 0, b"", ifindex=-1, parent=7))
    assert (found.block, found.ifindex, found.hook) == (7, 5, "ingress")


def test_the_egress_of_an_ingress_qdisc_is_empty() -> None:
    line = a_filter(3, 1, 0, b"", parent=0xFFFFFFF3)
    assert len(read(line, hook="egress")) == 1
    everywhere: Any = Answers([line], [line])
    assert filters.filters(5, "egress", rtnl=everywhere) == ()
    nothing: Any = Answers([])
    assert filters.filters(5, "egress", rtnl=nothing) == ()
    assert len(nothing.asked) == 1, "an empty hook costs one question"


def test_one_question_for_all_qdiscs() -> None:
    root = tcmsg(2, 0, 0xFFFFFFFF) + attribute(1, b"noqueue\0")
    mine = tcmsg(2, 0xFFFF0000, 0xFFFFFFF1) + attribute(1, b"clsact\0")
    old = tcmsg(3, 0xFFFF0000, 0xFFFFFFF1) + attribute(1, b"ingress\0")
    shared = tcmsg(4, 0xFFFF0000, 0xFFFFFFF1) + attribute(1, b"clsact\0") + attribute(14, number(9))
    rtnl: Any = Answers([root, mine, old, shared])
    found = filters.with_clsact(rtnl=rtnl)
    assert {number: qdisc.kind for number, qdisc in found.items()} == {
        2: "clsact",
        3: "ingress",
        4: "clsact",
    }
    assert found[4].blocks == (("egress", 9),)
    assert len(rtnl.asked) == 1


@pytest.mark.parametrize(
    ("priority", "handle"), [(0, 1), (-1, 1), (1 << 16, 1), (1, -1), (1, 1 << 32)]
)
def test_numbers_that_mean_something_else_to_the_kernel(priority: int, handle: int) -> None:
    with pytest.raises(ValueError):
        filters.add(5, "ingress", 3, name="x", priority=priority, handle=handle)
