"""One guest: its start, its streams, its status and its end."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from lab.arch import Arch
from lab.errors import LOST
from lab.kernel import Kernel
from lab.process import dies_with_us
from lab.streams import Streams
from lab.tools import Tool
from lab.tree import Tree

PORTS = ("stdout", "stderr", "control", "console")
"""The guest's ways out: numbered from 1 as lab/init.sh opens them, the console apart."""

# What the older file server says of every connection that ends.
_NOISE = ("fv_remove_watch", "virtio_loop: Unexpected poll")

INIT = Path(__file__).with_name("init.sh")

_FSTAB = """\
proc /proc proc nosuid,nodev,noexec 0 0
sysfs /sys sysfs nosuid,nodev,noexec 0 0
devtmpfs /dev devtmpfs mode=0755,nosuid 0 0
devpts /dev/pts devpts nosuid,noexec,gid=5,mode=620,ptmxmode=666,x-mount.mkdir 0 0
tmpfs /dev/shm tmpfs nosuid,nodev,x-mount.mkdir 0 0
tmpfs /run tmpfs nosuid,nodev,mode=0755 0 0
cgroup2 /sys/fs/cgroup cgroup2 nosuid,nodev,noexec 0 0
bpf /sys/fs/bpf bpf nosuid,nodev,noexec,mode=0700 0 0
debugfs /sys/kernel/debug debugfs nosuid,nodev,noexec 0 0
tracefs /sys/kernel/tracing tracefs nosuid,nodev,noexec 0 0
"""


@dataclass(frozen=True)
class Job:
    """What to run, and where."""

    argv: Sequence[str]
    cwd: Path
    env: Mapping[str, str]
    umask: int
    out: Path | None = None
    netdevsim: bool = False


@dataclass(frozen=True)
class Machine:
    """What the guest is made of."""

    arch: Arch
    kernel: Kernel
    qemu: Tool
    virtiofsd: Tool
    modprobe: Tool
    kvm: bool
    cpus: int
    memory: int
    """Mebibytes; taken from the host only as far as the guest touches them."""


class Guest:
    """A started guest; a context manager that ends it whatever happens."""

    def __init__(self, machine: Machine, tree: Tree, job: Job):
        self._machine = machine
        self._tree = tree
        self._job = job
        self._owned = ExitStack()
        self._deaths: dict[int, str] = {}
        # As a context manager, but the owner is the stack.
        self._log = self._owned.enter_context(tempfile.TemporaryFile())  # noqa: SIM115

    def __enter__(self) -> Streams:
        try:
            return self._start()
        except BaseException:
            self._owned.close()
            raise

    def __exit__(self, *_: object) -> None:
        self._owned.close()

    def messages(self) -> str:
        """What QEMU and the file servers had to say."""
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()
        return "\n".join(line for line in lines if not line.startswith(_NOISE))

    def qemu_status(self) -> int | None:
        """The status that QEMU ended with by itself (-N: signal N); None when it still runs.

        To be asked within the context, as its end kills QEMU.
        """
        try:
            return self._qemu.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return None

    def _start(self) -> Streams:
        self._write_run()
        shares = {"root": self._serve("root", self._tree.root, "always")}
        if self._job.out is not None:
            shares["out"] = self._serve("out", self._job.out, "auto")
        self._tree.seal()
        ours, theirs = [], []
        for _ in PORTS:
            pair = socket.socketpair()
            ours.append(self._owned.enter_context(pair[0]))
            theirs.append(self._owned.enter_context(pair[1]))
        passed = [*shares.values(), *theirs]
        argv = qemu_command(
            self._machine,
            {tag: end.fileno() for tag, end in shares.items()},
            [end.fileno() for end in theirs],
        )
        self._qemu = self._spawn("QEMU", argv, passed)
        for end in passed:
            end.close()
        return Streams(ours, self._deaths)

    def _write_run(self) -> None:
        run = self._tree.run
        for name in ("top", "root"):
            (run / name).mkdir()
        (run / "fstab").write_text(_FSTAB)
        # What a device manager would make: without it, >/dev/stderr is a new file.
        (run / "dev").mkdir()
        for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
            (run / "dev" / name).symlink_to(f"/proc/self/fd{target}")
        init = run / "init"
        init.write_bytes(INIT.read_bytes())
        init.chmod(0o755)
        text = settings(self._machine.kernel, self._machine.modprobe, self._job)
        (run / "settings").write_bytes(os.fsencode(text))

    def _serve(self, name: str, source: Path, cache: str) -> socket.socket:
        """Start a file server for *source*; the socket is connected to it already."""
        client = self._owned.enter_context(socket.socket(socket.AF_UNIX))
        folder = os.open(self._tree.run, os.O_PATH)
        try:
            address = f"/proc/self/fd/{folder}/{name}.sock"  # short, whatever the cache's path is
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(address)
                listener.listen(1)
                client.connect(address)
                argv = virtiofsd_command(self._machine.virtiofsd, listener.fileno(), source, cache)
                self._spawn("the file server", argv, [listener])
        finally:
            os.close(folder)
        return client

    def _spawn(
        self, name: str, argv: list[str], passed: list[socket.socket]
    ) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            pass_fds=[end.fileno() for end in passed],
            # Ctrl-C is for us to handle, in order.
            process_group=0,
            preexec_fn=dies_with_us(),
        )
        self._owned.callback(process.wait)
        self._owned.callback(process.kill)
        death = os.pidfd_open(process.pid)
        self._owned.callback(os.close, death)
        self._deaths[death] = name
        return process


