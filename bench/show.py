#!/usr/bin/env python3
"""The CPU time that a whole `netbpf tcx show --json` takes, beside `bpftool net show`.

Run as root: .venv/bin/python bench/show.py [ROUNDS [PAIRS]]. It makes 500 veth pairs in a namespace
of its own, ten devices with two programs each: attached by themselves, then by pinned links, whose
pins and owners netbpf looks up and bpftool does not. The devices are down, and then up: bpftool
asks for the filters of each qdisc, and a device that is down has none. The goal is a ratio of 1.0
at the most.

BPFTOOL names another bpftool than that of PATH: those before 7.3 know nothing of tcx and ask the
kernel for less.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import compare, table
from netbpf import netns
from netbpf.netns import NetNS

GOAL = 1.0
BUSY = 10
NETBPF = str(Path(sys.executable).with_name("netbpf"))
BASE = "bpftool net show"
OURS = "netbpf tcx show --json"


@contextmanager
def devices(pairs: int, how: str, state: str) -> Iterator[None]:
    """Be in a new namespace with that many veth pairs, some of them with programs.

    :param how: ``--link`` or ``--no-link``.
    :param state: ``up`` or ``down``.
    """
    name = f"bench-{secrets.token_hex(4)}"
    with ExitStack() as stack:
        netns.add(name)
        stack.callback(netns.delete, name)
        place = stack.enter_context(NetNS.from_name(name))
        stack.enter_context(netns.entered(place))
        with tempfile.NamedTemporaryFile("w") as lines:
            for number in range(pairs):
                pair = (f"veth{number}", f"peer{number}")
                lines.write(f"link add {pair[0]} type veth peer name {pair[1]}\n")
                lines.writelines(f"link set {device} {state}\n" for device in pair)
            lines.flush()
            _run("ip", "-batch", lines.name)
        for number in range(BUSY):
            for program in ("count", "pass"):
                where = (f"veth{number}", "ingress")
                _run(NETBPF, "tcx", "attach", *where, f"builtin:{program}", how)
                stack.callback(_run, NETBPF, "tcx", "detach", *where, f"name:{program}")
        yield


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


def bpftool() -> str:
    """The bpftool to compare with."""
    found = os.environ.get("BPFTOOL")
    found = found or shutil.which("bpftool", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        raise SystemExit("there is no bpftool to compare with")
    return found


def main() -> int:
    """Measure and print; the status says only whether it could be measured."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    pairs = int(sys.argv[2]) if len(sys.argv) > 2 else 500
    tool = bpftool()
    version = subprocess.run([tool, "version"], capture_output=True, text=True, check=True).stdout
    version = version.split()[1]
    commands = {
        BASE: [tool, "net", "show"],
        OURS: [NETBPF, "tcx", "show", "--json"],
        "netbpf tcx show": [NETBPF, "tcx", "show"],
        "python -c pass": [sys.executable, "-c", "pass"],
    }
    # Not measured: compiling the package's own modules where nothing wrote them down.
    _run(sys.executable, "-m", "compileall", "-q", str(Path(netns.__file__).parents[1]))
    for state in ("down", "up"):
        for how, words in (("--no-link", "attached by themselves"), ("--link", "by pinned links")):
            with devices(pairs, how, state):
                shown = subprocess.run(commands[OURS], capture_output=True, check=True).stdout
                if len(json.loads(shown)["chains"]) != BUSY:
                    raise SystemExit(f"{OURS} shows {shown!r}")
                times = compare(commands, rounds)
            ratio = times[OURS] / times[BASE]
            verdict = "within" if ratio <= GOAL else "above"
            print(f"{2 * pairs} devices, {state}; {2 * BUSY} programs {words}; {tool} {version}")
            print(table(times, base=BASE))
            print(f"{OURS}: {ratio:.2f} times {BASE}, {verdict} the goal of {GOAL}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
