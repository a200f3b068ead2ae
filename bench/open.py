#!/usr/bin/env python3
"""What it costs to read an object file: 200 objects of clang, in one process, no kernel asked.

Run: .venv/bin/python bench/open.py [OBJECT…]. Without arguments the sources in tests/bpf are
compiled for several CPUs, levels and byte orders, and kept for the next time. Each object is read
once by netbpf and by libbpf (through ctypes), in turns; the CPU time of each reading counts.

Seen on a busy host, Python 3.11: netbpf 0.4 ms (median), with what `object show` prints 0.7 ms,
libbpf 0.1 ms. An object of 620 KB with 450 functions and 100 maps took 13 ms.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from netbpf.elf import open_object
from netbpf.elf.show import document
from tests.netns_fixtures import libbpf
from tests.netns_fixtures.objects import build

SOURCES = Path(__file__).resolve().parents[1] / "tests" / "bpf"
COUNT = 200


def compiled() -> list[Path]:
    """Objects of clang, each another one."""
    ways = itertools.product(
        ("v3", "v2", "v1"), ("-O2", "-O1", "-Os"), ("bpf", "bpfeb"), sorted(SOURCES.glob("*.c"))
    )

    def one(way: tuple[str, str, str, Path]) -> Path | None:
        cpu, level, target, source = way
        flags = (f"-mcpu={cpu}", level, "-target", target)
        try:
            return build(source.read_text(), *flags, name=source.stem, head="")
        except subprocess.CalledProcessError:
            return None  # for a younger clang

    with ThreadPoolExecutor(2) as pool:
        return list(itertools.islice(filter(None, pool.map(one, ways)), COUNT))


def taken(function: Callable[[], object]) -> float:
    """The CPU time of one call, in milliseconds."""
    start = time.process_time()
    function()
    return (time.process_time() - start) * 1000


def _shown(file: Path) -> object:
    return document(open_object(file))


def main(files: list[Path]) -> None:
    """Measure and print."""
    times: dict[str, list[float]] = {"netbpf": [], "netbpf, shown": [], "libbpf": []}
    # Imports count for commands, not for the two-hundredth object.
    document(open_object(files[0]))
    libbpf.opened(files[0])
    for file in files:
        times["netbpf"].append(taken(partial(open_object, file)))
        times["netbpf, shown"].append(taken(partial(_shown, file)))
        if libbpf.opened(file) is not None:  # older ones read their own byte order only
            times["libbpf"].append(taken(partial(libbpf.opened, file)))
    sizes = sorted(file.stat().st_size for file in files)
    print(f"{len(files)} objects of {sizes[0]} to {sizes[-1]} bytes, CPU ms each")
    print(f"{'':14} {'median':>8} {'of ten':>8} {'most':>8}")
    for name, each in times.items():
        each.sort()
        print(f"{name:14} {median(each):8.2f} {each[len(each) * 9 // 10]:8.2f} {each[-1]:8.2f}")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]] or compiled())
