"""``netbpf netns exec`` beside ``ip netns exec``, on a terminal: the same bytes, the same status.

Signals that Python takes over at its start (SIGPIPE) reach the command as a shell gives them.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from netbpf.netns import NetNS
from tests.netns_fixtures.cli import netbpf, process

PATIENCE = 120 if "NETBPF_LAB" in os.environ else 20
Step = bytes | str | tuple[int, int]
"""What is typed, what is waited for, or the window's new size."""


class Terminal:
    """A command on a pseudo-terminal of its own, as the leader of its foreground group."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.out = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            os.execv(argv[0], list(argv))
        self.resize(24, 80)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait(self, words: bytes | None = None) -> None:
        """Read until ``words`` came, or to the end."""
        deadline = time.monotonic() + PATIENCE
        while words is None or words not in self.out:
            assert time.monotonic() < deadline, self.out
            if not select.select([self.fd], [], [], 0.1)[0]:
                continue
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                # EIO: nobody has the other side open any more.
                data = b""
            if not data:
                assert words is None, self.out
                return
            self.out += data

    def end(self) -> int:
        """Read to the end, and the status with which the command ended.

        Not hung up before: some close their terminal first and end then.
        """
        self.wait()
        self.pid, pid = 0, self.pid
        return os.waitpid(pid, 0)[1]

    def close(self) -> None:
        """Hang up on a command that has not ended."""
        os.close(self.fd)
        if self.pid:
            os.waitpid(self.pid, 0)


def on_terminal(argv: Sequence[str], steps: Sequence[Step]) -> tuple[bytes, int]:
    terminal = Terminal(argv)
    try:
        for step in steps:
            match step:
                case str():
                    terminal.wait(step.encode())
                case bytes():
                    os.write(terminal.fd, step)
                case (rows, columns):
                    terminal.resize(rows, columns)
        status = terminal.end()
    finally:
        terminal.close()
    return terminal.out, status


def ours(ns: NetNS) -> list[str]:
    return [sys.executable, "-m", "netbpf", "netns", "exec", str(ns.name), "--"]


def theirs(ns: NetNS) -> list[str]:
    return ["/bin/ip" if os.path.exists("/bin/ip") else "/sbin/ip", "netns", "exec", str(ns.name)]


JOB = """
import signal
import time

signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.signal(signal.SIGCONT, lambda *_: print("back", flush=True))
print("up", flush=True)
while True:
    time.sleep(1)
"""
"""Not the shell's: one that is stopped between vfork and exec of a child never stops."""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Scripts without a first line, with one that leads nowhere, and one that tells of SIGCONT."""
    folder = tmp_path_factory.mktemp("scripts")
    texts = {"plain": "echo $0 $1\n", "astray": "#!/no/such\n", "data": "x", "job.py": JOB}
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o644 if name == "data" else 0o755)
    yield folder


LOOP = "while :; do sleep 0.05; done"
LEADER = (
    "import os; print(os.getpgrp() == os.tcgetpgrp(0), os.getpid() == os.getpgrp(), "
    "os.getsid(0) == os.getpid(), os.isatty(0), os.isatty(1), os.isatty(2))"
)


@pytest.mark.parametrize(
    ("command", "steps"),
    [
        (["sh", "-c", "echo hi; exit 7"], []),
        (["sh", "-c", "kill -TERM $$"], []),
        (["sh", "-c", "kill -KILL $$"], []),
        (["sh", "-c", "kill -PIPE $$"], []),
        ([sys.executable, "-c", LEADER], []),
        (["sh", "-c", f"trap 'echo INT; exit 3' INT; echo up; {LOOP}"], ["up", b"\x03"]),
        (["sh", "-c", "ulimit -c 0; echo up; exec cat"], ["up\r\n", b"\x1c"]),
        (["sh", "-c", "echo up; exec cat"], ["up\r\n", b"\x03"]),
        (["cat"], [b"line\n", "line\r\nline", b"\x04"]),
        (["bash", "-c", f"trap 'stty size; exit' WINCH; stty size; {LOOP}"], ["80", (50, 132)]),
        (["sh", "-c", "grep -E '^Sig(Blk|Ign|Cgt)|^Cap|^Seccomp|^Groups' /proc/self/status"], []),
        (["sh", "-c", "env | grep -v ^_= | sort; pwd; umask; ulimit -a; nice"], []),
        (["sh", "-c", "ls /proc/self/fd"], []),
        (["sh", "-c", "ls /sys /sys/class/net /sys/fs/bpf /sys/fs/cgroup; stat -fc %T /sys"], []),
        (["sh", "-c", "cut -d' ' -f 5- /proc/self/mountinfo | grep ' sysfs '"], []),
        (["readlink", "/proc/self/ns/net"], []),
        (["echo", "-n", "x", "--json", "-j", "--netns", "y", "--", "--help"], []),
        (["echo", "--"], []),
        (["{scripts}/plain", "word"], []),
    ],
)
def test_as_ip_does(
    ns: NetNS, scripts: Path, command: list[str], steps: list[Step], tmp_path: Path
) -> None:
    words = [word.format(scripts=scripts) if "{scripts}" in word else word for word in command]
    assert on_terminal([*ours(ns), *words], steps) == on_terminal([*theirs(ns), *words], steps)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("no-such-command", "no command no-such-command: it is looked for in PATH"),
        ("{scripts}/missing", "no command {scripts}/missing"),
        ("{scripts}/data", "run {scripts}/data: it is not executable (EACCES)"),
        ("{scripts}", "run {scripts}: it is a folder (EACCES)"),
        ("{scripts}/astray", "a script's first line"),
    ],
)
def test_a_command_that_cannot_be_run(ns: NetNS, scripts: Path, command: str, message: str) -> None:
    """The status is ip's, the words are better."""
    path = command.format(scripts=scripts)
    mine = process("netns", "exec", ns.name, "--", path)
    his = subprocess.run([*theirs(ns), path], capture_output=True, text=True, check=False)
    assert (mine.returncode, mine.stdout) == (his.returncode, his.stdout)
    assert message.format(scripts=scripts) in mine.stderr
    assert mine.stderr.count("\n") == 1


