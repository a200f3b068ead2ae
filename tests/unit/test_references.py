"""References and anchors: what is understood, what is refused, and with which words."""

from __future__ import annotations

import pytest

from netbpf.bpf.anchor import Anchor
from netbpf.bpf.chain import Chain, Entry
from netbpf.bpf.macros import BPF_F_AFTER, BPF_F_BEFORE, BPF_F_ID, BPF_F_REPLACE
from netbpf.bpf.ref import Ref
from netbpf.errors import NotFoundError

CHAIN = Chain(7, "ingress", 5, (Entry(0, 11, 21), Entry(1, 12, None), Entry(2, 13, 23)))


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("id:42", "id", "42"),
        ("id:007", "id", "7"),
        ("link:7", "link", "7"),
        ("name:first", "name", "first"),
        ("name:a:b", "name", "a:b"),
        ("tag:DEADBEEF00112233", "tag", "deadbeef00112233"),
        ("pin:/sys/fs/bpf/x", "pin", "/sys/fs/bpf/x"),
        ("/sys/fs/bpf/x", "pin", "/sys/fs/bpf/x"),
    ],
)
def test_parse(text: str, kind: str, value: str) -> None:
    assert Ref.parse(text) == Ref(kind, value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("42", "id:42 or link:42"),
        ("", "names nothing"),
        ("id:", "positive number"),
        ("id:0", "positive number"),
        ("id:-1", "positive number"),
        ("id:4294967296", "positive number"),
        ("id:٤٢", "positive number"),
        ("tag:12", "16 hexadecimal digits"),
        ("name:", "program's name"),
        ("pin:", "a path"),
        ("eth0", "no reference"),
    ],
)
def test_parse_refuses(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Ref.parse(text)


@pytest.mark.parametrize(
    ("anchor", "position", "flags", "relative"),
    [
        (Anchor(), 3, 0, 0),
        (Anchor(first=True), 0, BPF_F_BEFORE, 0),
        (Anchor(last=True), 3, BPF_F_AFTER, 0),
        (Anchor(before="id:12"), 1, BPF_F_BEFORE | BPF_F_ID, 12),
        (Anchor(before="link:23"), 2, BPF_F_BEFORE | BPF_F_ID, 13),
        (Anchor(after="id:13"), 3, BPF_F_AFTER | BPF_F_ID, 13),
        (Anchor(replace="id:12"), 1, BPF_F_REPLACE, 0),
        (
            Anchor(replace="id:12", before="id:13"),
            1,
            BPF_F_REPLACE | BPF_F_BEFORE | BPF_F_ID,
            13,
        ),
    ],
)
def test_anchor_lands(anchor: Anchor, position: int, flags: int, relative: int) -> None:
    landing = anchor.land(CHAIN)
    assert (landing.position, landing.flags, landing.relative_id) == (position, flags, relative)


@pytest.mark.parametrize(
    "contradiction",
    [
        {"first": True, "last": True},
        {"before": "id:1", "after": "id:2"},
        {"first": True, "before": "id:1"},
        {"replace": "id:1", "first": True},
    ],
)
def test_anchor_contradictions(contradiction: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="contradict"):
        Anchor(**contradiction)  # type: ignore[arg-type]


def test_missing_entry_lists_what_is_there() -> None:
    with pytest.raises(NotFoundError, match="no program id:99") as caught:
        CHAIN.find("id:99")
    assert caught.value.hint is not None
    assert "link:21" in caught.value.hint


@pytest.mark.parametrize("target", [None, 5, b"name:x"])
def test_other_things_name_nothing(target: object) -> None:
    with pytest.raises(TypeError, match="names no entry"):
        CHAIN.find(target)  # type: ignore[arg-type]
