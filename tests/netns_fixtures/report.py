"""What ran where: one line of JSON per integration test, and the table over several runs."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Line:
    """One test in one run."""

    nodeid: str
    outcome: str
    """passed, failed, or skipped."""
    where: str
    """``native 6.18.44`` or ``lab 7.2.12+deb13-cloud-amd64``."""
    reason: str | None = None
    seconds: float = 0.0


def here() -> str:
    """The name of this place."""
    return f"{'lab' if 'NETBPF_LAB' in os.environ else 'native'} {os.uname().release}"


def target() -> Path | None:
    """The file to append to: $NETBPF_TEST_REPORT, in the lab by that name in its output folder."""
    wanted = os.environ.get("NETBPF_TEST_REPORT")
    if not wanted:
        return None
    out = os.environ.get("NETBPF_LAB_OUT")
    return Path(out) / Path(wanted).name if out else Path(wanted)


def append(path: Path, line: Line) -> None:
    """Add a line; written at once, so that a lost run still shows what it did."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(line)) + "\n")


def merge(files: Iterable[Path]) -> tuple[str, list[str]]:
    """The closing table over the reports of several runs, and the tests that ran nowhere."""
    lines = [
        Line(**json.loads(text))
        for file in files
        for text in file.read_text(encoding="utf-8").splitlines()
        if text.strip()
    ]
    places = list(dict.fromkeys(line.where for line in lines))
    nodeids = dict.fromkeys(line.nodeid for line in lines)
    ran = {line.nodeid for line in lines if line.outcome != "skipped"}
    missing = [nodeid for nodeid in nodeids if nodeid not in ran]
    reasons = {line.nodeid: line.reason for line in lines if line.outcome == "skipped"}
    return _table(lines, places), [f"{node} ({reasons[node]})" for node in missing]


def _table(lines: list[Line], places: list[str]) -> str:
    """One row per test file, one column per place: ``12 passed, 3 skipped``."""
    files = sorted({line.nodeid.split("::")[0] for line in lines})
    cells: dict[tuple[str, str], Counter[str]] = {}
    for line in lines:
        key = (line.nodeid.split("::")[0], line.where)
        cells.setdefault(key, Counter())[line.outcome] += 1
    rows = [["what ran where", *places]]
    for file in [*files, "all"]:
        row = [file]
        for place in places:
            count: Counter[str] = Counter()
            for (other, where), found in cells.items():
                if where == place and file in (other, "all"):
                    count += found
            row.append(_cell(count))
        rows.append(row)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _cell(count: Counter[str]) -> str:
    words = [
        f"{count[outcome]} {outcome}"
        for outcome in ("passed", "failed", "skipped")
        if count[outcome]
    ]
    return ", ".join(words) or "-"
