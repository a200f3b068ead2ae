"""A short run of the fuzzer, what earlier runs found, and that it finds things."""

from __future__ import annotations

import random
import time

import pytest

from netbpf.elf import object as elf_object
from netbpf.errors import ObjectFileError
from tests.fuzz import __main__ as fuzz


@pytest.mark.parametrize("name", sorted(fuzz.good()))
def test_good_files_are_read(name: str) -> None:
    assert fuzz.read(fuzz.good()[name]) == "read"


def test_what_was_found_once() -> None:
    for name, data in fuzz.kept().items():
        start = time.process_time()
        assert fuzz.read(data) in ("read", "refused"), name
        assert time.process_time() - start < fuzz.SECONDS_EACH, name


def test_broken_files() -> None:
    stream = fuzz.mutants(random.Random(20))
    answers = [fuzz.read(next(stream)) for _ in range(1500)]
    # Neither a fuzzer that breaks nothing, nor one whose files fail at once.
    assert answers.count("refused") > 300
    assert answers.count("read") > 300


def test_the_same_run_again() -> None:
    one, other = fuzz.mutants(random.Random(3)), fuzz.mutants(random.Random(3))
    assert [next(one) for _ in range(20)] == [next(other) for _ in range(20)]


def test_a_reader_that_stumbles_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(*_: object) -> None:
        raise KeyError("nobody thought of it")

    data = next(iter(fuzz.good().values()))
    monkeypatch.setattr(elf_object, "read_externs", stumble)
    with pytest.raises(AssertionError, match=r"stumbled: .*KeyError"):
        fuzz.read(data)
    with pytest.raises(ObjectFileError, match="malformed"):
        elf_object.open_object("some.o", data)
