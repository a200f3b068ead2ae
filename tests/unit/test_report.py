"""The closing table of scripts/test."""

from __future__ import annotations

from tests.netns_fixtures import report
from tests.netns_fixtures.report import Line


def test_the_table_and_what_ran_nowhere(tmp_path):
    native, lab = tmp_path / "native", tmp_path / "lab"
    a, b, c = "tests/integration/test_x.py::a", "tests/integration/test_x.py::b", "y.py::c"
    for line in (
        Line(a, "passed", "native 6.18"),
        Line(b, "skipped", "native 6.18", "no netkit"),
        Line(c, "skipped", "native 6.18", "no netdevsim"),
    ):
        report.append(native, line)
    for line in (Line(a, "passed", "lab 7.2"), Line(b, "failed", "lab 7.2")):
        report.append(lab, line)
    table, missing = report.merge([native, lab])
    assert missing == [f"{c} (no netdevsim)"]
    assert [" ".join(line.split()) for line in table.splitlines()] == [
        "what ran where native 6.18 lab 7.2",
        "tests/integration/test_x.py 1 passed, 1 skipped 1 passed, 1 failed",
        "y.py 1 skipped -",
        "all 1 passed, 2 skipped 1 passed, 1 failed",
    ]


def test_the_place_of_the_report(monkeypatch, tmp_path):
    monkeypatch.delenv("NETBPF_TEST_REPORT", raising=False)
    monkeypatch.delenv("NETBPF_LAB_OUT", raising=False)
    assert report.target() is None
    monkeypatch.setenv("NETBPF_TEST_REPORT", "/x/report.jsonl")
    assert str(report.target()) == "/x/report.jsonl"
    monkeypatch.setenv("NETBPF_LAB_OUT", str(tmp_path))
    assert report.target() == tmp_path / "report.jsonl"
