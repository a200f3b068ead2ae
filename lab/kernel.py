"""Which kernel to boot: found among Debian's cloud kernels, or an image of one's own."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lab.apt import Apt, deb_field, unpack
from lab.arch import Arch
from lab.cache import fill, write_atomically
from lab.errors import LabError
from lab.image import extract_vmlinux, release_of
from lab.process import run_tool
from lab.tools import Tools, version_key

LATEST_SUITES = ("trixie-backports", "sid")
"""Where the newest kernel is: the first is the smaller by far."""

OLDER_SUITES = ("trixie-backports", "trixie", "sid")

LATEST_MINIMUM = (7, 1)
"""The first kernel whose netkit has single devices and queue leases."""


@dataclass(frozen=True)
class Kernel:
    """A kernel that can be booted.

    :param image: what QEMU starts.
    :param base: the folder that holds ``lib/modules/RELEASE``, or None without modules.
    :param origin: the cache entry with the packages' remains, or None for one's own image.
    """

    release: str
    image: Path
    base: Path | None
    origin: Path | None

    @property
    def modules(self) -> Path | None:
        """The folder of its modules."""
        return self.base / "lib/modules" / self.release if self.base else None


class Kernels:
    """Finds kernels, and keeps them in the cache."""

    def __init__(self, cache: Path, arch: Arch, tools: Tools, debs: Path | None = None):
        self._cache = cache
        self._arch = arch
        self._tools = tools
        self._debs = debs
        (cache / "kernels").mkdir(exist_ok=True)

    def get(self, wanted: str, *, refresh: bool = False) -> Kernel:
        """The kernel for ``latest``, a version prefix, or the path of an image.

        What was found once is kept: no network is used until *refresh* asks for it.

        :raises LabError: there is none, or no way to it.
        """
        if wanted == "latest" or re.fullmatch(r"\d+\.\d+(\.\d+)?", wanted):
            choice = self._cache / "chosen" / wanted
            if choice.exists() and not refresh:
                entry = self._cache / "kernels" / choice.read_text().strip()
                if entry.exists():
                    return self._entry(entry)
            release = self._fetch(wanted)
            write_atomically(choice, release + "\n")
            return self._entry(self._cache / "kernels" / release)
        return own_image(Path(wanted))

    def _entry(self, entry: Path) -> Kernel:
        image = entry / "vmlinux"
        return Kernel(entry.name, image if image.exists() else entry / "vmlinuz", entry, entry)

    def _fetch(self, wanted: str) -> str:
        if self._debs is not None:
            return self._fetch_from_folder(wanted, self._debs)
        seen: list[str] = []
        for suite in LATEST_SUITES if wanted == "latest" else OLDER_SUITES:
            apt = Apt(self._cache / "apt" / suite, self._arch, [suite])
            try:
                apt.update()
            except LabError as e:
                seen.append(f"{suite}: {e}")
                continue
            names = apt.names(rf"linux-.*{re.escape(self._arch.flavour)}")
            release = choose_release(names, wanted, self._arch.flavour)
            if release is None:
                offered = releases(names, self._arch.flavour)
                seen.append(f"{suite}: {', '.join(offered[:3]) or 'none'}")
                continue
            packages = kernel_packages(names, release)

            def make(part: Path, apt: Apt = apt, packages: list[str] = packages) -> None:
                self._build(part, apt.download(packages, part / ".debs"))
                (part / "suite").write_text(apt.suites[0] + "\n")

            fill(self._cache / "kernels" / release, make)
            return release
        found = "\n  ".join(seen)
        raise LabError(f"no {self._arch.flavour} kernel for {wanted!r}; found:\n  {found}")

    def _fetch_from_folder(self, wanted: str, folder: Path) -> str:
        files = {deb.name.split("_")[0]: deb for deb in sorted(folder.glob("linux-*.deb"))}
        release = choose_release(files, wanted, self._arch.flavour)
        if release is None:
            raise LabError(
                f"no linux-image or linux-binary package of a {self._arch.flavour} kernel "
                f"for {wanted!r} in {folder}"
            )
        packages = kernel_packages(files, release)
        fill(
            self._cache / "kernels" / release,
            lambda part: self._build(part, [files[name] for name in packages]),
        )
        return release

    def _build(self, part: Path, debs: list[Path]) -> None:
        root = part / ".root"
        unpack(debs, root)
        found = sorted(p for top in ("lib", "usr/lib") for p in root.glob(f"{top}/modules/*"))
        if not found:
            raise LabError(f"no modules in {', '.join(deb.name for deb in debs)}")
        release = found[0].name
        modules = part / "lib/modules" / release
        modules.parent.mkdir(parents=True)
        found[0].rename(modules)
        for name, places in {
            "vmlinuz": (
                modules / "vmlinuz",
                modules / "vmlinuz.unsigned",
                root / "boot" / f"vmlinuz-{release}",
            ),
            "config": (modules / "config", root / "boot" / f"config-{release}"),
        }.items():
            source = next((place for place in places if place.exists()), None)
            if source is None:
                raise LabError(f"no {name} in {', '.join(deb.name for deb in debs)}")
            shutil.copyfile(source, part / name)
        if self._arch.vmlinux:
            vmlinux = extract_vmlinux((part / "vmlinuz").read_bytes())
            if vmlinux is not None:
                (part / "vmlinux").write_bytes(vmlinux)
        (part / "version").write_text(deb_field(debs[0], "Version") + "\n")
        run_tool(
            self._tools.kmod("depmod").argv("-b", part, release), doing=f"list modules of {release}"
        )
        shutil.rmtree(root)
        shutil.rmtree(part / ".debs", ignore_errors=True)


def releases(names: Iterable[str], flavour: str) -> list[str]:
    """The releases whose image is among packages of these *names*, the newest first."""
    pattern = re.compile(rf"linux-(?:image|binary)-(?:unsigned-)?(\d.*-{re.escape(flavour)})")
    found = {match[1] for name in names if (match := pattern.fullmatch(name))}
    return sorted(found, key=version_key, reverse=True)


def choose_release(names: Iterable[str], wanted: str, flavour: str) -> str | None:
    """The newest release that is ``latest`` (7.1 at the least) or starts with a version."""
    names = list(names)
    prefix = () if wanted == "latest" else tuple(map(int, wanted.split(".")))
    for release in releases(names, flavour):
        version = version_key(release)
        # Unsigned images come first into backports; what the signed ones have is good enough.
        if wanted == "latest" and not _is_signed(names, release):
            continue
        if version[: len(prefix)] == prefix and (prefix or version >= LATEST_MINIMUM):
            return release
    return None


def kernel_packages(names: Iterable[str], release: str) -> list[str]:
    """The packages that hold image, modules and configuration of *release*, the image first.

    Up to 6.18 one package holds all; from 6.19 on they are three.
    """
    names = set(names)
    image = next(
        name
        for kind in ("binary", "binary-unsigned", "image", "image-unsigned")
        if (name := f"linux-{kind}-{release}") in names
    )
    rest = [f"linux-{kind}-{release}" for kind in ("modules", "base")]
    return [image, *(name for name in rest if name in names)]


def _is_signed(names: Iterable[str], release: str) -> bool:
    return f"linux-image-{release}" in set(names)


def own_image(path: Path) -> Kernel:
    """A kernel of one's own: a bzImage, Image or vmlinux, with its modules beside it or installed.

    :raises LabError: no such file, or no kernel.
    """
    try:
        image = path.read_bytes()
    except OSError as e:
        raise LabError(f"--kernel {path}: {e.strerror}") from e
    release = release_of(image)
    if release is None:
        raise LabError(f"--kernel {path}: not a kernel image (bzImage or vmlinux)")
    path = path.resolve()
    places = [
        path.parent,
        Path(str(path).removesuffix(f"/lib/modules/{release}/{path.name}")),
        Path("/"),
    ]
    base = next((b for b in places if (b / "lib/modules" / release / "modules.dep").exists()), None)
    return Kernel(release, path, base, None)
