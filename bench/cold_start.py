#!/usr/bin/env python3
"""The CPU time that a whole `netbpf --json tcx show` takes, beside its floor, `import typer`.

Run as root: .venv/bin/python bench/cold_start.py [ROUNDS]. It makes namespaces of its own with a
handful of devices and programs, attached by themselves and then by pinned links, whose pins and
owners have to be looked for. The goal is a ratio of 1.5 at the most.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import compare, table
from netbpf import netns
from netbpf.netns import NetNS

GOAL = 1.5
PAIRS = 3
NETBPF = str(Path(sys.executable).with_name("netbpf"))
BASE = 'python -c "import typer"'
OURS = "netbpf --json tcx show"


@contextmanager
def devices(how: str) -> Iterator[None]:
    """Be in a new namespace with some veth pairs, two of their devices with two programs each.

    :param how: ``--link`` or ``--no-link``.
    """
    name = f"bench-{secrets.token_hex(4)}"
    with ExitStack() as stack:
        netns.add(name)
        stack.callback(netns.delete, name)
        place = stack.enter_context(NetNS.from_name(name))
        stack.enter_context(netns.entered(place))
        for number in range(PAIRS):
            pair = (f"veth{number}", f"peer{number}")
            _run("ip", "link", "add", pair[0], "type", "veth", "peer", "name", pair[1])
        for device in ("veth0", "veth1"):
            for program in ("count", "pass"):
                _run(NETBPF, "tcx", "attach", device, "ingress", f"builtin:{program}", how)
                stack.callback(_run, NETBPF, "tcx", "detach", device, "ingress", f"name:{program}")
        yield


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main() -> int:
    """Measure and print; the status says only whether it could be measured."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        BASE: [sys.executable, "-c", "import typer"],
        OURS: [NETBPF, "--json", "tcx", "show"],
        "netbpf tcx show": [NETBPF, "tcx", "show"],
    }
    if bpftool := shutil.which("bpftool", path="/usr/sbin:/usr/bin:/sbin:/bin"):
        commands["bpftool net show"] = [bpftool, "net", "show"]
    # Not measured: compiling the package's own modules where nothing wrote them down.
    _run(sys.executable, "-m", "compileall", "-q", str(Path(netns.__file__).parents[1]))
    for how, words in (("--no-link", "programs attached by themselves"), ("--link", "by links")):
        with devices(how):
            times = compare(commands, rounds)
        ratio = times[OURS] / times[BASE]
        verdict = "within" if ratio <= GOAL else "above"
        print(f"{2 * PAIRS} devices, 4 {words}\n{table(times, base=BASE)}")
        print(f"{OURS}: {ratio:.2f} times import typer, {verdict} the goal of {GOAL}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
