"""One guest: its start, its streams, its status and its end."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.arch import Arch
from lab.kernel import Kernel
from lab.process import DIES_WITH_US
from lab.streams import Streams
from lab.tools import Tool
from lab.tree import Tree

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
    cpus: int = 2
    memory: int = 1024
    """Mebibytes; taken from the host only as far as the guest touches them."""


class Guest:
    """A started guest; a context manager that ends it whatever happens."""

    def __init__(self, machine: Machine, tree: Tree, job: Job):
        self._machine = machine
        self._tree = tree
        self._job = job
        self._processes: list[subprocess.Popen[bytes]] = []
        self._sockets: list[socket.socket] = []
        self._log = tempfile.TemporaryFile()

    def __enter__(self) -> Guest:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        for end in self._sockets:
            end.close()
        self._log.close()

    def messages(self) -> str:
        """What QEMU and the file servers had to say."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def wait(self, *, boot: float, total: float | None) -> int | None:
        """Pass the output on until the command ended; its status, or None for a lost guest.

        :param boot: seconds that the guest has to start the command.
        :param total: seconds for all of it.
        """
        return self.streams.pump(boot=boot, total=total)

    def _start(self) -> None:
        self._write_run()
        files = self._serve("fs", self._tree.root, "cache=always")
        shares = [("root", files)]
        if self._job.out is not None:
            shares.append(("out", self._serve("out", self._job.out, "cache=auto")))
        self._tree.seal()
        ports = [socket.socketpair() for _ in range(4)]
        self._sockets += [end for pair in ports for end in pair]
        theirs = [pair[1] for pair in ports]
        argv = qemu_command(
            self._machine, [(tag, s.fileno()) for tag, s in shares], [s.fileno() for s in theirs]
        )
        passed = [*theirs, *(s for _, s in shares)]
        self._spawn(argv, passed)
        for end in passed:
            end.close()
        self.streams = Streams(*(pair[0] for pair in ports))

    def _write_run(self) -> None:
        run = self._tree.run
        for name in ("top", "root"):
            (run / name).mkdir()
        (run / "fstab").write_text(_FSTAB)
        init = run / "init"
        init.write_bytes(INIT.read_bytes())
        init.chmod(0o755)
        (run / "settings").write_bytes(
            os.fsencode(settings(self._machine.kernel, self._machine.modprobe, self._job))
        )

    def _serve(self, name: str, source: Path, cache: str) -> socket.socket:
        """Start a file server for *source*; the socket is connected to it already."""
        folder = os.open(self._tree.run, os.O_PATH)
        address = f"/proc/self/fd/{folder}/{name}"  # short, whatever the cache's path is
        listener = socket.socket(socket.AF_UNIX)
        client = socket.socket(socket.AF_UNIX)
        self._sockets += [listener, client]
        try:
            listener.bind(address)
            listener.listen(1)
            client.connect(address)
        finally:
            os.close(folder)
        argv = virtiofsd_command(self._machine.virtiofsd, listener.fileno(), source, cache)
        self._spawn(argv, [listener])
        listener.close()
        return client

    def _spawn(self, argv: Sequence[str], passed: Sequence[socket.socket]) -> None:
        self._processes.append(
            subprocess.Popen(
                [*DIES_WITH_US, *argv],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[s.fileno() for s in passed],
                # Ctrl-C is for us to handle, in order.
                process_group=0,
            )
        )


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
            f"cd {shlex.quote(str(job.cwd))} || exit 125\n",
            f"{shlex.join(words)}\n",
            "}\n",
        ]
    )


def virtiofsd_command(virtiofsd: Tool, fd: int, source: Path, cache: str) -> list[str]:
    """The command line of a file server that confines itself to *source*."""
    if "libexec" in str(virtiofsd.path):
        mode = cache.removeprefix("cache=")
        return virtiofsd.argv(
            f"--fd={fd}", "--shared-dir", source, "--sandbox=chroot", f"--cache={mode}",
            "--log-level=warn", "--inode-file-handles=never",
        )  # fmt: skip
    return virtiofsd.argv(
        f"--fd={fd}", "-f", "-o", f"source={source}", "-o", "sandbox=chroot", "-o", cache,
        "-o", "log_level=warn", "--rlimit-nofile=0",
    )  # fmt: skip


def qemu_command(
    machine: Machine, shares: Sequence[tuple[str, int]], ports: Sequence[int]
) -> list[str]:
    """The command line of QEMU.

    :param shares: tag and connected socket of each file server.
    :param ports: connected sockets for standard output, standard error, control and console.
    """
    arch = machine.arch
    accel = ["-accel", "kvm", "-cpu", "host"]
    if not machine.kvm:
        accel = ["-accel", "tcg,thread=multi", "-cpu", "max"]
    words = [
        "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none",
        *accel,
        "-machine", f"{arch.machine},memory-backend=mem",
        "-smp", str(machine.cpus),
        "-m", f"{machine.memory}M",
        "-object", f"memory-backend-memfd,id=mem,size={machine.memory}M,share=on",
        "-device", "virtio-serial-pci,max_ports=4",
    ]  # fmt: skip
    for tag, fd in shares:
        words += ["-chardev", f"socket,id={tag},fd={fd}"]
        words += ["-device", f"vhost-user-fs-pci,chardev={tag},tag={tag}"]
    for number, (name, fd) in enumerate(zip(("stdout", "stderr", "control"), ports, strict=False)):
        words += ["-chardev", f"socket,id={name},fd={fd}"]
        words += ["-device", f"virtserialport,nr={number + 1},chardev={name},name={name}"]
    words += ["-chardev", f"socket,id=console,fd={ports[3]}", "-serial", "chardev:console"]
    words += ["-kernel", str(machine.kernel.image)]
    cmdline = [
        "root=root rootfstype=virtiofs ro init=/run/init",
        f"console={arch.console} quiet panic=-1 oops=panic",
        arch.cmdline,
    ]
    words += ["-append", " ".join(cmdline)]
    return machine.qemu.argv(*words)
