"""The closing line of scripts/test counts each test once, and hides no failure."""

from __future__ import annotations

from pathlib import Path

from tests.netns_fixtures.report import Line, append
from tests.summary import main, summarize

UNIT = """<testsuites><testsuite>
<testcase classname="tests.unit.test_a" name="test_one"/>
<testcase classname="tests.unit.test_a" name="test_two">{two}</testcase>
</testsuite></testsuites>"""


def results(folder: Path, *lines: Line, statuses: str = "", two: str = "") -> Path:
    (folder / "statuses").write_text(statuses)
    (folder / "unit.xml").write_text(UNIT.format(two=two))
    (folder / "lab").mkdir()
    for line in lines:
        place = "lab/lab.jsonl" if line.where.startswith("lab") else "native.jsonl"
        append(folder / place, line)
    return folder


def test_a_test_that_ran_in_both_places_counts_once(tmp_path: Path) -> None:
    here = Line("tests/integration/t.py::test_x", "passed", "native 1")
    there = Line("tests/integration/t.py::test_x", "passed", "lab 2")
    folder = results(tmp_path, here, there, statuses="scripts/check 0\ntests/unit 0\n")
    table, summary = summarize(folder)
    assert summary.closing_line == "4 passed, 0 failed"
    assert "native 1" in table and "lab 2" in table
    assert main([str(folder)]) == 0


def test_what_ran_nowhere_has_failed(tmp_path: Path) -> None:
    here = Line("tests/integration/t.py::test_x", "skipped", "native 1", "no netkit")
    folder = results(tmp_path, here)
    _, summary = summarize(folder)
    assert summary.failures == {"tests/integration/t.py::test_x": ["ran nowhere (no netkit)"]}
    assert main([str(folder)]) == 1


def test_a_failure_in_one_place_is_a_failure(tmp_path: Path) -> None:
    here = Line("tests/integration/t.py::test_x", "failed", "native 1")
    there = Line("tests/integration/t.py::test_x", "passed", "lab 2")
    folder = results(tmp_path, here, there, statuses="tests/integration native 1\n")
    assert summarize(folder)[1].closing_line == "2 passed, 1 failed"


def test_a_step_that_no_test_explains_has_failed_itself(tmp_path: Path) -> None:
    here = Line("tests/integration/t.py::test_x", "failed", "native 1")
    statuses = "scripts/check 1\ntests/integration native 1\ntests/integration lab 125\n"
    _, summary = summarize(results(tmp_path, here, statuses=statuses))
    assert summary.failures["tests/integration lab"] == ["ended with status 125"]
    assert summary.failures["scripts/check"] == ["ended with status 1"]
    assert summary.closing_line == "2 passed, 3 failed"


def test_a_skipped_unit_test_has_failed(tmp_path: Path) -> None:
    _, summary = summarize(results(tmp_path, two="<skipped/>"))
    assert summary.failures == {"tests/unit/test_a.py::test_two": ["skipped"]}
