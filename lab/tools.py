"""The programs that the lab runs: the system's where they will do, else unpacked into the cache."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lab.apt import Apt, unpack
from lab.arch import Arch
from lab.cache import fill
from lab.errors import LabError

OLDEST_QEMU = (8, 1)
"""Before 8.1 the emulation of multi-processor guests is not to be trusted: 6.12 panics at boot."""

OLDEST_IP = (6, 7)
"""The first iproute2 that knows netkit."""

# Debian's releases whose own QEMU and iproute2 are older; their backports have newer ones.
_OLD = ("bookworm",)

# The first version without it: the file server became a package of its own.
_WITH_VIRTIOFSD = (8,)

# Files in a folder of packages that are not a tool's: kernels, and the system's own C library.
_OTHERS = re.compile(r"linux-|libc6$")

_SBIN = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True)
class Tool:
    """A program with what it needs to run from where it lies."""

    path: Path
    env: dict[str, str] = field(default_factory=dict)
    args: tuple[str, ...] = ()

    def argv(self, *words: str | Path) -> list[str]:
        """The command line that runs it, with its own library path and no one else's."""
        prefix = ["env", *(f"{k}={v}" for k, v in self.env.items())] if self.env else []
        return [*prefix, str(self.path), *self.args, *map(str, words)]


