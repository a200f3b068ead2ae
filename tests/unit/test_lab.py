"""The lab's pure parts: what it reads, what it chooses, the command lines it makes."""

from __future__ import annotations

import gzip
import os
import shlex
import signal
import socket
import struct
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from lab import apt, cache, cli, kvm, sources, tools, tree
from lab.arch import ARCHES, host_arch
from lab.errors import LabError, NoMirrorError
from lab.guest import PORTS, Job, Machine, qemu_command, settings, virtiofsd_command
from lab.image import extract_vmlinux, release_of
from lab.kernel import Kernel, choose_release, kernel_packages, own_image, releases
from lab.netdevsim import has_netdevsim, with_netdevsim
from lab.sources import Mirror
from lab.streams import Streams, control_status
from lab.tools import Tool

ROOT = Path(__file__).resolve().parents[2]
MIRROR = "http://mirror.example/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


# --- the machine's apt configuration


@pytest.mark.parametrize(
    "text",
    [
        f"deb [signed-by={KEYRING}] {MIRROR} bookworm main",
        f"deb [ arch=amd64 signed-by={KEYRING} ] {MIRROR}/ bookworm main contrib # ours",
    ],
)
def test_a_mirror_in_one_line_style(text):
    assert sources.parse_one_line(text) == [Mirror(MIRROR, ("bookworm",), KEYRING)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"# deb {MIRROR} bookworm main",
        f"deb-src {MIRROR} bookworm main",
        "deb http://security.example/debian-security bookworm-security main",
        "deb http://ubuntu.example/ubuntu noble main",
        "deb http://vendor.example/apt cloud-sdk-bookworm main",
        f"deb {MIRROR} bookworm contrib",
        "deb",
    ],
)
def test_no_mirror_in_one_line_style(text):
    assert sources.parse_one_line(text) == []


def test_mirrors_in_deb822_style():
    text = f"""\
# ours
Types: deb deb-src
URIs: {MIRROR} http://second.example/debian/
Suites: trixie trixie-updates trixie-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
URIs: http://disabled.example/debian
Suites: trixie
Components: main
Enabled: no

Types: deb
URIs: http://vendor.example/
Suites: nodistro
Components: main
"""
    first, second = sources.parse_deb822(text)
    assert first.uri == MIRROR
    assert second.uri == "http://second.example/debian"
    assert first.suites == ("trixie", "trixie-updates")
    # An armoured key goes through as it stands: apt reads it back from our file.
    again = next(sources.stanzas(first.deb822(["sid"])))
    assert again["signed-by"] == first.signed_by
    assert "abc" in again["signed-by"]
    assert again["suites"] == "sid"


def test_the_machines_files_are_read_in_order(tmp_path):
    (tmp_path / "sources.list").write_text(f"deb {MIRROR} bookworm main\n")
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (parts / "b.sources").write_text(
        f"Types: deb\nURIs: {MIRROR}\nSuites: bookworm\nComponents: main\n"
    )
    (parts / "a.list").write_text("deb http://second.example/debian sid main\n")
    found = sources.machine_mirrors(tmp_path)
    assert [mirror.uri for mirror in found] == [MIRROR, "http://second.example/debian"]
    assert sources.machine_mirrors(tmp_path / "nothing") == []


def test_without_a_mirror_the_offline_way_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(apt, "machine_mirrors", list)
    with pytest.raises(NoMirrorError, match="--debs"):
        apt.Apt(tmp_path, ARCHES["x86_64"], ["sid"]).update()


def test_no_host_of_a_mirror_stands_in_the_lab():
    for file in (ROOT / "lab").iterdir():
        if file.is_file():
            assert "http" not in file.read_text(), file


# --- which kernel

NAMES = [
    "linux-image-7.2.9+deb13-cloud-amd64",
    "linux-image-7.2.12+deb13-cloud-amd64",
    "linux-image-7.2.12+deb13-cloud-amd64-dbg",
    "linux-binary-7.2.12+deb13-cloud-amd64",
    "linux-modules-7.2.12+deb13-cloud-amd64",
    "linux-base-7.2.12+deb13-cloud-amd64",
    "linux-image-7.2.12+deb13-amd64",
    "linux-image-7.2.12+deb13-rt-amd64",
    "linux-binary-unsigned-7.3.4+deb13-cloud-amd64",
    "linux-modules-7.3.4+deb13-cloud-amd64",
    "linux-image-6.12.107+deb13-cloud-amd64",
    "linux-image-cloud-amd64",
]


