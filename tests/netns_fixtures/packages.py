"""The BPF objects that Debian's packages ship, as files or inside of programs.

``python -m tests.netns_fixtures.packages`` fetches what is missing (scripts/setup does): packages
are unpacked, never installed, and only their objects are kept, in the cache.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("xdp-tools", "xdp-tests", "libxdp1", "libbpf-tools")
"""What every release of Debian since 12 has."""

MORE = (
    "golang-github-cilium-ebpf-dev",
    "ir-keytable",
    "knot-dnsutils",
    "libknot13",
    "libknot15",
    "suricata",
    "systemd",
    "udev-hid-bpf",
)
"""What some releases have, or have without objects."""

_MAGIC = b"\x7fELF"
_MACHINE = 247  # EM_BPF
_QUICK = {"timeout": 120, "check": True, "capture_output": True}


def folder() -> Path:
    """Where the objects lie, a folder for each package; it may not be there yet."""
    key = hashlib.sha256("\0".join((*PACKAGES, *MORE)).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "netbpf" / "test-packages" / key


def objects() -> dict[str, Path]:
    """The objects by package and name, ``libxdp1/xdp-dispatcher``; none before they are fetched."""
    found = sorted(folder().glob("*/*.o"))
    return {f"{path.parent.name}/{path.stem}": path for path in found}


def fetch() -> None:
    """Download the packages that the machine's apt knows, and keep their objects.

    :raises subprocess.CalledProcessError: apt could not. :raises OSError: there is no apt.
    """
    if folder().exists():
        return
    folder().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder().parent) as name:
        part = Path(name)
        part.chmod(0o755)
        _download(part)
        made = part / "objects"
        made.mkdir()
        seen: set[bytes] = set()
        for deb in sorted(part.glob("*.deb")):
            _keep(deb, made / deb.name.split("_")[0], seen)
        shutil.rmtree(folder(), ignore_errors=True)
        made.rename(folder())


def _download(into: Path) -> None:
    known = _known()
    if not known >= set(PACKAGES):
        subprocess.run(["apt-get", "--quiet", "update"], **_QUICK)  # type: ignore[call-overload]
        known = _known()
    wanted = [*PACKAGES, *(name for name in MORE if name in known)]
    command = ["apt-get", "--quiet", "-o", "APT::Sandbox::User=root", "download", *wanted]
    subprocess.run(command, cwd=into, **_QUICK)  # type: ignore[call-overload]


def _known() -> set[str]:
    out = subprocess.run(
        ["apt-cache", "policy", *PACKAGES, *MORE], check=True, capture_output=True, text=True
    ).stdout
    known, name = set(), ""
    for line in out.splitlines():
        if not line.startswith(" "):
            name = line.rstrip(":")
        elif line.startswith("  Candidate:") and "(none)" not in line:
            known.add(name)
    return known


def _keep(deb: Path, into: Path, seen: set[bytes]) -> None:
    with tempfile.TemporaryDirectory(dir=deb.parent) as name:
        subprocess.run(["dpkg-deb", "-x", deb, name], check=True, capture_output=True)
        for path in sorted(Path(name).rglob("*")):
            if path.is_symlink() or not path.is_file():
                continue
            for number, data in enumerate(_inside(path.read_bytes())):
                # Several programs have the same object in them.
                digest = hashlib.sha256(data).digest()
                if digest in seen:
                    continue
                seen.add(digest)
                into.mkdir(exist_ok=True)
                stem = path.name.removesuffix(".o") + (f"-{number}" if number else "")
                (into / f"{stem}.o").write_bytes(data)


def _inside(data: bytes) -> Iterator[bytes]:
    """The objects that a file is or that are in it, as skeletons put them there."""
    if not data.startswith(_MAGIC):
        return
    at = 0
    while at >= 0:
        size = _size(data[at : at + 64])
        if at == 0 and size:
            yield data
            return
        if size:
            yield data[at : at + size]
        at = data.find(_MAGIC, at + 1)


def _size(header: bytes) -> int:
    # Up to the end of the section headers, which compilers write last; 0 where it is no object.
    if len(header) < 64 or header[4] != 2 or header[5] not in (1, 2):
        return 0
    order = "<" if header[5] == 1 else ">"
    if struct.unpack_from(f"{order}H", header, 18)[0] != _MACHINE:
        return 0
    (start,) = struct.unpack_from(f"{order}Q", header, 40)
    size, count = struct.unpack_from(f"{order}HH", header, 58)
    return int(start + size * count)


if __name__ == "__main__":
    try:
        fetch()
    except (OSError, subprocess.SubprocessError) as error:
        told = getattr(error, "stderr", b"") or b""
        sys.exit(f"the objects of Debian's packages: {error} {told.decode(errors='replace')}")