class Tools:
    """Finds each program once; downloads only what the system lacks."""

    def __init__(self, cache: Path, arch: Arch, debs: Path | None = None):
        self._cache = cache / "tools"
        self._arch = arch
        self._debs = debs
        self._apt: Apt | None = None
        self._cache.mkdir(parents=True, exist_ok=True)

    def qemu(self) -> Tool:
        """QEMU 8.1 or newer.

        :raises LabError: neither here nor to be had.
        """
        system = shutil.which(self._arch.qemu)
        if system and qemu_version(system) >= OLDEST_QEMU:
            return Tool(Path(system))
        root = fill(self._cache / "qemu", self._fill_qemu)
        share = root / "usr" / "share"
        folders = [share / name for name in ("qemu", "seabios", "ipxe/qemu")]
        search = [word for folder in folders for word in ("-L", str(folder))]
        return Tool(root / "usr/bin" / self._arch.qemu, self._libraries(root), tuple(search))

    def virtiofsd(self) -> Tool:
        """The file server of the guest, C or Rust.

        :raises LabError: neither here nor to be had.
        """
        system = _first_file(Path("/usr/libexec/virtiofsd"), Path("/usr/lib/qemu/virtiofsd"))
        if system:
            return Tool(system)
        root = fill(self._cache / "virtiofsd", self._fill_virtiofsd)
        path = _first_file(root / "usr/libexec/virtiofsd", root / "usr/lib/qemu/virtiofsd")
        if path is None:
            raise LabError(f"no virtiofsd in {root}")
        return Tool(path, self._libraries(root))

    def ip(self) -> Tool:
        """``ip`` of an iproute2 that knows netkit, for comparison: the lab itself needs none.

        :raises LabError: neither here nor to be had.
        """
        system = shutil.which("ip", path=_SBIN)
        if system and tool_version(system, "-V", r"iproute2-(\d+)\.(\d+)") >= OLDEST_IP:
            return Tool(Path(system))
        root = fill(self._cache / "iproute2", self._fill_ip)
        path = _first_file(*(root / name / "ip" for name in ("usr/bin", "bin")))
        if path is None:
            raise LabError(f"no ip in {root}")
        return Tool(path, self._libraries(root))

    def kmod(self, name: str) -> Tool:
        """``depmod`` or ``modprobe``.

        :raises LabError: neither here nor to be had.
        """
        system = shutil.which(name, path=_SBIN)
        if system:
            return Tool(Path(system))
        return Tool(fill(self._cache / "kmod", self._fill_kmod) / "lab" / name)

    def _fill_qemu(self, root: Path) -> None:
        package = self._arch.qemu_package
        self._unpack(package, root, choose=lambda apt: _suite_with(apt, package, OLDEST_QEMU))

    def _fill_ip(self, root: Path) -> None:
        self._unpack("iproute2", root, choose=lambda apt: _suite_with(apt, "iproute2", OLDEST_IP))

    def _fill_virtiofsd(self, root: Path) -> None:
        # Up to Debian 12 it is a part of QEMU's own package, afterwards one of its own.
        package = "virtiofsd"
        if self._debs is None:
            package = (
                "virtiofsd" if self._host_apt().versions("virtiofsd") else "qemu-system-common"
            )
        elif not list(self._debs.glob("virtiofsd_*.deb")):
            package = "qemu-system-common"
        self._unpack(package, root, below={"qemu-system-common": _WITH_VIRTIOFSD})

    def _fill_kmod(self, root: Path) -> None:
        self._unpack("kmod", root)
        target = self._cache / "kmod"
        kmod = next(p for p in ("usr/bin/kmod", "bin/kmod") if (root / p).exists())
        (root / "lab").mkdir()
        for name in ("depmod", "modprobe"):
            # kmod looks at the name it is called by.
            (root / "lab" / f".{name}").mkdir()
            (root / "lab" / f".{name}" / name).symlink_to(target / kmod)
            script = root / "lab" / name
            script.write_text(
                "#!/bin/sh\n"
                f"LD_LIBRARY_PATH={shlex.quote(self._libraries(target)['LD_LIBRARY_PATH'])} \\\n"
                f'    exec {shlex.quote(f"{target}/lab/.{name}/{name}")} "$@"\n'
            )
            script.chmod(0o755)

    def _unpack(
        self,
        package: str,
        root: Path,
        *,
        choose: Callable[[Apt], str | None] = lambda _: None,
        below: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        if self._debs is None:
            debs = root / ".debs"
            apt = self._host_apt()
            unpack(apt.download_with_missing(package, choose(apt), debs), root)
            shutil.rmtree(debs)
            return
        found = newest_debs(self._debs.glob("*.deb"), below or {})
        if package not in found:
            raise LabError(f"no {package}_*.deb in {self._debs}")
        # The libraries that it needs are among the rest.
        unpack([deb for name, deb in found.items() if not _OTHERS.match(name)], root)

    def _host_apt(self) -> Apt:
        if self._apt is None:
            codename = host_codename()
            apt = Apt(
                self._cache.parent / "apt" / "host",
                self._arch,
                [codename, f"{codename}-backports"] if codename in _OLD else [codename],
                host=True,
            )
            apt.update()
            self._apt = apt
        return self._apt

    def _libraries(self, root: Path) -> dict[str, str]:
        folders = [root / top / self._arch.multiarch for top in ("usr/lib", "lib")]
        return {"LD_LIBRARY_PATH": ":".join(map(str, folders))}


def qemu_version(path: str) -> tuple[int, ...]:
    """The version that a QEMU reports; (0,) when it does not run."""
    return tool_version(path, "--version", r"version (\d+)\.(\d+)")


def tool_version(path: str, option: str, pattern: str) -> tuple[int, ...]:
    """The version that a program tells, two numbers of *pattern*; (0,) when it does not run."""
    try:
        done = subprocess.run([path, option], capture_output=True, text=True, check=False)
    except OSError:
        return (0,)
    found = re.search(pattern, done.stdout)
    return (int(found[1]), int(found[2])) if found else (0,)


def _suite_with(apt: Apt, package: str, oldest: tuple[int, ...]) -> str | None:
    """The suite to take a package from when it must not be older: the backports, where there are.

    :raises LabError: no suite has one that is new enough.
    """
    if any(version_key(version) >= oldest for version in apt.versions(package)):
        return next((suite for suite in apt.suites if suite.endswith("-backports")), None)
    wanted = ".".join(map(str, oldest))
    raise LabError(f"no {package} of {wanted} or newer in {', '.join(apt.suites)}")


def newest_debs(debs: Iterable[Path], below: Mapping[str, tuple[int, ...]]) -> dict[str, Path]:
    """The newest file of each package, by name; those in *below* only under that version."""
    found: dict[str, Path] = {}
    for deb in debs:
        name = deb.name.split("_")[0]
        if name in below and deb_version(deb) >= below[name]:
            continue
        if name not in found or deb_version(deb) > deb_version(found[name]):
            found[name] = deb
    return found


def deb_version(deb: Path) -> tuple[int, ...]:
    """The numbers of the version in a package's file name."""
    return version_key(deb.name.split("_")[1].replace("%3a", ":")) if "_" in deb.name else ()


def version_key(version: str) -> tuple[int, ...]:
    """The numbers at the start of a Debian version, without its epoch."""
    found = re.match(r"(?:\d+:)?(\d+(?:\.\d+)*)", version)
    return tuple(map(int, found[1].split("."))) if found else ()


def host_codename(os_release: Path = Path("/etc/os-release")) -> str:
    """The codename of the Debian that runs here.

    :raises LabError: it names none.
    """
    found = re.search(r'^VERSION_CODENAME="?([a-z]+)', os_release.read_text(), re.MULTILINE)
    if found is None:
        raise LabError(f"{os_release} names no codename of Debian")
    return found[1]


def _first_file(*paths: Path) -> Path | None:
    return next((path for path in paths if os.access(path, os.X_OK)), None)