@pytest.mark.parametrize(
    ("wanted", "release"),
    [
        ("latest", "7.2.12+deb13-cloud-amd64"),
        ("7.2", "7.2.12+deb13-cloud-amd64"),
        ("7.2.9", "7.2.9+deb13-cloud-amd64"),
        ("7.3", "7.3.4+deb13-cloud-amd64"),
        ("6.12", "6.12.107+deb13-cloud-amd64"),
        ("6.1", None),
        ("7.4", None),
    ],
)
def test_the_newest_release_that_fits(wanted, release):
    assert choose_release(NAMES, wanted, "cloud-amd64") == release


def test_latest_is_no_kernel_without_single_devices():
    names = ["linux-image-7.0.13+deb13-cloud-amd64", "linux-image-6.19.14+deb13-cloud-amd64"]
    assert choose_release(names, "latest", "cloud-amd64") is None
    assert releases(names, "cloud-amd64")[0].startswith("7.0.13")


def test_a_kernel_is_one_package_or_several():
    assert kernel_packages(NAMES, "6.12.107+deb13-cloud-amd64") == [
        "linux-image-6.12.107+deb13-cloud-amd64"
    ]
    assert kernel_packages(NAMES, "7.2.12+deb13-cloud-amd64") == [
        "linux-binary-7.2.12+deb13-cloud-amd64",
        "linux-modules-7.2.12+deb13-cloud-amd64",
        "linux-base-7.2.12+deb13-cloud-amd64",
    ]
    assert kernel_packages(NAMES, "7.3.4+deb13-cloud-amd64") == [
        "linux-binary-unsigned-7.3.4+deb13-cloud-amd64",
        "linux-modules-7.3.4+deb13-cloud-amd64",
    ]


@pytest.mark.parametrize(
    ("version", "key"),
    [
        ("7.2.12-1~bpo13+1", (7, 2, 12)),
        ("1:10.0.2+ds-2+deb13u1~bpo12+1", (10, 0, 2)),
        ("7.3~rc4-1~exp1", (7, 3)),
        ("unknown", ()),
    ],
)
def test_the_numbers_of_a_debian_version(version, key):
    assert tools.version_key(version) == key


def test_the_newest_file_of_each_package():
    debs = [
        Path("qemu-system-common_1%3a10.0.2+ds-2_amd64.deb"),
        Path("qemu-system-common_1%3a7.2+dfsg-7_amd64.deb"),
        Path("kmod_30-1_amd64.deb"),
    ]
    assert tools.newest_debs(debs, {})["qemu-system-common"] == debs[0]
    below = {"qemu-system-common": (8,)}
    assert tools.newest_debs(debs, below) == {"qemu-system-common": debs[1], "kmod": debs[2]}


def test_the_codename_of_the_machine(tmp_path):
    file = tmp_path / "os-release"
    file.write_text('ID=debian\nVERSION_CODENAME="trixie"\n')
    assert tools.host_codename(file) == "trixie"
    file.write_text("ID=other\n")
    with pytest.raises(LabError, match="codename"):
        tools.host_codename(file)


# --- kernel images


