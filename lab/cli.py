"""The command line of lab/run."""

from __future__ import annotations

import argparse
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

from lab.arch import host_arch
from lab.cache import GUESTS_OWN, cache_root
from lab.errors import LOST, LabError
from lab.guest import Guest, Job, Machine
from lab.kernel import Kernel, Kernels
from lab.kvm import TRIAL, kvm_works
from lab.netdevsim import with_netdevsim
from lab.process import dies_with_us
from lab.streams import Streams
from lab.tools import Tool, Tools
from lab.tree import private_tree

BOOT = 150.0
"""Seconds until the command has to run; it takes three on two quiet processors with TCG."""

STARTS = 3
"""How often a guest is started that died before the command ran.

QEMU's multi-threaded emulation has rare races while the guest maps its devices: about one boot in a
hundred on a busy host.
"""

_RUN = Path(__file__).with_name("run")
_USAGE = "lab/run [OPTIONS] -- COMMAND [ARGUMENT...]\n       lab/run [OPTIONS] --prepare"
_EPILOG = """\
examples:
  lab/run -- uname -r
  lab/run --kernel 6.12 -- .venv/bin/pytest tests/integration
  lab/run --netdevsim --out report -- sh -c 'ip -d link >$NETBPF_LAB_OUT/links'

exit status: the command's own (128+N when signal N ended it); 125 when the lab failed or the
guest was lost (panic, hang, timeout), with the last lines of its console; 2 for wrong options.
docs/lab.md tells the rest."""


