"""What becomes of each packet of a run: a table or a JSON document that grows, and a capture."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from netbpf.captures import Packet, Writer
from netbpf.cli.output import SCHEMA_VERSION, clean, note
from netbpf.cli.settings import settings
from netbpf.errors import NetbpfError, errno_name
from netbpf.interrupts import held

_WIDTHS = {"PACKET": 7, "LENGTH": 6, "RETVAL": 11, "OUT": 6, "NS": 10}


class Report:
    """Prints each packet as it was run; nothing is kept but counts.

    A capture may hold millions of packets, so no table or document is put together first.
    """

    def __init__(self, columns: Sequence[str], *, silent: bool = False) -> None:
        self.verdicts: Counter[str] = Counter()
        self.packets = self.cut = self.unfit = 0
        self._columns = columns
        self._silent = silent
        self._begun = False

    def add(self, document: dict[str, Any], cells: Sequence[object]) -> None:
        """One packet: the element of the document, or the row of the table."""
        self.packets += 1
        self.verdicts[document["verdict"] or "not run"] += 1
        self.cut += document["cut"]
        self.unfit += document["error"] is not None
        if settings.json:
            # An interruption within an element would leave no document.
            with held():
                self._write((", " if self._begun else _head()) + json.dumps(document))
                self._begun = True
        elif not self._silent:
            self._write(("" if self._begun else self._row(self._columns)) + self._row(cells))
            self._begun = True

    def end(self, error: BaseException | None = None) -> None:
        """Close the document, with ``error`` where one ended the run; or say the counts."""
        if settings.json:
            if error is not None and not self._begun:
                # The error is a document of its own.
                return
            settings.told = True
            tail = f', "error": {json.dumps(_error(error))}' if error is not None else ""
            self._write(("" if self._begun else _head()) + f"]{tail}}}\n")
        elif error is None and not self._silent:
            words = ", ".join(f"{count} {word}" for word, count in self.verdicts.most_common())
            total = f"{self.packets} packet{'' if self.packets == 1 else 's'}"
            self._write(f"{total}: {words}\n" if words else f"{total}\n")
        if not self._silent:
            _flush()

    def _row(self, cells: Sequence[object]) -> str:
        row = []
        for column, cell in zip(self._columns, cells, strict=True):
            text = clean("-" if cell is None else str(cell)).replace("\n", "\\n")
            width = _WIDTHS.get(column)
            row.append(text.rjust(width) if width else text.ljust(max(len(clean(column)), 10)))
        return "  ".join(row).rstrip() + "\n"

    def _write(self, text: str) -> None:
        try:
            sys.stdout.write(text)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _unwritten(error) from error


@contextmanager
def reported(columns: Sequence[str], *, silent: bool) -> Iterator[Report]:
    """A report that is closed with the block, however that ends."""
    report = Report(columns, silent=silent)
    try:
        yield report
    except BrokenPipeError:
        raise
    except BaseException as error:
        report.end(error)
        raise
    report.end()
    if report.cut:
        note(f"{report.cut} of {report.packets} packets were cut by the capture: programs saw less")
    if report.unfit:
        note(f"{report.unfit} of {report.packets} packets could not be run")


def write_out(writer: Writer | None, packet: Packet, data: bytes) -> None:
    """Add what a packet became to the capture that is written, as long as it was and is."""
    if writer is not None:
        length = max(packet.length + len(data) - len(packet.data), len(data))
        writer.write(Packet(writer.count, packet.time, data, length))


def _head() -> str:
    return f'{{"schema_version": {SCHEMA_VERSION}, "runs": ['


def _error(error: BaseException) -> dict[str, Any]:
    """The error that ended a run, as every error document has it."""
    number = getattr(error, "errno", None)
    known = error if isinstance(error, NetbpfError) else None
    interrupted = isinstance(error, KeyboardInterrupt)
    return {
        "code": known.code if known else "interrupted" if interrupted else "internal",
        "errno": errno_name(number) if isinstance(number, int) else None,
        "message": known.message if known else "interrupted" if interrupted else str(error),
        "hint": known.hint if known else None,
        "extack": None,
    }


def _flush() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _unwritten(error) from error


def _unwritten(error: OSError) -> NetbpfError:
    return NetbpfError(
        f"the output could not be written: {error.strerror}",
        code="output",
        hint="what programs did to maps until then is done",
    )
