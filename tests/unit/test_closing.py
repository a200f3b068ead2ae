"""What is open is closed: in reverse, and each of several whatever happens."""

from __future__ import annotations

import pytest

from netbpf.closing import Closing, Several


class Door(Closing):
    """One that notes down when it is closed, and may jam."""

    def __init__(self, name: str, closed: list[str], *, jams: bool = False) -> None:
        self.name, self.closed, self.jams = name, closed, jams

    def close(self) -> None:
        self.closed.append(self.name)
        if self.jams:
            raise OSError(self.name)


def test_the_last_one_is_closed_first() -> None:
    closed: list[str] = []
    with Several() as doors:
        for name in "abc":
            assert doors.add(Door(name, closed)).name == name
        assert closed == []
    assert closed == ["c", "b", "a"]
    doors.close()
    assert closed == ["c", "b", "a"]


def test_one_that_jams_keeps_none_open() -> None:
    closed: list[str] = []
    with pytest.raises(OSError, match="b") as caught, Several() as doors:
        for name in "abcd":
            doors.add(Door(name, closed, jams=name in "bd"))
    assert closed == ["d", "c", "b", "a"]
    assert str(caught.value.__context__) == "d"


def test_they_are_closed_when_the_block_fails() -> None:
    closed: list[str] = []
    with pytest.raises(LookupError), Several() as doors:
        doors.add(Door("a", closed))
        raise LookupError
    assert closed == ["a"]
