"""What the benchmarks share: commands run in turns, their CPU time, and a table of ratios."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from statistics import median


def cpu_seconds(argv: Sequence[str]) -> float:
    """User and system time of one run of a command, its output thrown away."""
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(argv)}: status {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def compare(commands: Mapping[str, Sequence[str]], rounds: int) -> dict[str, float]:
    """The median CPU time of each command, in seconds.

    Every round runs each of them once: what else the machine does falls on all alike.
    """
    times: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 2):
        for name, argv in commands.items():
            taken = cpu_seconds(argv)
            # The first rounds fill the page cache.
            if number >= 2:
                times[name].append(taken)
    return {name: median(taken) for name, taken in times.items()}


def table(times: Mapping[str, float], *, base: str) -> str:
    """One line for each command: its CPU time, and its ratio to ``base``."""
    width = max(map(len, times))
    lines = [f"{'':{width}}  CPU ms  ratio"]
    for name, taken in times.items():
        lines.append(f"{name:{width}}  {taken * 1000:6.1f}  {taken / times[base]:5.2f}")
    return "\n".join(lines)
