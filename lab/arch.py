"""The one table of architecture names."""

from __future__ import annotations

import os
from dataclasses import dataclass

from lab.errors import LabError


@dataclass(frozen=True)
class Arch:
    """One machine under the names that Debian, QEMU and the kernel's build give it."""

    debian: str
    multiarch: str
    kbuild: str
    qemu: str
    qemu_package: str
    machine: str
    console: str
    vmlinux: bool
    """Whether QEMU starts an uncompressed kernel, which saves the guest unpacking it."""
    parameters: str = ""
    """More of the kernel's command line."""

    @property
    def flavour(self) -> str:
        """The end of a Debian cloud kernel's release string."""
        return f"cloud-{self.debian}"


ARCHES = {
    "x86_64": Arch(
        debian="amd64",
        multiarch="x86_64-linux-gnu",
        kbuild="x86",
        qemu="qemu-system-x86_64",
        qemu_package="qemu-system-x86",
        machine="q35",
        console="ttyS0",
        vmlinux=True,
        # The kernel's own test of its timer fails, and panics, where the host lets it wait.
        parameters="no_timer_check",
    ),
    "aarch64": Arch(
        debian="arm64",
        multiarch="aarch64-linux-gnu",
        kbuild="arm64",
        qemu="qemu-system-aarch64",
        qemu_package="qemu-system-arm",
        machine="virt",
        console="ttyAMA0",
        vmlinux=False,
    ),
}


def host_arch() -> Arch:
    """The row of this machine.

    :raises LabError: no Debian cloud kernel exists for it.
    """
    machine = os.uname().machine
    try:
        return ARCHES[machine]
    except KeyError:
        raise LabError(
            f"no lab on {machine}: Debian builds cloud kernels for {', '.join(sorted(ARCHES))} only"
        ) from None
