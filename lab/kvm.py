"""Whether KVM really runs a guest here: tried once, then remembered until the host boots again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from lab.cache import locked, write_atomically
from lab.kernel import Kernel
from lab.tools import Tool

DEVICE = Path("/dev/kvm")

TRIAL = 10.0
"""Seconds for a whole guest; with a KVM that works it takes one or two."""


def kvm_works(
    cache: Path, qemu: Tool, kernel: Kernel, trial: Callable[[], bool], *, again: bool = False
) -> bool:
    """Whether guests of *kernel* run with KVM: by *trial*, once per boot of the host.

    The device alone says little: it may exist where a guest hangs or QEMU fails to set a register.
    """
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return False
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    what = f"{qemu.path} {qemu.path.stat().st_mtime_ns} {kernel.release}"
    answer = cache / "kvm" / f"{boot}-{hashlib.sha256(what.encode()).hexdigest()[:16]}"
    with locked(cache / "kvm" / ".lock"):
        if again or not answer.exists():
            for old in (cache / "kvm").glob("*-*"):
                if not old.name.startswith(boot):
                    old.unlink()
            write_atomically(answer, "yes\n" if trial() else "no\n")
        return answer.read_text() == "yes\n"
