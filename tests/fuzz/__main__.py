"""Breaks object files for some seconds of CPU: ``python -m tests.fuzz SECONDS [SEED]``.

A child reads them, so that a crash, a hang or a hunger for memory is found as well. What is found
is written to ``tests/fuzz/found/``; once mended it moves to ``tests/fuzz/seeds/``, which every run
and the unit tests read first.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import resource
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

from tests.fuzz.mutate import Broken

HERE = Path(__file__).resolve().parent
SEEDS = HERE / "seeds"
FOUND = HERE / "found"
SECONDS_EACH = 2
MEMORY = 512 << 20


def read(data: bytes) -> str:
    """Read one file as users do, and say what came of it.

    :raises Exception: what nobody should see.
    """
    from netbpf.elf import open_object
    from netbpf.elf.show import document
    from netbpf.errors import NetbpfError, ObjectFileError
    from netbpf.loader import relocate

    try:
        spec = open_object("fuzzed.o", data)
        document(spec)
        fds = {m.section or m.name: 3 for m in spec.maps}
        for program in spec.programs:
            try:
                relocate.functions(spec, program)
            except ObjectFileError:
                continue
        del fds
    except ObjectFileError as error:
        if not str(error).startswith("fuzzed.o: "):
            raise AssertionError(f"the file is not named: {error}") from error
        if "malformed (" in str(error):
            # The reader stumbled; it was caught, but nobody had thought of it.
            raise AssertionError(f"stumbled: {error}") from error
        return "refused"
    except NetbpfError as error:
        raise AssertionError(f"another kind of error: {error!r}") from error
    return "read"


def good() -> dict[str, bytes]:
    """The files that mutants are made of."""
    return {path.name: path.read_bytes() for path in sorted(SEEDS.glob("*.o"))}


def kept() -> dict[str, bytes]:
    """What was found in earlier runs."""
    return {path.name: path.read_bytes() for path in sorted(SEEDS.glob("*.bad"))}


def mutants(random: Random) -> Iterator[bytes]:
    """Broken files without end."""
    bases = [Broken(data) for data in good().values()]
    while True:
        yield random.choice(bases).mutant(random)


def _child(pipe: Connection, number: int) -> None:
    # Address space, not what is in use: there is no limit for that.
    read(next(iter(good().values())))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    random = Random(number)
    stream = mutants(random)
    counts = {"read": 0, "refused": 0}
    while True:
        data = next(stream)
        pipe.send_bytes(data)
        signal.alarm(SECONDS_EACH * 4)
        start = time.process_time()
        try:
            counts[read(data)] += 1
            taken = time.process_time() - start
            verdict = "" if taken < SECONDS_EACH else f"took {taken:.1f} s of CPU"
        except BaseException:
            verdict = traceback.format_exc()
        signal.alarm(0)
        pipe.send((verdict, counts, time.process_time()))


def _keep(data: bytes, verdict: str) -> Path:
    FOUND.mkdir(exist_ok=True)
    path = FOUND / f"{hashlib.sha256(data).hexdigest()[:12]}.bad"
    path.write_bytes(data)
    path.with_suffix(".txt").write_text(verdict)
    return path


def run(seconds: float, number: int) -> int:
    """Fuzz for so many seconds of CPU; the number of finds."""
    kinds: set[str] = set()
    spent = 0.0
    files = 0
    while spent < seconds:
        ours, theirs = multiprocessing.Pipe()
        child = multiprocessing.Process(target=_child, args=(theirs, number), daemon=True)
        child.start()
        theirs.close()
        used, data, counts = 0.0, b"", {}
        try:
            while spent + used < seconds:
                data = ours.recv_bytes()
                verdict, counts, used = ours.recv()
                if verdict:
                    last = verdict.strip().splitlines()
                    kind = "\n".join(last[-3:])
                    if kind not in kinds:
                        kinds.add(kind)
                        print(f"{_keep(data, verdict)}: {last[-1]}", flush=True)
        except EOFError:
            child.join()
            kinds.add(f"died {child.exitcode}")
            print(f"{_keep(data, 'died')}: the reader died, status {child.exitcode}", flush=True)
        child.kill()
        child.join()
        ours.close()
        files += sum(counts.values())
        spent += max(used, 0.1)
        number += 1
        print(f"{counts}", flush=True)
    print(f"{files} files, {spent:.0f} s of CPU, {len(kinds)} finds")
    return len(kinds)


if __name__ == "__main__":
    wanted = float(sys.argv[1]) if len(sys.argv) > 1 else 600
    sys.exit(bool(run(wanted, int(sys.argv[2]) if len(sys.argv) > 2 else 1)))