def bzimage(vmlinux: bytes, release: str = "7.9.1-test") -> bytes:
    """An image as Documentation/arch/x86/boot.rst describes it, with one setup sector."""
    payload = gzip.compress(vmlinux)
    header = bytearray(1024)
    header[0x1F1] = 1
    header[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", header, 0x206, 0x020F)
    struct.pack_into("<H", header, 0x20E, 0x300 - 0x200)
    struct.pack_into("<II", header, 0x248, 16, len(payload))
    text = release.encode() + b" (someone) #1\0"
    header[0x300 : 0x300 + len(text)] = text
    return bytes(header) + bytes(16) + payload + b"behind"


def test_a_bzimage_holds_a_release_and_a_kernel():
    vmlinux = b"\x7fELF" + b"kernel" * 100
    assert release_of(bzimage(vmlinux)) == "7.9.1-test"
    assert extract_vmlinux(bzimage(vmlinux)) == vmlinux
    assert extract_vmlinux(vmlinux) == vmlinux
    assert release_of(b"\x7fELF..Linux version 6.1.2-mine (me) ") == "6.1.2-mine"


@pytest.mark.parametrize(
    "image", [b"", b"MZ", bytes(2000), bzimage(b"no ELF"), bzimage(b"\x7fELF")[:1050]]
)
def test_an_image_that_cannot_be_unpacked(image):
    assert extract_vmlinux(image) is None


def test_an_image_of_ones_own(tmp_path):
    image = tmp_path / "bzImage"
    with pytest.raises(LabError, match="No such file"):
        own_image(image)
    image.write_bytes(b"text")
    with pytest.raises(LabError, match="not a kernel image"):
        own_image(image)
    image.write_bytes(bzimage(b"\x7fELF"))
    assert own_image(image) == Kernel("7.9.1-test", image, None, None)
    modules = tmp_path / "lib/modules/7.9.1-test"
    modules.mkdir(parents=True)
    (modules / "modules.dep").touch()
    kernel = own_image(image)
    assert kernel.modules == modules
    # As Debian and the kernel's own install lay it out.
    (modules / "vmlinuz").write_bytes(image.read_bytes())
    assert own_image(modules / "vmlinuz").modules == modules


def test_netdevsim_is_not_built_for_ones_own_kernel(tmp_path):
    modules = tmp_path / "lib/modules/7.9.1-test"
    modules.mkdir(parents=True)
    kernel = Kernel("7.9.1-test", tmp_path / "bzImage", tmp_path, None)
    toolbox = tools.Tools(tmp_path, ARCHES["x86_64"])
    with pytest.raises(LabError, match="CONFIG_NETDEVSIM"):
        with_netdevsim(kernel, tmp_path, ARCHES["x86_64"], toolbox)
    (modules / "modules.builtin").write_text("kernel/drivers/net/netdevsim/netdevsim.ko\n")
    assert has_netdevsim(kernel)


# --- the cache


def test_a_fill_is_whole_or_nothing(tmp_path):
    target = tmp_path / "entry"

    def fails(part: Path) -> None:
        (part / "half").touch()
        raise LabError("no")

    with pytest.raises(LabError):
        cache.fill(target, fails)
    assert [p.name for p in tmp_path.iterdir()] == [".entry.lock"]
    assert cache.fill(target, lambda part: (part / "whole").touch()) == target
    assert (target / "whole").exists()
    cache.fill(target, fails)  # not called: it is there


def test_a_killed_fill_leaves_no_entry_and_is_cleared(tmp_path):
    target = tmp_path / "entry"
    code = (
        "import sys, time; from pathlib import Path; from lab.cache import fill\n"
        "def slow(part):\n"
        "    (part / 'half').touch(); print('half', flush=True); time.sleep(60)\n"
        "fill(Path(sys.argv[1]), slow)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(target)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.kill()
    assert not target.exists()
    assert list(tmp_path.glob(".entry.*.part"))
    cache.fill(target, lambda part: (part / "whole").touch())
    assert [p.name for p in target.iterdir()] == ["whole"]
    assert not list(tmp_path.glob(".entry.*.part"))


def test_fills_side_by_side_run_once(tmp_path):
    target, log = tmp_path / "entry", tmp_path / "log"
    code = (
        "import sys, time; from pathlib import Path; from lab.cache import fill\n"
        "def make(part):\n"
        "    open(sys.argv[2], 'a').write('x'); time.sleep(0.2)\n"
        "fill(Path(sys.argv[1]), make)\n"
    )
    command = [sys.executable, "-c", code, str(target), str(log)]
    processes = [subprocess.Popen(command, cwd=ROOT) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert log.read_text() == "x"


def test_the_cache_is_where_the_guest_can_see_it(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_root() == tmp_path / "netbpf/lab"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.cache_root() == tmp_path / "home/.cache/netbpf/lab"
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/shm/netbpf-test")
    try:
        with pytest.raises(LabError, match="the guest has its own"):
            cache.cache_root()
    finally:
        for folder in ("netbpf/lab", "netbpf", ""):
            (Path("/dev/shm/netbpf-test") / folder).rmdir()


def test_kvm_is_tried_once(monkeypatch, tmp_path):
    device = tmp_path / "kvm-device"
    monkeypatch.setattr(kvm, "DEVICE", device)
    kernel = Kernel("7.9.1-test", tmp_path, None, None)
    tool = Tool(Path(sys.executable))
    tried = []

    def works(answer: bool, again: bool = False) -> bool:
        def trial() -> bool:
            tried.append(answer)
            return answer

        return kvm.kvm_works(tmp_path, tool, kernel, trial, again=again)

    assert not works(True)
    assert tried == []  # no device
    device.touch()
    assert not works(False)
    assert not works(True)  # remembered
    assert works(True, again=True)
    assert tried == [False, True]
    assert works(False)


# --- the guest's view of the files


def test_mounts_of_a_type():
    mountinfo = """\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/vda rw
22 21 0:20 / /proc rw - proc proc rw
23 22 0:21 / /proc/sys/fs/binfmt_misc rw - proc proc rw
24 21 0:4 net:[1] /srv/ä\\040b rw shared:2 master:3 - nsfs nsfs rw
25 21 0:4 net:[2] /proclike rw - nsfs nsfs rw
"""
    assert tree.mounts_of_type(mountinfo, {"proc"}) == ["/proc"]
    assert tree.mounts_of_type(mountinfo, {"nsfs"}) == ["/proclike", "/srv/ä b"]


@pytest.mark.parametrize(
    ("words", "env"),
    [
        (["printf", "%s|", "a b", "'", '"$HOME"', "two\nlines", ""], {"A": "x 'y' $z"}),
        (["printf", "%s|", "\udcff"], {"BASH_FUNC_f%%": "() { :; }", "B": "\udcfe"}),
    ],
)
def test_words_and_environment_arrive_as_they_were(tmp_path, words, env):
    folder = tmp_path / "with space"
    folder.mkdir()
    kernel = Kernel("7.9.1-test", Path("/k"), Path("/base"), None)
    job = Job(words, folder, {**env, "PATH": os.environ["PATH"]}, 0o027, None)
    text = settings(kernel, Tool(Path("/sbin/modprobe")), job)
    script = tmp_path / "script"

    def run(job_words: str) -> bytes:
        changed = text.replace(shlex.join(words), job_words)
        script.write_bytes(os.fsencode(changed + 'echo "$release $base"\n(job)\n'))
        return subprocess.run(["sh", script], check=True, capture_output=True).stdout

    said = run(shlex.join(words)).removeprefix(b"7.9.1-test /base\n")
    assert said == b"".join(os.fsencode(word) + b"|" for word in words[2:])
    seen = run("env -0").removeprefix(b"7.9.1-test /base\n").split(b"\0")
    expected = {**env, "PATH": os.environ["PATH"], "NETBPF_LAB": "7.9.1-test"}
    assert {os.fsencode(f"{k}={v}") for k, v in expected.items()} == set(seen) - {b""}
    assert run("sh -c 'pwd; umask'").split(b"\n")[1:3] == [os.fsencode(folder), b"0027"]


def machine(kvm: bool) -> Machine:
    kernel = Kernel("7.9.1-test", Path("/k/vmlinux"), None, None)
    tool = Tool(Path("/q/qemu"), {"LD_LIBRARY_PATH": "/q/lib"}, ("-L", "/q/share"))
    return Machine(ARCHES["x86_64"], kernel, tool, tool, tool, kvm, 3, 512)


def test_the_command_line_of_qemu():
    words = qemu_command(machine(kvm=False), {"root": 5, "out": 6}, [7, 8, 9, 10])
    assert words[:5] == ["env", "LD_LIBRARY_PATH=/q/lib", "/q/qemu", "-L", "/q/share"]
    pairs = list(pairwise(words))
    assert ("-accel", "tcg,thread=multi") in pairs
    assert ("-smp", "3") in pairs
    assert ("-chardev", "socket,id=root,fd=5") in pairs
    assert ("-device", "vhost-user-fs-pci,chardev=out,tag=out") in pairs
    for number, name in enumerate(PORTS[:3], start=1):
        port = f"virtserialport,nr={number},chardev={name},name={name}"
        assert ("-device", port) in pairs
        assert f">/dev/vport0p{number}" in (ROOT / "lab/init.sh").read_text()
    assert ("-serial", "chardev:console") in pairs
    words = qemu_command(machine(kvm=True), {}, [7, 8, 9, 10])
    assert ("-accel", "kvm") in list(pairwise(words))


def test_the_command_line_of_either_file_server():
    old = virtiofsd_command(Tool(Path("/usr/lib/qemu/virtiofsd")), 4, Path("/a,b\\c"), "always")
    assert old[-1].startswith("source=/a\\,b\\\\c,sandbox=chroot,cache=always")
    new = virtiofsd_command(Tool(Path("/usr/libexec/virtiofsd")), 4, Path("/a,b"), "always")
    assert "--shared-dir=/a,b" in new
    assert "--sandbox=chroot" in new


# --- what comes out of a guest


class Ends:
    """A guest's side of the ports, and our side as Streams, writing to two pipes for 1 and 2."""

    def __init__(self) -> None:
        pairs = [socket.socketpair() for _ in PORTS]
        self.ours = [pair[0] for pair in pairs]
        self.stdout, self.stderr, self.control, self.console = (pair[1] for pair in pairs)
        self.streams = Streams(self.ours, {})

    def close(self) -> None:
        for end in (*self.ours, self.stdout, self.stderr, self.control, self.console):
            end.close()


@pytest.fixture
def ends():
    made = Ends()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"", None),
        (b"ready\n", None),
        (b"ready\nexit 7", None),
        (b"ready\nexit 7\n", 7),
        (b"exit x\nexit 137\n", 137),
    ],
)
def test_the_status_is_a_whole_line(said, status):
    assert control_status(said) == status


def test_output_is_passed_on_and_the_status_returned(ends, capfdbinary):
    ends.stdout.send(b"out")
    ends.stderr.send(b"err")
    ends.control.send(b"ready\nexit 3\n")
    assert ends.streams.pump(boot=5, total=5) == 3
    ends.streams.flush(wait=True)
    assert capfdbinary.readouterr() == (b"out", b"err")


def test_a_guest_that_ends_early_is_lost(ends):
    ends.console.send(b"[ 1.0] Kernel panic\r\n")
    for end in (ends.stdout, ends.stderr, ends.control, ends.console):
        end.close()
    assert ends.streams.pump(boot=5, total=5) is None
    assert "ended before" in ends.streams.reason
    assert ends.streams.console_tail() == "[ 1.0] Kernel panic"


@pytest.mark.parametrize(
    ("said", "boot", "total", "reason"),
    [
        (b"", 0.05, 5, "did not start within 0.05 s"),
        (b"ready\n", 0.05, 0.1, "no status within 0.1 s"),
        (b"", 5, 0.05, "no status within 0.05 s"),
    ],
)
def test_a_guest_that_hangs_is_lost(ends, said, boot, total, reason):
    ends.control.send(said)
    start = time.monotonic()
    assert ends.streams.pump(boot=boot, total=total) is None
    assert time.monotonic() - start < 2
    assert reason in ends.streams.reason


def test_a_reader_that_left_ends_the_command():
    # In a process of its own, whose standard output is a pipe that nobody reads.
    code = (
        "import sys; from tests.unit.test_lab import Ends\n"
        "ends = Ends(); ends.stdout.send(b'x'); sys.stdin.read()\n"
        "status = ends.streams.pump(boot=5, total=5); ends.close(); sys.exit(status)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
    assert process.returncode == 128 + signal.SIGPIPE


# --- the command line


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--"],
        ["true"],
        ["--prepare", "--", "true"],
        ["--timeout", "x", "--", "true"],
        ["--timeout", "-1", "--", "true"],
        ["--cpus", "0", "--", "true"],
        ["--unknown", "--", "true"],
        ["--net", "--", "true"],
    ],
)
def test_wrong_options_are_status_2_with_a_usage_line(words, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: lab/run ")


def test_help_and_the_page_name_every_option(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    page = (ROOT / "docs/lab.md").read_text()
    for option in ("--kernel", "--netdevsim", "--out", "--timeout", "--cpus", "--memory"):
        assert option in text
        assert f"`{option}" in page
    for option in ("--accel", "--debs", "--refresh", "--prepare", "--verbose"):
        assert option in text
        assert f"`{option}" in page


@pytest.mark.parametrize("folder", ["/", "/run/out", "/proc", "/tmp/../dev/out"])
def test_an_output_folder_that_the_guest_cannot_have(folder):
    with pytest.raises(LabError, match="not this one"):
        cli.output_folder(Path(folder))


def test_an_output_folder_is_made(tmp_path):
    assert cli.output_folder(tmp_path / "a/../b").is_dir()
    (tmp_path / "link").symlink_to(tmp_path / "b")
    assert cli.output_folder(tmp_path / "link") == tmp_path / "b"


def test_who_is_not_root_is_told(monkeypatch, capsys):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert cli.main(["--", "true"]) == 125
    assert "needs root" in capsys.readouterr().err


def test_another_architecture_is_told(monkeypatch):
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "h", "1", "1", "mips")))
    with pytest.raises(LabError, match="mips"):
        host_arch()