def test_stopped_and_continued_by_a_shell(ns: NetNS, scripts: Path) -> None:
    """Ctrl-Z, fg, Ctrl-C: the job is the command itself, with ip's exit status."""
    statuses = []
    for prefix in (ours(ns), theirs(ns)):
        job = " ".join([*prefix, sys.executable, str(scripts / "job.py")])
        out, status = on_terminal(
            ["/bin/bash", "--norc", "--noediting", "-i"],
            [b"PS1='$ '\n", f"{job}\n".encode(), "up\r\n", b"\x1a",
             "Stopped", b"fg\n", "back\r\n", b"\x03", b"echo st''atus=$?\n", "status=", b"exit\n"],
        )  # fmt: skip
        assert status == 0, out
        statuses += re.findall(rb"status=(\d+)", out)
    assert statuses == [b"130", b"130"]


def test_by_path_and_by_process(ns: NetNS) -> None:
    with subprocess.Popen(
        [*theirs(ns), "sh", "-c", "echo up; read x"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdin and holder.stdout
        holder.stdout.readline()
        for where in (f"/run/netns/{ns.name}", f"pid:{holder.pid}", f"/proc/{holder.pid}/ns/net"):
            done = process("netns", "exec", where, "readlink", "/proc/self/ns/net")
            assert done.stdout == f"net:[{ns.inode}]\n", done.stderr
        holder.stdin.close()


def test_descriptors_are_handed_on_and_none_of_ours(ns: NetNS) -> None:
    reading, writing = os.pipe()
    try:
        done = process("netns", "exec", ns.name, "ls", "/proc/self/fd", pass_fds=[writing])
    finally:
        os.close(reading)
        os.close(writing)
    # One more is that of ls itself.
    assert {"0", "1", "2", str(writing)} < set(done.stdout.split())
    assert len(done.stdout.split()) == 5


def test_the_folder_of_etc_netns_by_name_only(ns: NetNS) -> None:
    folder = Path("/etc/netns") / str(ns.name)
    made = not folder.parent.exists()
    folder.mkdir(parents=True)
    try:
        (folder / "resolv.conf").write_text("nameserver 10.9.8.7\n")
        (folder / "no-such-file-in-etc").write_text("x")
        look = ["sh", "-c", "cat /etc/resolv.conf"]
        mine = process("netns", "exec", ns.name, *look)
        his = subprocess.run([*theirs(ns), *look], capture_output=True, text=True, check=False)
        assert mine.stdout == his.stdout == "nameserver 10.9.8.7\n"
        assert "no-such-file-in-etc is not mounted over /etc" in mine.stderr
        assert mine.returncode == his.returncode == 0
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        if made:
            folder.parent.rmdir()


@pytest.mark.parametrize(
    "words", [["exec"], ["exec", "NAME"], ["exec", "NAME", "--"], ["exec", "--", "NAME"]]
)
def test_nothing_to_run(ns: NetNS, words: list[str]) -> None:
    result = netbpf("-j", "netns", *(str(ns.name) if word == "NAME" else word for word in words))
    assert (result.status, result.error["code"]) == (2, "usage")


def test_ours_and_theirs_know_each_others(ns: NetNS) -> None:
    """`ip netns pids` and `identify` of a process that netbpf started, and show of one of ip's."""
    with subprocess.Popen(
        [*ours(ns), "sh", "-c", "echo up; read x"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdin and holder.stdout
        holder.stdout.readline()
        for verb, argument, told in (
            ("pids", str(ns.name), str(holder.pid)),
            ("identify", str(holder.pid), str(ns.name)),
        ):
            done = subprocess.run(
                ["ip", "netns", verb, argument], capture_output=True, text=True, check=True
            )
            assert done.stdout.split() == [told]
        assert f'"pids": [{holder.pid}]' in netbpf("-j", "netns", "show", ns.name).out
        holder.stdin.close()
