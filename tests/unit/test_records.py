"""Records: what dataclasses would make of the same class, without their module."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys

import pytest

from netbpf.records import cached_property, field, record, replace


@record(slots=True, frozen=True)
class Point:
    """Two numbers, and words that are not shown."""

    x: int
    y: int = 2
    words: list[str] = field(default_factory=list, repr=False)
    kind = "point"

    @property
    def sum(self) -> int:
        """Both together."""
        return self.x + self.y


@record(slots=True)
class Box:
    """One that changes."""

    name: str
    state: str = field(default="new", init=False)


def test_what_is_held() -> None:
    point = Point(1)
    assert (point.x, point.y, point.words, point.kind, point.sum) == (1, 2, [], "point", 3)
    assert Point(1).words is not point.words
    assert Point(x=5, y=6) == Point(5, 6) != Point(6, 5)
    assert repr(Point(1, words=["a"])) == "Point(x=1, y=2)"
    assert Point.__doc__ == "Two numbers, and words that are not shown."
    assert Point(1) != (1, 2, [])
    with pytest.raises(TypeError):
        Point()  # type: ignore[call-arg]
    with pytest.raises(AttributeError, match="cannot assign to field 'x'"):
        point.x = 3  # type: ignore[misc]
    with pytest.raises(AttributeError, match="cannot delete field 'x'"):
        del point.x


def test_what_it_is_made_of_is_told_before_one_is_made() -> None:
    @record(slots=True)
    class Fresh:
        one: int
        two: str = "b"

    assert list(inspect.signature(Fresh).parameters) == ["one", "two"]
    assert Fresh(1) == Fresh(1, "b")


def test_one_that_changes() -> None:
    box = Box("a")
    box.state = "old"
    assert (box.name, box.state) == ("a", "old")
    with pytest.raises(AttributeError):
        box.other = 1  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="unhashable"):
        hash(box)
    with pytest.raises(TypeError):
        Box("a", "old")  # type: ignore[call-arg]


def test_copies() -> None:
    assert replace(Point(1, 5), x=2) == Point(2, 5)
    assert dataclasses.replace(Point(1, 5), x=2) == Point(2, 5)
    assert dataclasses.asdict(Point(1)) == {"x": 1, "y": 2, "words": []}
    match Point(3, 4):
        case Point(x, y):
            assert (x, y) == (3, 4)


@pytest.mark.parametrize("one", [Point(1, words=["a"]), Box("a")])
def test_copies_of_what_they_hold(one: Point | Box) -> None:
    for made in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert made == one
        assert made is not one
    if isinstance(one, Point):
        assert copy.copy(one).words is one.words is not copy.deepcopy(one).words


def test_a_cached_property_is_worked_out_once() -> None:
    class Circle:
        made = 0

        @cached_property
        def area(self) -> int:
            """How large it is."""
            self.made += 1
            return 3

    circle = Circle()
    assert (circle.area, circle.area, circle.made) == (3, 3, 1)
    assert Circle.area.__doc__ == "How large it is."
    assert Circle().area == 3


def test_it_is_light() -> None:
    text = "import sys, netbpf.loader; print([m for m in ('dataclasses',) if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", text], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