def main(argv: list[str]) -> int:
    """Run the command line and return the exit status."""
    _open_missing_streams()
    options = _parse(argv)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        return _run(options)
    except (LabError, OSError) as e:
        print(f"lab: {e}", file=sys.stderr)
        return LOST
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _open_missing_streams() -> None:
    """Where the caller closed 0, 1 or 2, a socket of ours would take its number."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.dup(2), "w")


def _end(number: int, _: object) -> None:
    raise SystemExit(128 + number)


def _parse(argv: list[str]) -> argparse.Namespace:
    """Split at the first ``--``: what follows is the command, untouched."""
    parser = argparse.ArgumentParser(
        prog="lab/run",
        usage=_USAGE,
        description="Run one command in a QEMU guest with a newer kernel, on the host's files.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--kernel",
        default="latest",
        metavar="latest|6.12|7.2|PATH",
        help="the newest Debian cloud kernel (default, 7.1 at the least), the newest of a version, "
        "or an image of your own (bzImage or vmlinux)",
    )
    add("--netdevsim", action="store_true", help="build and load the netdevsim module")
    add("--out", type=Path, metavar="DIR", help="a folder that the guest may write to")
    add(
        "--timeout",
        type=_seconds,
        default=900.0,
        metavar="S",
        help="seconds until the guest counts as lost (default 900; 0: never)",
    )
    add(
        "--cpus",
        type=_positive,
        default=_cpus(),
        metavar="N",
        help="processors (default %(default)s)",
    )
    add("--memory", type=_positive, default=1024, metavar="MB", help="(default %(default)s)")
    add(
        "--accel",
        choices=("auto", "kvm", "tcg"),
        default="auto",
        help="auto (default): KVM where a trial guest ran with it, else emulation",
    )
    add("--debs", type=Path, metavar="DIR", help="take packages from this folder, use no mirror")
    add("--refresh", action="store_true", help="ask the mirror for a newer kernel, try KVM again")
    add("--prepare", action="store_true", help="fill the cache, run nothing")
    add("--verbose", action="store_true", help="tell on standard error what runs and how long")
    split = argv.index("--") if "--" in argv else len(argv)
    options = parser.parse_args(argv[:split])
    options.command = argv[split + 1 :]
    if options.prepare == bool(options.command):
        parser.error("either a command after -- or --prepare")
    return options


def _seconds(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"not a number of seconds: {text!r}")
    return value or None


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"not a positive number: {text!r}")
    return int(text)


def _cpus() -> int:
    # Two at the least: what races on one processor is not seen there.
    return max(2, min(4, len(os.sched_getaffinity(0))))


def _run(options: argparse.Namespace) -> int:
    if os.geteuid() != 0 or not _has_sys_admin():
        raise LabError(
            "needs root with CAP_SYS_ADMIN, to mount the host's files for the guest: "
            f"sudo {_RUN.parent.name}/{_RUN.name} ..."
        )
    arch, cache = host_arch(), cache_root()
    if options.debs is not None and not options.debs.is_dir():
        raise LabError(f"--debs {options.debs}: no such folder")
    tools = Tools(cache, arch, options.debs)
    kernels = Kernels(cache, arch, tools, options.debs)
    qemu, virtiofsd, modprobe = tools.qemu(), tools.virtiofsd(), tools.kmod("modprobe")
    kernel = kernels.get(options.kernel, refresh=options.refresh)
    if options.netdevsim:
        kernel = with_netdevsim(kernel, cache, arch, tools, options.debs)
    kvm = _kvm(options, cache, qemu, kernel)
    _tell(options, f"Linux {kernel.release}, {qemu.path}, {'KVM' if kvm else 'TCG'}")
    if options.prepare:
        return 0
    job = _job(options)
    machine = Machine(arch, kernel, qemu, virtiofsd, modprobe, kvm, options.cpus, options.memory)
    return _guest(machine, cache, job, options)


def _has_sys_admin() -> bool:
    # Bit 21 of the effective capabilities (include/uapi/linux/capability.h).
    found = re.search(r"^CapEff:\s*(\w+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    return found is not None and bool(int(found[1], 16) >> 21 & 1)


def _kvm(options: argparse.Namespace, cache: Path, qemu: Tool, kernel: Kernel) -> bool:
    if options.accel != "auto":
        return bool(options.accel == "kvm")

    def trial() -> bool:
        command = [str(_RUN), "--accel=kvm", f"--kernel={options.kernel}", f"--timeout={TRIAL:g}"]
        done = subprocess.run(
            [*command, "--", "true"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            preexec_fn=dies_with_us(),
        )
        return done.returncode == 0

    return kvm_works(cache, qemu, kernel, trial, again=options.refresh)


def _job(options: argparse.Namespace) -> Job:
    out = options.out and output_folder(options.out)
    umask = os.umask(0o022)
    return Job(options.command, Path.cwd(), dict(os.environ), umask, out, options.netdevsim)


def output_folder(path: Path) -> Path:
    """Make the folder that the guest may write to, and return its full path.

    :raises LabError: the guest cannot have it at that path.
    """
    path = path.resolve()
    if path == Path("/") or path.parts[1] in GUESTS_OWN:
        raise LabError(f"--out {path}: not this one; the guest has its own {Path(*path.parts[:2])}")
    path.mkdir(parents=True, exist_ok=True)
    return path


def _guest(machine: Machine, cache: Path, job: Job, options: argparse.Namespace) -> int:
    _set_limits()
    for starts_left in reversed(range(STARTS)):
        tree = private_tree(cache)
        guest = Guest(machine, tree, job)
        messages, qemu = "", None
        with guest as streams:
            status = streams.pump(boot=BOOT, total=options.timeout)
            if status is None:
                messages, qemu = guest.messages(), guest.qemu_status()
        streams.flush(wait=status is not None)
        if status is not None:
            if streams.ready_after is not None:
                _tell(options, f"the command started after {streams.ready_after:.1f} s")
            return status
        # It crashed, or its kernel panicked: on a busy host emulated time can stand still too long.
        died = qemu is not None and qemu <= 0
        if not (died and streams.ready_after is None and starts_left):
            _tell_lost(qemu, streams, messages)
            break
        _tell(options, "the guest died before the command started: once more")
        tree.close()
    return LOST


def _tell(options: argparse.Namespace, text: str) -> None:
    if options.verbose:
        print(f"lab: {text}", file=sys.stderr)


def _tell_lost(qemu: int | None, streams: Streams, messages: str) -> None:
    reason = streams.reason
    if qemu is not None and qemu < 0:
        reason = f"QEMU died of signal {-qemu}"
    elif qemu:
        reason = f"QEMU failed with status {qemu}"
    elif qemu == 0:
        reason = "its kernel ended before the command did"
    print(f"lab: the guest was lost: {reason}", file=sys.stderr)
    for text in (messages, streams.console_tail()):
        if text:
            print(text, file=sys.stderr)


def _set_limits() -> None:
    """For the children: no core files of a guest's size, and descriptors for the file server.

    The older file server holds one for every file that the guest looked at.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (1_000_000, hard):
        if limit <= soft:
            continue
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, max(limit, hard)))
            return
        except (OSError, ValueError):
            continue  # above the hard limit, without CAP_SYS_RESOURCE
