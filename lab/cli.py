"""The command line of lab/run."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from lab.arch import host_arch
from lab.cache import cache_root
from lab.errors import LOST, LabError
from lab.guest import Guest, Job, Machine
from lab.kernel import Kernels
from lab.tools import Tools
from lab.tree import private_tree


def main(argv: list[str]) -> int:
    """Run the command line; the status is the command's own, or 125 when the lab failed."""
    options = _parser().parse_args(argv)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        return _run(options)
    except LabError as e:
        print(f"lab: {e}", file=sys.stderr)
        return LOST
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _end(number: int, _: object) -> None:
    raise SystemExit(128 + number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab/run")
    parser.add_argument("--kernel", default="latest")
    parser.add_argument("--netdevsim", action="store_true")
    parser.add_argument("--timeout", type=float, default=900.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--debs", type=Path)
    parser.add_argument("--refresh", action="store_true")
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("command", nargs="*")
    return parser


def _run(options: argparse.Namespace) -> int:
    arch = host_arch()
    cache = cache_root()
    tools = Tools(cache, arch, options.debs)
    qemu, virtiofsd, modprobe = tools.qemu(), tools.virtiofsd(), tools.kmod("modprobe")
    kernel = Kernels(cache, arch, tools, options.debs).get(options.kernel, refresh=options.refresh)
    if options.prepare:
        return 0
    out = options.out
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        out = out.resolve()
    job = Job(options.command, Path.cwd(), dict(os.environ), out, options.netdevsim)
    machine = Machine(arch, kernel, qemu, virtiofsd, modprobe, kvm=False)
    tree = private_tree(cache)
    with Guest(machine, tree, job) as guest:
        status = guest.wait(boot=60, total=options.timeout)
        if options.verbose:
            print(f"lab: ready after {guest.streams.ready_after} s", file=sys.stderr)
        if status is None:
            print(f"lab: the guest was lost: {guest.streams.reason}", file=sys.stderr)
            print(guest.messages(), file=sys.stderr, end="")
            print(guest.streams.console_tail(), file=sys.stderr)
            return LOST
    return status
