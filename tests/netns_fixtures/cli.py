"""The command line, run inside this process, or as a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

from netbpf.cli.main import main


@dataclass(frozen=True)
class Result:
    """What a command left: its exit status and what it wrote."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document on stdout; every one says its schema's version."""
        document = json.loads(self.out)
        assert document["schema_version"] == 1
        assert self.out.count("\n") == 1, "one document, in one line"
        return document

    @property
    def error(self) -> Any:
        """The error document, whose keys are the same for every error."""
        error = self.json["error"]
        assert set(error) == {"code", "errno", "message", "hint", "extack"}
        return error


@contextmanager
def own_signals() -> Iterator[None]:
    """A command takes signals its own way until its process ends: here they are put back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def netbpf(*arguments: object) -> Result:
    """Run one command line in this process: quick, and the same code as the program's."""
    out, err = StringIO(), StringIO()
    with own_signals(), redirect_stdout(out), redirect_stderr(err):
        status = main([str(argument) for argument in arguments])
    assert "Traceback" not in err.getvalue(), err.getvalue()
    return Result(status, out.getvalue(), err.getvalue())


def ok(*arguments: object) -> Any:
    """Run one command line with --json and return its document; it has to succeed."""
    result = netbpf("--json", *arguments)
    assert result.status == 0, result.out + result.err
    return result.json


def process(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run one command line as a process of its own."""
    argv = [sys.executable, "-m", "netbpf", *map(str, arguments)]
    options = {"capture_output": True, "text": True, "timeout": 120, **options}
    return subprocess.run(argv, check=False, **options)
