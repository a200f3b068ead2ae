"""Chains as a table, as wide as the terminal has room for."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping

from netbpf.cli.chain_view import Counted
from netbpf.cli.output import NARROW, Document, lines, note, say, table

_WIDE = 120
"""The columns of a terminal from which on there is room for all."""

_COUNTS = {"RUNS": "runs", "NS/RUN": "ns_per_run", "ENDED": "ended"}


def chain_table(documents: list[Document], counted: Counted | None) -> None:
    """Print the table of these documents, and what its words mean."""
    if not documents:
        note("no programs are attached here")
        return
    rows: list[dict[str, object]] = []
    for chain in documents:
        rows += _rows(chain)
    columns = ["DEVICE", "HOOK", "REV", "POS", "PROG", "ID", "TAG", "LINK", "PINS, OWNERS"]
    columns += ["LOADED", "THEN"]
    if counted is not None:
        columns += [*_COUNTS]
    room = _columns()
    if room < NARROW:
        for row in rows:
            _say_row(row)
    else:
        if room < _WIDE:
            columns = [column for column in columns if column not in ("TAG", "LOADED")]
        table(columns, [[row.get(column, "") for column in columns] for row in rows])
    if counted is not None:
        _explain(documents, counted)


def _rows(chain: Document) -> list[dict[str, object]]:
    place = f"{chain['netns']}:{chain['device']}" if chain["netns"] else chain["device"]
    rows: list[dict[str, object]] = [_entry_row(entry) for entry in chain["entries"]]
    if not rows and not chain["filters"] and not chain["netkit"]:
        rows = [{"POS": "-", "PROG": "(empty)"}]
    rows += [_filter_row(each) for each in chain["filters"]]
    if rows:
        rows[0].update({"DEVICE": place, "HOOK": chain["hook"], "REV": chain["revision"]})
    for each in rows[len(chain["entries"]) :][:1] if chain["filters"] else []:
        each["HOOK"] = f"{chain['hook']} clsact"
    inner = chain["netkit"]
    return rows + (_rows(inner) if inner and inner["entries"] else [])


def _entry_row(entry: Document) -> dict[str, object]:
    link = entry["link"]
    holders = [f"{o['comm']}[{o['pid']}]" for o in link["owners"]] if link else []
    return {
        "POS": entry["position"],
        "LINK": link and link["id"],
        "PINS, OWNERS": link and lines([*link["pins"], *holders]),
        "THEN": _then(entry["then"], str(entry["position"] + 1)),
        **_prog_cells(entry),
    }


def _filter_row(each: Document) -> dict[str, object]:
    chain = f" chain {each['chain']}" if each["chain"] else ""
    row: dict[str, object] = {
        "POS": f"pref {each['priority']}{chain}",
        "LINK": None,
        "PINS, OWNERS": None,
        "THEN": _then(each["then"], "the next") if each["then"] else None,
    }
    if each["prog"] is None:
        # Another kind of filter, or classic BPF: the name is all that there is.
        words = each["kind"] if each["name"] is None else f"{each['kind']} {each['name']}"
        return {**row, "PROG": words, "ID": None, "TAG": None, "LOADED": None}
    return {**row, **_prog_cells(each)}


def _prog_cells(entry: Document) -> dict[str, object]:
    prog, stats = entry["prog"], entry["stats"]
    cells = {"PROG": prog["name"], "ID": prog["id"], "TAG": prog["tag"]}
    cells["LOADED"] = entry["load_time"]
    for column, key in _COUNTS.items():
        cells[column] = stats[key] if stats else None
    return cells


def _then(then: Mapping[str, str], following: str) -> str:
    """Where a packet goes by the verdicts that let it go on; the others speak for themselves."""
    words = {key: then[key].replace("_", " ") for key in ("next", "pass")}
    if then["next"] in ("program", "filter"):
        words["next"] = following
    if words["next"] == words["pass"]:
        return f"next, pass: {words['next']}"
    return f"next: {words['next']}, pass: {words['pass']}"


def _explain(documents: list[Document], counted: Counted) -> None:
    note(
        f"counted for {counted.seconds:.1f} s; ENDED: packets after which nothing later in the "
        "list ran; the last one's are all its runs, also those that went on with NEXT"
    )
    several = {
        str(entry["prog"]["id"])
        for chain in documents
        for each in (chain, chain["netkit"] or chain)
        for entry in each["entries"]
        if entry["prog"]["id"] in counted.elsewhere
    }
    if several:
        note(f"at several places, and counted at all of them together: id {', '.join(several)}")


def _say_row(row: Mapping[str, object]) -> None:
    """A row as lines, which a narrow terminal may break where it has to."""
    if "DEVICE" in row:
        say(f"{row['DEVICE']} {row['HOOK']}, revision {row['REV']}")
    elif row.get("HOOK"):
        say(f"  {row['HOOK']}")
    words = f"  {row['POS']} {row['PROG']}"
    if row.get("ID"):
        words += f" (id:{row['ID']})"
    say(f"{words} by link:{row['LINK']}" if row.get("LINK") else words)
    if row.get("THEN"):
        say(f"    {row['THEN']}")
    counts = [f"{name.lower()} {row[name]}" for name in _COUNTS if row.get(name) is not None]
    if counts:
        say(f"    {', '.join(counts)}")
    if held := row.get("PINS, OWNERS"):
        for line in str(held).splitlines():
            say(f"    {line}")


def _columns() -> int:
    """The width that there is: of the terminal, unless COLUMNS says another; piped, any."""
    if not sys.stdout.isatty():
        return _WIDE
    return shutil.get_terminal_size().columns