def settings(kernel: Kernel, modprobe: Tool, job: Job) -> str:
    """The shell text that tells the guest's init what to do."""
    values = {
        "release": kernel.release,
        "base": str(kernel.base or ""),
        "modprobe": str(modprobe.path),
        "out": str(job.out or ""),
        "netdevsim": "yes" if job.netdevsim else "",
    }
    env = {**job.env, "NETBPF_LAB": kernel.release}
    if job.out is not None:
        env["NETBPF_LAB_OUT"] = str(job.out)
    words = ["exec", "setsid", "env", "-i", *(f"{k}={v}" for k, v in env.items()), *job.argv]
    return "".join(
        [
            *(f"{name}={shlex.quote(value)}\n" for name, value in values.items()),
            "job() {\n",
            f"cd {shlex.quote(str(job.cwd))} || exit {LOST}\n",
            f"umask {job.umask:03o}\n",
            f"{shlex.join(words)}\n",
            "}\n",
        ]
    )


def virtiofsd_command(virtiofsd: Tool, fd: int, source: Path, cache: str) -> list[str]:
    """The command line of a file server that confines itself to *source*."""
    if virtiofsd.path.parent.name == "libexec":
        # The Rust one; file handles spare it a descriptor for every file the guest looked at.
        return virtiofsd.argv(
            f"--fd={fd}",
            f"--shared-dir={source}",
            "--sandbox=chroot",
            f"--cache={cache}",
            "--log-level=warn",
            "--no-announce-submounts",  # an overlay refuses to cross them
            "--inode-file-handles=prefer",
            "--modcaps=+dac_read_search",  # which opening by handle takes
            "--rlimit-nofile=0",
        )
    escaped = re.sub(r"([\\,])", r"\\\1", str(source))
    options = (f"source={escaped}", "sandbox=chroot", f"cache={cache}", "log_level=warn")
    return virtiofsd.argv(f"--fd={fd}", "-f", "--rlimit-nofile=0", "-o", ",".join(options))


def qemu_command(machine: Machine, shares: Mapping[str, int], ports: Sequence[int]) -> list[str]:
    """The command line of QEMU.

    :param shares: tag and connected socket of each file server.
    :param ports: a connected socket for each of ``PORTS``.
    """
    arch = machine.arch
    words = [
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none"),
        *("-machine", f"{arch.machine},memory-backend=mem"),
        *("-smp", str(machine.cpus)),
        *("-m", f"{machine.memory}M"),
        *("-object", f"memory-backend-memfd,id=mem,size={machine.memory}M,share=on"),
        *("-device", f"virtio-serial-pci,max_ports={len(PORTS)}"),
    ]
    if machine.kvm:
        words += ["-accel", "kvm", "-cpu", "host"]
    else:
        words += ["-accel", "tcg,thread=multi", "-cpu", "max"]
    for tag, fd in shares.items():
        words += ["-chardev", f"socket,id={tag},fd={fd}"]
        words += ["-device", f"vhost-user-fs-pci,chardev={tag},tag={tag}"]
    for number, (name, fd) in enumerate(zip(PORTS, ports, strict=True), start=1):
        words += ["-chardev", f"socket,id={name},fd={fd}"]
        if name == "console":
            words += ["-serial", f"chardev:{name}"]
        else:
            words += ["-device", f"virtserialport,nr={number},chardev={name},name={name}"]
    words += ["-kernel", str(machine.kernel.image)]
    words += [
        "-append",
        # The self-tests of the kernel's cryptography take half a second of emulation.
        "root=root rootfstype=virtiofs ro init=/run/init quiet panic=-1 oops=panic "
        f"cryptomgr.notests console={arch.console} {arch.parameters}",
    ]
    return machine.qemu.argv(*words)
