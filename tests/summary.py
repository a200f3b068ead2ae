"""What scripts/test says at the end: what ran where, what failed, and one closing line."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.netns_fixtures import report


@dataclass
class Summary:
    """Distinct tests, each counted once wherever it ran, and what went wrong."""

    passed: set[str] = field(default_factory=set)
    failures: dict[str, list[str]] = field(default_factory=dict)
    """What went wrong, once for each place."""

    def fail(self, name: str, why: str) -> None:
        """Note a failure."""
        self.failures.setdefault(name, []).append(why)

    @property
    def closing_line(self) -> str:
        """``120 passed, 0 failed``."""
        return f"{len(self.passed - set(self.failures))} passed, {len(self.failures)} failed"


def summarize(folder: Path) -> tuple[str, Summary]:
    """The table and the summary over a folder with statuses, unit.xml and ``*.jsonl``.

    ``statuses`` holds a line for each step that ran: its name, a space, its exit status.
    """
    summary = Summary()
    files = sorted(folder.glob("**/*.jsonl"), reverse=True)
    _add_unit(folder / "unit.xml", summary)
    for line in _lines(files):
        if line.outcome == "passed":
            summary.passed.add(line.nodeid)
        elif line.outcome == "failed":
            summary.fail(line.nodeid, f"failed {line.where}")
    table, nowhere = report.merge(files)
    for test in nowhere:
        nodeid, _, reason = test.partition(" ")
        summary.fail(nodeid, f"ran nowhere {reason}")
    for text in (folder / "statuses").read_text().splitlines():
        step, status = text.rsplit(" ", 1)
        if status == "0":
            if step == "scripts/check":
                summary.passed.add(step)
        elif step == "scripts/check" or not _explained(step, summary):
            summary.fail(step, f"ended with status {status}")
    return table, summary


def _explained(step: str, summary: Summary) -> bool:
    """Whether a failed test says already why a step ended as it did."""
    if step == "tests/unit":
        return any(name.startswith("tests/unit") for name in summary.failures)
    place = step.rsplit(" ", 1)[-1]
    return any(f"failed {place}" in why for all_of in summary.failures.values() for why in all_of)


def _lines(files: list[Path]) -> Iterator[report.Line]:
    for file in files:
        for text in file.read_text(encoding="utf-8").splitlines():
            yield report.Line(**json.loads(text))


def _add_unit(file: Path, summary: Summary) -> None:
    if not file.exists():
        return
    for case in ET.parse(file).iter("testcase"):
        name = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            summary.fail(name, "failed")
        elif case.find("skipped") is not None:
            # A unit test needs neither root nor a kernel: there is no reason to skip it.
            summary.fail(name, "skipped")
        else:
            summary.passed.add(name)


def main(argv: list[str]) -> int:
    """Print table, failures and closing line; 1 when anything failed."""
    table, summary = summarize(Path(argv[0]))
    print(f"\n{table}\n")
    for name, why in summary.failures.items():
        print(f"{name}: {'; '.join(why)}")
    print(summary.closing_line, flush=True)
    return 1 if summary.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
