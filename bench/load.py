#!/usr/bin/env python3
"""What it costs to load a small CO-RE object: beside `bpftool prog load`, and beside libbpf.

Run as root: .venv/bin/python bench/load.py [ROUNDS]. Whole processes first: their CPU time with an
index of the kernel's types in the cache, and with an empty cache. Then one process that opens,
loads and closes the same object over and over, here and in C with libbpf. All of it is in a mount
namespace of its own, with a cache and a bpffs of its own. The goals: at most 3 times bpftool's
time, under 6 times with an empty cache, less than libbpf in a long-lived process.

Seen on a busy host, Python 3.11, bpftool 7.1: 2.3 to 2.5 times and 5.0 to 5.4 times, 0.08 in one
process. Of the 30 ms of the first 10 are the interpreter's start, 12 imports and 6 the work itself;
to make the index takes 35 more. bpftool 7.8 takes 0.6 of the time of 7.1. A netbpf that was
installed by an old pip, Debian 12's or that of Python 3.11, imports re first: 5 ms more.

BPFTOOL names another bpftool than that of PATH.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import cpu_seconds, table
from netbpf import libc, loader
from netbpf.loader import index_cache
from tests.netns_fixtures.objects import build

NETBPF = str(Path(sys.executable).with_name("netbpf"))
TIMES = 200
SOURCE = """
#include <bpf/bpf_core_read.h>
struct task_struct { int pid; int tgid; } __attribute__((preserve_access_index));
struct sk_buff { unsigned int len; } __attribute__((preserve_access_index));
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4);
        __type(key, __u32); __type(value, __u64); } counts SEC(".maps");
SEC("tc") int small(struct __sk_buff *skb)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u32 key = BPF_CORE_READ(task, tgid) & 3;
	__u64 *count = bpf_map_lookup_elem(&counts, &key);

	if (count)
		*count += BPF_CORE_READ((struct sk_buff *)skb, len);
	return BPF_CORE_READ(task, pid) & 1;
}
char _license[] SEC("license") = "GPL";
"""
PEER = r"""
#include <bpf/libbpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

static double cpu(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

int main(int argc, char **argv)
{
	int times = atoi(argv[2]);
	double start = 0;

	for (int i = 0; i <= times; i++) {
		struct bpf_object *obj = bpf_object__open_file(argv[1], NULL);

		if (!obj || bpf_object__load(obj))
			return 1;
		bpf_object__close(obj);
		if (!i)
			start = cpu();
	}
	printf("%f\n", (cpu() - start) / times);
	return 0;
}
"""


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    # What is installed is compiled.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # In a namespace of mounts that ends with this process.
    libc.unshare(libc.CLONE_NEWNS)
    libc.mount("none", "/", "none", libc.MS_REC | libc.MS_PRIVATE)
    with tempfile.TemporaryDirectory() as folder:
        file = build(SOURCE, name="small")
        Path(index_cache.ROOT_FOLDER).mkdir(parents=True, exist_ok=True)
        libc.mount("none", index_cache.ROOT_FOLDER, "tmpfs", data="mode=0700")
        fs = Path(folder, "bpf")
        fs.mkdir()
        libc.mount("none", str(fs), "bpf")
        try:
            _whole(file, fs, rounds)
            _long_lived(file, Path(folder), max(3, rounds // 4))
        finally:
            libc.umount(str(fs), libc.MNT_DETACH)


def _whole(file: Path, fs: Path, rounds: int) -> None:
    ours, empty = "netbpf prog load", "netbpf prog load, empty cache"
    bpftool = os.environ.get("BPFTOOL", "bpftool")
    times: dict[str, list[float]] = {"bpftool prog load": [], ours: [], empty: []}
    for number in range(rounds + 1):
        taken = {"bpftool prog load": _loaded([bpftool, "prog", "load", str(file), f"{fs}/x"], fs)}
        for name in (empty, ours):
            if name == empty:
                for kept in Path(index_cache.ROOT_FOLDER).iterdir():
                    kept.unlink()
            taken[name] = _loaded([NETBPF, "prog", "load", str(file), "--pin", f"{fs}/y"], fs)
        if number:  # the first one fills the page cache
            for name, each in taken.items():
                times[name].append(each)
    print(table({n: median(each) for n, each in times.items()}, base="bpftool prog load"))


def _loaded(argv: list[str], fs: Path) -> float:
    seconds = cpu_seconds(argv)
    (fs / "x").unlink(missing_ok=True)
    shutil.rmtree(fs / "y", ignore_errors=True)
    return seconds


def _long_lived(file: Path, folder: Path, rounds: int) -> None:
    source, program = folder / "peer.c", folder / "peer"
    source.write_text(PEER)
    subprocess.run(["cc", "-O2", "-o", program, source, "-lbpf"], check=True)
    times: dict[str, list[float]] = {"libbpf, again": [], "netbpf, again": []}
    _again(file, 1)
    for _ in range(rounds):
        said = subprocess.run(
            [program, file, str(TIMES // 10)], check=True, capture_output=True, text=True
        )
        times["libbpf, again"].append(float(said.stdout))
        times["netbpf, again"].append(_again(file, TIMES))
    print(table({n: median(each) for n, each in times.items()}, base="libbpf, again"))


def _again(file: Path, count: int) -> float:
    before = os.times()
    for _ in range(count):
        with loader.open(file) as obj:
            obj.load()
    after = os.times()
    return (after.user + after.system - before.user - before.system) / count


if __name__ == "__main__":
    main()
