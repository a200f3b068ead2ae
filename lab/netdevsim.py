"""netdevsim, the kernel's simulated network card, built for a Debian kernel that comes without."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from lab.apt import Apt, deb_field
from lab.arch import Arch
from lab.cache import fill
from lab.errors import LabError
from lab.kernel import Kernel
from lab.process import run_tool
from lab.tools import Tools, version_key

BUILD_PROGRAMS = ("gcc", "make", "flex", "bison", "bc", "xz", "strip")
BUILD_PACKAGES = ("gcc", "make", "flex", "bison", "bc", "libelf-dev", "libssl-dev", "xz-utils")

_SCRIPT = Path(__file__).with_name("netdevsim.sh")


def with_netdevsim(
    kernel: Kernel, cache: Path, arch: Arch, tools: Tools, debs: Path | None = None
) -> Kernel:
    """The same kernel with a module folder that has netdevsim; built at the first call.

    :raises LabError: no source of exactly this version, or the build failed.
    """
    if has_netdevsim(kernel):
        return kernel
    if kernel.origin is None:
        raise LabError(
            f"--netdevsim: the modules of {kernel.release} have no netdevsim, and it is built for "
            "Debian's kernels only; build yours with CONFIG_NETDEVSIM=m"
        )
    (cache / "netdevsim").mkdir(exist_ok=True)
    base = fill(
        cache / "netdevsim" / kernel.release,
        lambda part: _build(part, kernel, cache, arch, tools, debs),
    )
    return replace(kernel, base=base)


def has_netdevsim(kernel: Kernel) -> bool:
    """Whether the kernel's own modules include it."""
    if kernel.modules is None:
        return False
    builtin = kernel.modules / "modules.builtin"
    if builtin.exists() and "/netdevsim.ko" in builtin.read_text():
        return True
    return any(kernel.modules.glob("**/netdevsim.ko*"))


def _build(
    part: Path, kernel: Kernel, cache: Path, arch: Arch, tools: Tools, debs: Path | None
) -> None:
    missing = [name for name in BUILD_PROGRAMS if shutil.which(name) is None]
    if missing:
        raise LabError(
            f"--netdevsim: building the module needs {', '.join(missing)}; "
            f"install {' '.join(BUILD_PACKAGES)}"
        )
    assert kernel.origin is not None and kernel.modules is not None
    source, headers = _packages(part / ".debs", kernel, kernel.origin, cache, arch, debs)
    build = part / ".build"
    config = kernel.origin / "config"
    run_tool(
        ["sh", _SCRIPT, source, headers, config, kernel.release, arch.kbuild, build],
        doing=f"build netdevsim for {kernel.release}",
    )
    modules = part / "lib/modules" / kernel.release
    shutil.copytree(kernel.modules, modules, copy_function=os.link, symlinks=True)
    (modules / "extra").mkdir()
    run_tool(
        ["strip", "--strip-debug", "-o", modules / "extra/netdevsim.ko", build / "netdevsim.ko"],
        doing="strip netdevsim.ko",
    )
    for table in modules.glob("modules.*.bin"):
        table.unlink()  # a hard link: depmod must write a file of its own
    for table in (modules / "modules.dep", modules / "modules.alias", modules / "modules.symbols"):
        table.unlink(missing_ok=True)
    run_tool(
        tools.kmod("depmod").argv("-b", part, kernel.release),
        doing=f"list modules of {kernel.release}",
    )
    shutil.rmtree(build)
    shutil.rmtree(part / ".debs", ignore_errors=True)


def _packages(
    into: Path, kernel: Kernel, origin: Path, cache: Path, arch: Arch, debs: Path | None
) -> tuple[Path, Path]:
    version = (origin / "version").read_text().strip()
    source = "linux-source-" + ".".join(map(str, version_key(version)[:2]))
    headers = f"linux-headers-{kernel.release}"
    if debs is not None:
        return _from_folder(debs, source, version), _from_folder(debs, headers, version)
    if not (origin / "suite").exists():
        raise LabError(f"--netdevsim: {kernel.release} came from a folder: name it with --debs")
    suite = (origin / "suite").read_text().strip()
    apt = Apt(cache / "apt" / suite, arch, [suite])
    apt.update()
    if version not in apt.versions(source):
        raise LabError(
            f"--netdevsim: {suite} has no {source} of version {version} any more; "
            "take the newer kernel with --refresh"
        )
    found = apt.download([f"{source}={version}", f"{headers}={version}"], into)
    by_name = {deb.name.split("_")[0]: deb for deb in found}
    return by_name[source], by_name[headers]


def _from_folder(folder: Path, package: str, version: str) -> Path:
    for deb in sorted(folder.glob(f"{package}_*.deb")):
        if deb_field(deb, "Version") == version:
            return deb.resolve()
    raise LabError(f"--netdevsim: no {package} of version {version} in {folder}")
