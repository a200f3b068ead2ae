"""Counting how often programs run and how long they take, for a while.

The kernel counts for all programs of the machine or for none. What is switched on here ends with
its descriptor; that somebody else counts too (kernel.bpf_stats_enabled) is not changed by it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from netbpf.bpf import syscall
from netbpf.bpf.fd import FD
from netbpf.bpf.kobject import refused
from netbpf.bpf.query import facts


@dataclass(frozen=True, slots=True)
class Runs:
    """How often a program ran, and how many nanoseconds that took together."""

    count: int
    time: int

    @property
    def ns_per_run(self) -> float | None:
        """Nanoseconds per run; None where it did not run."""
        return round(self.time / self.count, 1) if self.count else None


class Measurement:
    """Counts the runs of some programs from when it is entered until it is left.

    A run costs some 20 ns more meanwhile. What bpf(BPF_PROG_TEST_RUN) does counts too; a program
    that another one tail-calls does not.

    Since Linux 5.8 (kernel/bpf/syscall.c: bpf_enable_stats).
    """

    def __init__(self, prog_ids: Iterable[int]) -> None:
        self._ids = list(dict.fromkeys(prog_ids))
        self._before: dict[int, Runs] = {}
        self._counting: FD | None = None

    def runs(self) -> dict[int, Runs]:
        """The runs since the beginning by program id; a program that has gone is left out.

        The programs are read one after the other: packets that come meanwhile are in the later
        counts and not in the earlier ones.
        """
        now = self._read()
        return {
            number: Runs(now[number].count - before.count, now[number].time - before.time)
            for number, before in self._before.items()
            if number in now
        }

    def _read(self) -> dict[int, Runs]:
        found = {number: facts(number) for number in self._ids}
        return {number: Runs(of.run_count, of.run_time) for number, of in found.items() if of}

    def __enter__(self) -> Self:
        """Begin to count.

        :raises BpfError: EPERM: it needs CAP_SYS_ADMIN.
        """
        try:
            self._counting = FD(syscall.enable_stats())
        except OSError as error:
            raise refused("count the runs of programs", error, "CAP_SYS_ADMIN") from error
        try:
            self._before = self._read()
        except BaseException:
            self._counting.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._counting is not None:
            self._counting.close()
